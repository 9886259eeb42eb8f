"""Loops that a library runs with what it is given: ignite's engines, our own trainer, the Trainer of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trueloop.doctor.source.data import PREDICTIONS
from trueloop.doctor.source.elements import parts
from trueloop.doctor.source.events import Backward, Stepped, Zeroed
from trueloop.doctor.source.loops import loop, through
from trueloop.doctor.source.machine import End, Machine
from trueloop.doctor.source.modules import is_module, set_mode
from trueloop.doctor.source.values import (
    Args,
    At,
    Bound,
    Class,
    Constant,
    Function,
    Items,
    Kwargs,
    Object,
    Tensor,
    Unknown,
    Value,
)

if TYPE_CHECKING:
    import libcst as cst

ENGINE = "ignite.engine.Engine"
OURS = "trueloop.Trainer"
MAKERS = frozenset(("Engine", "create_supervised_trainer", "create_supervised_evaluator"))
_HANDLERS = ("handlers",)


def engine(m: Machine, name: str, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    """ignite's ``Engine(step)``, ``create_supervised_trainer(model, optimizer, loss)`` and ``…_evaluator(model)``."""
    return Object(ENGINE, args, {**kwargs, "made_by": Constant(name)}, node, m.at)


def of_engine(m: Machine, of: Object, name: str, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    """A method of an ignite engine: ``run`` goes through the batches, then through the handlers."""
    if name == "add_event_handler" and len(args) > 1:
        handle(m, of, args[1], args[2:])
    elif name == "run":
        data = args[0] if args else kwargs.get("data", Unknown("data"))
        handlers = of.attrs.get(_HANDLERS, ())

        def epoch() -> End:
            through(m, node, data, lambda batch: _process(m, of, batch, node))
            for handler, given in handlers if isinstance(handlers, tuple) else ():
                m.invoke(m, handler, (of, *given), {}, node)
            return None

        loop(m, node, None, [lambda: None], epoch)
    return Unknown(name, of, "call", args)


def handle(m: Machine, of: Value, handler: Value, args: Args = ()) -> None:
    """Has an engine's run call a function of the user's."""
    if isinstance(of, Object) and of.kind == ENGINE and isinstance(handler, (Function, Bound)):
        known = of.attrs.get(_HANDLERS, ())
        m.write(of.attrs, _HANDLERS, (*(known if isinstance(known, tuple) else ()), (handler, args)))


def _process(m: Machine, of: Object, batch: Value, node: cst.CSTNode) -> None:
    made_by = of.kwargs["made_by"]
    if isinstance(made_by, Constant) and made_by.value == "Engine":
        step = of.option("process_function", 0)
        if step is not None:
            m.invoke(m, step, (of, batch), {}, node)
        return
    if any(one in of.kwargs for one in ("prepare_batch", "model_transform", "model_fn", "**")):
        return  # what the model is given, or what it gives, is not known
    model = of.option("model", 0) or Unknown("model")
    inputs, target = parts(m, batch, 2, node)
    if isinstance(made_by, Constant) and made_by.value == "create_supervised_evaluator":
        set_mode(m, model, False, node)
        grad = m.state["grad"]
        m.write(m.state, "grad", False)
        m.invoke(m, model, (inputs,), {}, node)
        m.write(m.state, "grad", grad)
        return
    set_mode(m, model, True, node)
    scores = m.invoke(m, model, (inputs,), {}, node)
    loss = m.invoke(m, of.option("loss_fn", 2) or Unknown("loss_fn"), (scores, target), {}, node)
    learn(m, loss, of.option("optimizer", 1) or Unknown("optimizer"), node, m.at)


def learn(m: Machine, loss: Value, optimizer: Value, node: cst.CSTNode, at: At) -> None:
    """The ritual, done by a library: clear, backward, step."""
    m.tell(Zeroed(node, at, optimizer))
    m.tell(Backward(node, at, loss, {}, False, m.state["grad"]))
    m.tell(Stepped(node, at, optimizer, None, False))


def of_ours(m: Machine, of: Object, name: str, args: Args, kwargs: Kwargs, node: cst.CSTNode) -> Value:
    """A method of our own trainer."""
    model = of.option("model", 0) or Unknown("model")
    if name == "update" and args:
        learn(m, args[0], of, node, m.at)
    elif name in ("batches", "evaluating") and args:
        # what an evaluation sets lasts as long as its loop; the modes that came before it come back
        m.write(m.state, "grad", True if name == "batches" else None)
        if name == "evaluating":
            set_mode(m, model, None, node)
        return args[0] if isinstance(args[0], Object) else Unknown(name, via="call", inputs=args[:1])
    elif name in ("fit", "train") and args:
        through(m, node, args[0], lambda batch: _learn_ours(m, of, model, batch, node))
    return Unknown(name, of, "call", args)


def _learn_ours(m: Machine, of: Object, model: Value, batch: Value, node: cst.CSTNode) -> None:
    criterion = of.option("loss", 1)
    if criterion is None:
        return
    if is_module(criterion):
        inputs, target = parts(m, batch, 2, node)
        loss = m.invoke(m, criterion, (m.invoke(m, model, (inputs,), {}, node), target), {}, node)
    else:
        loss = m.invoke(m, criterion, (model, batch), {}, node)
    learn(m, loss, of, node, m.at)


def is_transformers(value: Value) -> bool:
    """Whether a value is a Trainer of transformers, or of a class of the user's that descends from it."""
    return isinstance(value, Object) and value.kind in ("transformers.Trainer", "transformers.Seq2SeqTrainer")


def of_transformers(m: Machine, of: Object, name: str, node: cst.CSTNode) -> Value:
    """A method of the Trainer's: it has the user's function judge what the model says."""
    judge = of.option("compute_metrics")
    if name in ("train", "evaluate", "predict") and isinstance(judge, (Function, Bound)):
        scores, labels = (Tensor(op, (), {}, False, node, m.at) for op in (PREDICTIONS, "label_ids"))
        named = {"predictions": scores, "label_ids": labels, ("[]", 0): scores, ("[]", 1): labels}
        m.invoke(m, judge, (Unknown("predicted", attrs=named),), {}, node)
    return Unknown(name, of, "call")


def alone(m: Machine, trainer: Object, node: cst.CSTNode) -> None:
    """What such a trainer does with the loss that ``compute_loss`` of the user's gives."""
    compute = trainer.cls.find("compute_loss") if isinstance(trainer.cls, Class) else None
    if not isinstance(compute, Function):
        return
    function = compute
    optimizer = Object("torch.optim.Optimizer", (), {}, node, m.at)
    model = trainer.option("model", 0) or Unknown("model")

    def step(batch: Value) -> None:
        value = m.invoke(m, Bound(function, trainer), (model, batch), {}, node)
        loss = value.all()[0] if isinstance(value, Items) and value.kind == "tuple" and value.all() else value
        learn(m, loss, optimizer, function.node, m.at._replace(unit=function.unit))

    through(m, node, Unknown("batches"), step)
