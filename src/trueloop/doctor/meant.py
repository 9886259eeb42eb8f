"""What a script calls its things: whether a name says validation, or training.

Names are never the evidence alone. They tell apart what looks the same: a report on the training data, and a validation
that was given the wrong loader.
"""

from __future__ import annotations

import linecache
import re
import sys
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

from trueloop.doctor.findings import Place
from trueloop.doctor.places import is_users

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_ENDINGS = "(?:loaders?|sets?|data|dataset|dl|ds|iter|gen|x|y|acc|loss|steps?|epochs?)?"
_HELD_OUT = re.compile(rf"(?:val|valid|validation|validate|validating|test|testing|dev|holdout|heldout){_ENDINGS}")
_TRAINING = re.compile(rf"(?:train|training|trn|fit|fitting){_ENDINGS}")
_TARGETS = re.compile(r"^\s*([A-Za-z_][\w.\[\]\"']*(?:\s*,\s*[A-Za-z_][\w.\[\]\"']*)*)\s*(?::[^=]+)?(?:[-+*/]?=)(?!=)")
_TEXTS = re.compile(r"""(?:"([^"]*)"|'([^']*)')""")


def means_held_out(*names: str) -> bool:
    """Whether a name speaks of validation or test data, and none of training.

    Example:
        >>> means_held_out("val_loader"), means_held_out("testloader"), means_held_out("train_test_loader")
        (True, True, False)
        >>> means_held_out("values"), means_held_out("evaluate")
        (False, False)
    """
    return _any(_HELD_OUT, names) and not _any(_TRAINING, names)


def means_training(*names: str) -> bool:
    """Whether a name speaks of training.

    Example:
        >>> means_training("trainloader"), means_training("XTrain"), means_training("strain")
        (True, True, False)
    """
    return _any(_TRAINING, names)


def _any(pattern: re.Pattern[str], names: Iterable[str]) -> bool:
    return any(pattern.fullmatch(word.lower()) for name in names for word in _WORDS.findall(name))


def frames(depth: int = 1, limit: int = 6) -> Iterator[FrameType]:
    """The user's frames that are running, the innermost first."""
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None and limit:
        if is_users(frame.f_code.co_filename):
            limit -= 1
            yield frame
        frame = frame.f_back


def names_of(thing: Any, depth: int = 1) -> tuple[str, ...]:
    """What the running code calls an object: variables, keys of dicts, attributes of ``self``.

    Example:
        >>> code = compile("val_loader = object(); found = names_of(val_loader)", "<string>", "exec")
        >>> scope = {"names_of": names_of}
        >>> exec(code, scope)
        >>> scope["found"]
        ('val_loader',)
    """
    found: dict[str, None] = {}
    for frame in frames(depth + 1):
        scope = frame.f_locals
        for name, value in [*scope.items(), *_attributes(scope.get("self")).items()]:
            if value is thing:
                found[name] = None
            elif type(value) is dict:
                found.update((key, None) for key, kept in list(value.items()) if kept is thing and isinstance(key, str))
    return tuple(found)


def maker(depth: int = 1, limit: int = 20) -> str | None:
    """The running function that makes a loader for validation: ``val_dataloader``, a library's ``get_eval_dataloader``.

    Example:
        >>> code = compile("def get_val_loader(): return maker()\\nfound = get_val_loader()", "<string>", "exec")
        >>> scope = {"maker": maker}
        >>> exec(code, scope)
        >>> scope["found"]
        'get_val_loader'
    """
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None and limit:
        name = frame.f_code.co_name
        if "loader" in name.lower() and not name.startswith("__"):
            words = {word.lower() for word in _WORDS.findall(name)}
            if means_held_out(name) or ("eval" in words and not means_training(name)):
                return name
            if means_training(name):
                return None
        frame, limit = frame.f_back, limit - 1
    return None


def _attributes(thing: Any) -> dict[str, Any]:
    try:
        return dict(object.__getattribute__(thing, "__dict__"))
    except AttributeError:
        return {}


def called_validation(depth: int = 1) -> bool | None:
    """Whether the running code says that it validates: by its functions' names, and by what it calls the result.

    Returns:
        None where it says neither that it validates nor that it reports on the training data, or both.
    """
    said: list[str] = []
    for number, frame in enumerate(frames(depth + 1, limit=3)):
        name = frame.f_code.co_name
        place = Place(frame.f_code.co_filename, frame.f_lineno)
        above, below = (2, 8) if number == 0 else (0, 1)
        lines = [linecache.getline(place.file, line) for line in range(place.line - above, place.line + below)]
        said += [word for line in lines for word in results(line)]
        if name == "<module>" or (number and means_training(name)):
            break
        said.append(name)
    held_out, training = _any(_HELD_OUT, said), _any(_TRAINING, said)
    return held_out if held_out != training else None


def results(line: str) -> list[str]:
    """What a line gives a value to, and the text that it prints: not what it takes.

    Example:
        >>> results("val_acc = evaluate(model, train_loader)"), results("print('test acc', evaluate(loader))")
        (['val_acc'], ['test acc'])
    """
    match = _TARGETS.match(line)
    texts = [one or other for one, other in _TEXTS.findall(line)] if re.search(r"\b(print|log\w*|info)\b", line) else []
    return [*([match[1]] if match else []), *texts]
