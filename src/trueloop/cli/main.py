"""``trueloop VERB …``: finds the verb and shows errors; torch is imported only by a verb that trains or evaluates."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from keyword import iskeyword

from trueloop import __version__
from trueloop.cli.processes import BROKEN_OFF
from trueloop.errors import PeerError, ProcessError, TrueloopError, UnknownNameError

VERBS = {
    "check": "read training scripts, find their mistakes, mend them",
    "doctor": "run any training script and say what is wrong with it",
    "rules": "list the mistakes that the doctor knows",
    "explain": "what one of them is, and how to mend it",
    "train": "train a recipe; its parameters are flags",
    "resume": "go on with a run that was stopped",
    "recipes": "list the recipes that come with trueloop",
    "evaluate": "the loss and metrics of a run's weights",
    "predict": "the outputs of a run's weights, written to a file",
    "checkpoints": "list the checkpoints of a run",
    "verify": "check every byte of a run's checkpoints",
    "verify-resume": "try whether a recipe's run is resumed exactly",
    "export": "the weights of a checkpoint, as one safetensors file",
    "import": "the weights of a file of torch's, as one safetensors file",
}
"""Each is a file in this folder with a function ``run(arguments) -> exit code``; that of ``import``, which is a word of
Python's, is ``import_.py``, and that of ``verify-resume`` is ``verify_resume.py``."""

INTERRUPTED = 130  # 128 + SIGINT, as shells count


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: without the program's name; None takes the command line's.

    Returns:
        The exit code: 0, 1 for a run of which nothing could be saved, 2 for what is wrong with the request, the data
        or the training, 3 for a process of several that hangs or whose weights have drifted, 75 for a preempted run,
        130 for Ctrl-C.

    Example:
        >>> main(["--version"])
        trueloop 0.1.0
        0
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except SystemExit as exited:  # tyro's, after --help or a wrong flag
        return exited.code if isinstance(exited.code, int) else 0 if exited.code is None else 2
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader (`| head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except PeerError:  # that process tells it
        return 1
    except TrueloopError as error:
        if os.environ.get("WORLD_SIZE", "1") != "1":
            from trueloop.parallel.failing import tells

            if not tells(error):  # whichever process ends first, the launcher ends with its code
                return BROKEN_OFF if isinstance(error, ProcessError) else 2
        if os.environ.get("TRUELOOP_TRACEBACK") == "1":
            raise
        _show(error)
        return BROKEN_OFF if isinstance(error, ProcessError) else 2


def _dispatch(arguments: list[str]) -> int:
    verb, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if verb in ("-h", "--help", "help"):
        print(_help())
        return 0
    if verb in ("-V", "--version"):
        print(f"trueloop {__version__}")
        return 0
    if verb not in VERBS:
        raise UnknownNameError("verb", verb, VERBS)
    file = verb.replace("-", "_") + "_" * iskeyword(verb)
    code: int = import_module(f"trueloop.cli.{file}").run(rest)
    return code


def _help() -> str:
    width = max(map(len, VERBS))
    return "\n".join(
        [
            "usage: trueloop VERB …",
            "",
            "A PyTorch training loop that is correct, fast, and tells you what is wrong with your training.",
            "",
            *(f"  {verb:<{width}}  {what}" for verb, what in VERBS.items()),
            "",
            "  trueloop check mine.py               read a training script, and show how to mend it",
            "  trueloop doctor mine.py --lr 0.1     what is wrong with a training script of your own",
            "  trueloop train digits                train a small network on handwritten digits",
            "  trueloop train digits --help         the flags of a recipe",
            "  trueloop train mine.py:mine --lr 0.1  a recipe of your own",
            "",
            "TRUELOOP_TRACEBACK=1 shows where an error comes from.",
        ]
    )


def _show(error: TrueloopError) -> None:
    from rich.console import Console
    from rich.text import Text

    text = Text.assemble(("error: ", "bold red"), (str(error), "red"))
    for more in getattr(error, "__notes__", ()):
        text.append(f"\n{more}", "red")
    Console(stderr=True).print(text, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
