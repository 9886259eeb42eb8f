"""A language model of characters: a loss of one's own, data that overlaps, a sample at the end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

import trueloop as tl


def char_lm(
    text: Path | None = None,
    steps: int = 600,
    lr: float = 2e-3,
    batch_size: int = 32,
    context: int = 64,
    width: int = 128,
    layers: int = 3,
    heads: int = 4,
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    sample: int = 300,
    seed: int = 0,
) -> tl.Recipe:
    """A small GPT that learns a text, character by character; it writes a sample at the end.

    The last tenth of the text is held out.

    Args:
        text: a file to learn, in UTF-8. Without one it is Python's language reference, 0.5 MB of English that every
            Python carries for its own help().
        steps: optimizer steps.
        lr: the peak of the learning rate.
        batch_size: pieces of text a step.
        context: characters that the model sees at once.
        width: numbers that stand for a character.
        layers: transformer blocks.
        heads: attention heads a block; they share the width.
        precision: what the forward pass computes in.
        sample: characters to write at the end; 0 writes nothing.
        seed: of the first weights, the order and the sample.
    """
    tl.seed_all(seed)
    corpus = python_reference() if text is None else text.read_text(encoding="utf-8")
    alphabet = sorted(set(corpus))
    index = {character: number for number, character in enumerate(alphabet)}
    tokens = torch.tensor([index[character] for character in corpus])
    held_out = len(tokens) // 10
    if held_out <= context:
        raise tl.errors.DataError(
            f"expected a text of more than {10 * (context + 1):,} characters for context={context}, got "
            f"{len(tokens):,}; give a longer --text, or a smaller --context",
            file=text,
        )
    model = Gpt(len(alphabet), context, width, layers, heads)
    trainer = tl.Trainer(
        model,
        next_character,
        tl.optim.adamw(lr=lr, weight_decay=0.1),
        schedule=tl.schedules.warmup_cosine(warmup_steps=steps // 10, end=0.1),
        metrics={"bits_per_character": bits_per_character},
        clip_norm=1.0,
        precision=precision,
    )
    return tl.Recipe(
        trainer,
        train=windows(tokens[:-held_out], context, every=1),  # each character begins a piece
        val=windows(tokens[-held_out:], context, every=context),  # each character is predicted once
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        evaluate_every_steps=max(1, steps // 4),
        observers=[WritesAtEnd(model, alphabet, sample, seed)] if sample else [],
    )


def python_reference() -> str:
    """The text of Python's ``help("for")`` and the like: its language reference, under the PSF licence.

    It differs a little from one version of Python to the next. (Licence texts and ``import this`` are too short.)
    """
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


def windows(tokens: Tensor, context: int, every: int) -> Tensor:
    """Pieces of ``context`` characters and the one after, int64 (pieces, context + 1); a view that copies nothing.

    Example:
        >>> windows(torch.arange(6), context=2, every=2)
        tensor([[0, 1, 2],
                [2, 3, 4]])
    """
    return tokens.unfold(0, context + 1, every)


def next_character(model: nn.Module, pieces: Tensor) -> dict[str, Tensor]:
    """The mean loss over the characters of ``pieces`` (batch, context + 1), each predicted from those before it."""
    output, target = model(pieces[:, :-1]), pieces[:, 1:]
    loss = functional.cross_entropy(output.flatten(0, 1), target.flatten())
    return {"loss": loss, "output": output, "target": target}


def bits_per_character(logits: Tensor, targets: Tensor) -> float:
    """How many bits a character costs: logits (n, context, characters), targets (n, context).

    Example:
        >>> round(bits_per_character(torch.zeros(1, 3, 8), torch.zeros(1, 3, dtype=torch.int64)), 3)  # one of 8
        3.0
    """
    return float(functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())) / math.log(2)


class WritesAtEnd:
    """An observer that lets the model write when the run has ended, and prints it.

    Args:
        model: gives logits (1, time, characters) for tokens (1, time).
        alphabet: the characters, in the order of the tokens.
        length: characters to write.
        seed: of the choice among likely characters; no other RNG is drawn from.
    """

    def __init__(self, model: Gpt, alphabet: list[str], length: int, seed: int) -> None:
        self.model = model
        self.alphabet = alphabet
        self.length = length
        self.seed = seed

    def __call__(self, event: tl.Event) -> None:
        match event:
            case tl.RunEnded(reason=reason) if not reason.startswith("failed"):
                print(f"\nthe model writes:\n{self.write()}\n")

    def write(self) -> str:
        """A text that begins where a line begins, or with the first character of the alphabet."""
        device = next(self.model.parameters()).device
        dice = torch.Generator().manual_seed(self.seed)
        first = self.alphabet.index("\n") if "\n" in self.alphabet else 0
        tokens = torch.tensor([[first]], device=device)
        with torch.no_grad():
            for _ in range(self.length):
                logits = self.model(tokens[:, -self.model.context :])[0, -1].float().cpu()
                chosen = torch.multinomial(logits.div(0.8).softmax(0), 1, generator=dice)
                tokens = torch.cat([tokens, chosen.to(device).view(1, 1)], dim=1)
        return "".join(self.alphabet[token] for token in tokens[0, 1:].tolist())


class Gpt(nn.Module):
    """A decoder-only transformer (GPT-2's): norms before each part, learned positions, the output tied to the input.

    There is no dropout: a run of some hundred steps sees each character a few times only.

    Example:
        >>> Gpt(characters=50, context=8, width=16, layers=1, heads=2)(torch.zeros(2, 8, dtype=torch.int64)).shape
        torch.Size([2, 8, 50])
    """

    def __init__(self, characters: int, context: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise tl.errors.ArgumentError(f"heads share the width: expected a divisor of width={width}, got {heads=}")
        self.context = context
        self.embedding = nn.Embedding(characters, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (batch, time) -> logits (batch, time, characters)."""
        x = self.embedding(tokens) + self.position.weight[: tokens.shape[1]]
        return functional.linear(self.norm(self.blocks(x)), self.embedding.weight)


class Block(nn.Module):
    """Attention to what came before, then a small network; each adds to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, width) -> the same shape."""
        batch, time, width = x.shape
        parts = self.query_key_value(self.norm_1(x)).view(batch, time, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each (batch, heads, time, width / heads)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.mix(seen.transpose(1, 2).reshape(batch, time, width))
        return torch.add(x, self.network(self.norm_2(x)))
