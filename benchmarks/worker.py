"""A process that trains on request, so that the rounds of many variants interleave.

``python -m benchmarks.worker THREADS`` reads one JSON object a line and answers with one. What libraries print is
thrown away; the answers have a descriptor of their own.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from typing import Any


def answer(request: dict[str, Any], works: dict[str, Any]) -> dict[str, Any]:
    """Does what ``request`` asks: ``do`` names a function of a module of this package, the rest are its arguments."""
    module, _, name = str(request.pop("do")).partition(":")
    function = getattr(importlib.import_module(f"benchmarks.{module}"), name)
    if "work" not in request:
        result: dict[str, Any] = function(**request)
        return result
    from benchmarks.workloads import WORKLOADS

    wanted = request["work"]
    if wanted not in works:
        works[wanted] = WORKLOADS[wanted]()
    gc.collect()
    trained = function(works[wanted], request["epochs"])
    return {"wall": trained.wall, "cpu": trained.cpu, "loss": works[wanted].loss_of(trained.model)}


def main() -> None:
    """Answers until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    import torch

    torch.set_num_threads(int(sys.argv[1]))
    works: dict[str, Any] = {}
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line), works)
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()
