"""Running a rule's small scripts (``FIRES``, ``SILENT``) in this process, under the doctor's ear."""

from __future__ import annotations

import linecache
import textwrap
from collections.abc import Sequence

from trueloop.doctor.listen import listening
from trueloop.doctor.rule import Rule
from trueloop.doctor.trace import Trace

PREAMBLE = """
import math, random
import numpy as np
import torch
from torch import nn, optim
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, random_split
torch.manual_seed(0); random.seed(0); np.random.seed(0)
"""
"""What stands above every small script."""


def rehearse(script: str, name: str = "script", rules: Sequence[type[Rule]] | None = None) -> Trace:
    """Runs a small script and listens.

    Args:
        script: Python, indented as it likes; the names of the preamble are there.
        name: the file's name in findings.
        rules: None takes all.

    Returns:
        The trace. An error that the script ends with is kept out, as the doctor keeps it (``trace.error``).

    Example:
        >>> trace = rehearse('''
        ...     model = nn.Linear(2, 1)
        ...     opt = torch.optim.SGD(model.parameters(), lr=0.1)
        ...     for _ in range(5):
        ...         model(torch.ones(4, 2)).sum().backward()
        ...         opt.step()
        ... ''')
        >>> [(finding.name, finding.place.source) for finding in trace.findings if finding.level == "error"]
        [('missing-zero-grad', 'model(torch.ones(4, 2)).sum().backward()')]
    """
    text = PREAMBLE.strip() + "\n" + textwrap.dedent(script)
    file = f"<ipython-{name}>"  # counts as the user's, and needs no file on the disk
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    code = compile(text, file, "exec")
    trace: Trace | None = None
    try:
        with listening(rules) as trace:
            exec(code, {"__name__": "__main__", "__file__": file})
    except Exception as error:
        if trace is None:
            raise
        trace.error = error
    return trace
