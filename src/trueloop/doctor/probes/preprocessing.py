"""Listens to scikit-learn's preprocessing, if the script imports it: what was fitted on which rows.

We never import scikit-learn. Where it is not there yet, a finder waits for it among Python's importers; it looks at
the name of each module that is imported, and nothing else.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import partial, wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch.utils.weak import WeakIdKeyDictionary

from trueloop.doctor.facts import Transformed
from trueloop.doctor.findings import Place
from trueloop.doctor.patches import Patches
from trueloop.doctor.places import here
from trueloop.doctor.samples import fingerprints
from trueloop.doctor.trace import Trace

LEARNERS = {
    "sklearn.preprocessing": (
        "StandardScaler",
        "MinMaxScaler",
        "MaxAbsScaler",
        "RobustScaler",
        "PowerTransformer",
        "QuantileTransformer",
    ),
    "sklearn.impute": ("SimpleImputer", "KNNImputer"),
    "sklearn.feature_selection": ("SelectKBest", "SelectPercentile", "SelectFromModel", "RFE"),
    "sklearn.decomposition": ("PCA", "TruncatedSVD"),
}
"""What learns numbers from the rows; encoders of categories learn only which there are."""
VALUES = 5_000_000
"""Larger tables are not looked at."""


class Fit(NamedTuple):
    """What a preprocessing step was fitted on."""

    rows: frozenset[int]
    """Fingerprints of the rows."""
    place: Place | None


def install(trace: Trace, patches: Patches) -> Callable[[], None]:
    """Begins to listen where a rule asks for it; returns what takes the finder out."""
    if not trace.wants(Transformed):
        return lambda: None
    listener = _Listener(trace)

    def put(module: ModuleType) -> None:
        for name in LEARNERS[module.__name__]:
            learner = getattr(module, name, None)
            if learner is not None:
                for method in ("fit", "transform", "fit_transform"):
                    patches.replace(learner, method, partial(listener.wrap, method))

    for name in LEARNERS:
        module = sys.modules.get(name)
        if module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False):
            put(module)
    finder = _Finder(put)
    sys.meta_path.insert(0, finder)

    def remove() -> None:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)

    return remove


class _Finder(MetaPathFinder):
    """Finds nothing by itself: has Python's own finder do it, and adds a word at the end of the module's making."""

    def __init__(self, put: Callable[[ModuleType], None]) -> None:
        self._put = put

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in LEARNERS:
            return None
        spec = PathFinder.find_spec(name, path, target)
        loader: Any = None if spec is None else spec.loader
        if loader is None or not hasattr(loader, "exec_module"):
            return None
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:  # otherwise listening has ended meanwhile
                self._put(module)

        try:
            loader.exec_module = exec_module
        except AttributeError:
            return None
        return spec


class _Listener:
    """Wraps the methods of preprocessing steps; calls that they make among themselves are one."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._fits: Any = WeakIdKeyDictionary()
        self._inside = False

    def wrap(self, method: str, original: Any) -> Any:
        @wraps(original)
        def call(learner: Any, given: Any, *args: Any, **kwargs: Any) -> Any:
            if self._inside or self._trace.deaf or threading.get_ident() != self._trace.thread:
                return original(learner, given, *args, **kwargs)
            self._inside = True
            try:
                result = original(learner, given, *args, **kwargs)
            finally:
                self._inside = False
            self._heard(learner, method, given, result)
            return result

        @wraps(original)
        def by_name(learner: Any, *args: Any, **kwargs: Any) -> Any:
            return call(learner, *args, **kwargs) if args else call(learner, kwargs.pop("X"), **kwargs)

        return by_name

    def _heard(self, learner: Any, method: str, given: Any, result: Any) -> None:
        rows = rows_of(given)
        if method != "transform":
            if rows is None:
                self._fits.pop(learner, None)
                return
            self._fits[learner] = Fit(frozenset(rows), here())
        fit = self._fits.get(learner)
        if method == "fit" or fit is None or rows is None:
            return
        made = rows_of(result)
        if made is None or len(made) != len(rows):
            return
        kept = frozenset(new for old, new in zip(rows, made, strict=True) if old in fit.rows and new)
        width = result.shape[1] if len(result.shape) > 1 else 1
        self._trace.tell(Transformed(type(learner).__name__, kept, int(width), fit.place, here()))


def rows_of(table: Any) -> tuple[int, ...] | None:
    """Fingerprints of the rows of an array or a data frame of numbers; None for all else.

    Example:
        >>> import numpy
        >>> rows_of(numpy.ones((3, 2))) == fingerprints(torch.ones(3, 2)), rows_of("words")
        (True, None)
    """
    numpy = sys.modules.get("numpy")
    if numpy is None or not hasattr(table, "shape") or not hasattr(table, "__array__"):
        return None
    try:
        array = numpy.asarray(table)
        if array.dtype.kind not in "fiub" or array.ndim not in (1, 2) or not 0 < array.size <= VALUES:
            return None
        # Always as 32-bit floats, since that is how it reaches a model.
        return fingerprints(torch.from_numpy(numpy.array(array, dtype=numpy.float32)).reshape(len(array), -1))
    except (TypeError, ValueError, RuntimeError):
        return None
