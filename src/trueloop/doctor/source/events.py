"""What happens in a script that is read, in its order: the records that rules ask.

Each has its node and where it happened (``at``). ``target`` is what was acted on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from trueloop.doctor.source.values import At, Class, Function, Object, Value

if TYPE_CHECKING:
    import libcst as cst


class Made(NamedTuple):
    """An object of a library's class, or of a module class of the user's, was made."""

    node: cst.CSTNode
    at: At
    made: Object
    function: Function | None


class Called(NamedTuple):
    """A model was called by the script (not by another model): with which mode and whether a graph is recorded."""

    node: cst.CSTNode
    at: At
    target: Value
    args: tuple[Value, ...]
    result: Value
    training: bool | None
    layers: tuple[tuple[str, bool | None], ...] | None  # those with two modes, and in which; None if unknown
    asked: bool  # whether train() or eval() was ever called on it
    grad: bool | None
    frozen: tuple[Object, ...] = ()  # batch norms in train mode whose parameters are frozen


class LossCalled(NamedTuple):
    """A loss function or a loss module was called; ``kind`` is the function's name (``cross_entropy``)."""

    node: cst.CSTNode
    at: At
    kind: str
    input: Value
    target: Value
    result: Value
    loss: Object | None


class Operated(NamedTuple):
    """A function of a library was called that rules ask for by its full name; ``made_in`` is the function around it."""

    node: cst.CSTNode
    at: At
    name: str
    args: tuple[Value, ...]
    kwargs: dict[str, Value]
    result: Value
    function: Function | None


class Backward(NamedTuple):
    """``loss.backward()``, by whichever way."""

    node: cst.CSTNode
    at: At
    loss: Value
    kwargs: dict[str, Value]
    scaled: bool
    grad: bool | None


class Zeroed(NamedTuple):
    """Gradients were cleared; ``target`` is an optimizer, a model, a parameter, or unknown."""

    node: cst.CSTNode
    at: At
    target: Value


class Stepped(NamedTuple):
    """``optimizer.step()``, perhaps through a scaler."""

    node: cst.CSTNode
    at: At
    target: Value
    scaler: Value | None
    closure: bool


class Scheduled(NamedTuple):
    """``scheduler.step()``."""

    node: cst.CSTNode
    at: At
    target: Value
    args: tuple[Value, ...]


class Clipped(NamedTuple):
    """Gradients were clipped, of these parameters, to this limit."""

    node: cst.CSTNode
    at: At
    target: Value
    name: str
    limit: Value


class Unscaled(NamedTuple):
    """``scaler.unscale_(optimizer)``."""

    node: cst.CSTNode
    at: At
    scaler: Value
    target: Value


class Updated(NamedTuple):
    """``scaler.update()``."""

    node: cst.CSTNode
    at: At
    scaler: Value


class ModeSet(NamedTuple):
    """``train()`` or ``eval()``; None if which one is not known."""

    node: cst.CSTNode
    at: At
    target: Value
    training: bool | None


class Iterated(NamedTuple):
    """A loop was entered, over this; None for ``while``."""

    node: cst.CSTNode
    at: At
    over: Value | None
    loop: int


class Kept(NamedTuple):
    """A value was put into what was there before: appended to a list, added to a sum, stored under a key."""

    node: cst.CSTNode
    at: At
    how: str
    into: Value
    value: Value
    after: Value | None  # of a sum: what it is now


class Remembered(NamedTuple):
    """In a loop, what is called the best of something was given a value."""

    node: cst.CSTNode
    at: At
    name: str
    value: Value


class GradientsUsed(NamedTuple):
    """``.grad`` was read or changed otherwise, or ``torch.autograd.grad`` was called."""

    node: cst.CSTNode
    at: At
    target: Value


class Escaped(NamedTuple):
    """These were handed to a function that is not known."""

    node: cst.CSTNode
    at: At
    values: tuple[Value, ...]
    name: str
    result: Value


class Entered(NamedTuple):
    """A method of the user's objects began."""

    node: cst.CSTNode
    at: At
    function: Function


class Constructed(NamedTuple):
    """An object of a user's module class was made; whether ``nn.Module.__init__`` was reached, None if not known."""

    node: cst.CSTNode
    at: At
    made: Object
    cls: Class
    reached: bool | None


Event = (
    Made
    | Called
    | LossCalled
    | Operated
    | Backward
    | Zeroed
    | Stepped
    | Scheduled
    | Clipped
    | Unscaled
    | Updated
    | ModeSet
    | Iterated
    | Kept
    | Remembered
    | GradientsUsed
    | Escaped
    | Entered
    | Constructed
)
