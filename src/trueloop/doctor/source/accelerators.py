"""Accelerate, Fabric and DeepSpeed: the loop is the user's, and what stands in it goes through them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trueloop.doctor.source.attributes import attribute
from trueloop.doctor.source.events import Backward, Clipped, Stepped, Zeroed
from trueloop.doctor.source.machine import Machine
from trueloop.doctor.source.modules import set_mode
from trueloop.doctor.source.values import Args, Constant, Items, Kwargs, Object, Unknown, Value, truth

if TYPE_CHECKING:
    import libcst as cst

ENGINE = "deepspeed.DeepSpeedEngine"

_PREPARED = frozenset(
    [
        "prepare",
        "prepare_model",
        "prepare_data_loader",
        "prepare_optimizer",
        "prepare_scheduler",
        "setup",
        "setup_module",
        "setup_optimizers",
        "setup_dataloaders",
    ]
)
_THE_SAME = frozenset(
    [
        "unwrap_model",
        "skip_first_batches",
        "gather",
        "gather_for_metrics",
        "pad_across_processes",
        "reduce",
        "all_gather",
        "all_reduce",
        "broadcast",
        "to_device",
    ]
)
"""What these give is, for a rule, what they were given."""


def is_accelerator(kind: str) -> bool:
    """Whether a class of this name is Accelerate's or Fabric's."""
    return kind.rpartition(".")[2] in ("Accelerator", "Fabric")


def of_accelerator(m: Machine, name: str, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    """A method of Accelerate's or Fabric's: what is prepared stays what it is, and they run backward."""
    if name in _PREPARED:
        given = (*args, *(value for key, value in kwargs.items() if key == "scheduler"))
        return given[0] if len(given) == 1 else Items("tuple", node, m.at, {"items": given})
    if name == "backward" and args:
        m.tell(Backward(node, m.at, args[0], kwargs, False, m.state["grad"]))
        return Constant(None)
    if name in ("clip_grad_norm_", "clip_grad_value_", "clip_gradients"):
        limits = (*args[1:2], *(kwargs[key] for key in ("max_norm", "clip_val", "clip_value") if key in kwargs))
        of = args[0] if args else kwargs.get("parameters", Unknown())
        limit = limits[-1] if limits else Unknown()
        m.tell(Clipped(node, m.at, of, name, limit))  # of scaled gradients they take the scale out first
        return Unknown(name)
    if name in _THE_SAME and args:
        return args[0]
    return Unknown(name, via="call")


def engine(m: Machine, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    """``deepspeed.initialize(…)``: an engine that is the model, and steps and clears by itself."""
    model = args[1] if len(args) > 1 else kwargs.get("model", Unknown("model"))
    held = kwargs.get("model_parameters") or Unknown("parameter", model, "parameters")
    made = Object(ENGINE, (), {"params": held}, node, m.at, {"module": model})
    optimizer = args[2] if len(args) > 2 else kwargs.get("optimizer", Unknown("optimizer"))
    schedule = kwargs.get("lr_scheduler", Unknown("lr_scheduler"))
    return Items("tuple", node, m.at, {"items": (made, optimizer, Unknown("training_dataloader"), schedule)})


def of_engine(m: Machine, of: Object, name: str, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    """A method of DeepSpeed's engine."""
    model: Value = of.attrs["module"]
    if name == "backward" and args:
        m.tell(Backward(node, m.at, args[0], kwargs, False, m.state["grad"]))
        return args[0]
    if name == "step":
        m.tell(Stepped(node, m.at, of, None, False))
        m.tell(Zeroed(node, m.at, of))
        return Constant(None)
    if name == "zero_grad":
        m.tell(Zeroed(node, m.at, of))
        return Constant(None)
    if name in ("train", "eval"):
        mode = (args[0] if args else Constant(True)) if name == "train" else Constant(False)
        set_mode(m, model, truth(mode), node)
        return of
    if name in ("forward", "__call__"):
        return m.invoke(m, model, args, kwargs, node)
    if name in ("parameters", "named_parameters", "modules", "named_modules", "state_dict"):
        return m.invoke(m, attribute(m, model, name, node), args, kwargs, node)
    return Unknown(name, of, "call", args)
