"""The peers, in the order of their tables."""

from __future__ import annotations

from benchmarks.rounds import How, Variant

PEERS = {
    "Lightning (barebones)": ("lightning", "lightning"),
    "Fabric": ("fabric", "lightning"),
    "accelerate": ("accelerate", "accelerate"),
    "ignite": ("ignite", "pytorch-ignite"),
    "HF Trainer": ("hf_trainer", "transformers"),
    "skorch": ("skorch", "skorch"),
    "poutyne": ("poutyne", "poutyne"),
    "Keras (torch)": ("keras_torch", "keras"),
}
"""Name in the table -> file in ``benchmarks/peers``, distribution that it needs."""


def peers(how: How) -> list[Variant]:
    """All of them, those that are not installed too; none if they were not asked for."""
    if how.peers is None:
        return []
    return [
        Variant(name, f"peers.{file}:train", how.peers, how.peers_missing.get(distribution))
        for name, (file, distribution) in PEERS.items()
    ]
