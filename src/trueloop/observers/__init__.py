"""Who watches a run: a plain callable that gets each event and may reply ``Stop``.

An observer gets what it needs in its constructor, and never touches the training. The step path is hot: it keeps a
reference and looks at the clock; tensors are read in batches, later. Whoever prints, pays.

Example:
    >>> from trueloop.events import EvalEnded, Event, Stop
    >>> def good_enough(event: Event) -> Stop | None:
    ...     match event:
    ...         case EvalEnded(metrics={"accuracy": accuracy}) if accuracy > 0.99:
    ...             return Stop(f"accuracy {accuracy} is good enough")
    ...     return None
    >>> good_enough(EvalEnded(step=10, epoch=0, metrics={"accuracy": 0.995}, samples=100, seconds=0.1))
    Stop(reason='accuracy 0.995 is good enough')
"""

from trueloop.observers.early_stop import EarlyStop
from trueloop.observers.jsonl import Jsonl
from trueloop.observers.progress import Progress
from trueloop.observers.run_folder import RunRecord, claim, note
from trueloop.observers.tensorboard import TensorBoard

__all__ = ["EarlyStop", "Jsonl", "Progress", "RunRecord", "TensorBoard", "claim", "note"]
