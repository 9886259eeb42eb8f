"""What the peers said, in ``said/``: a file for each tool, its version first, then a line for each script.

Kept are the tools' own names of findings, so that a change of the mapping (``MEANS``) wants no new run. A new version
is asked afresh; to ask the same one again, delete its file.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from benchmarks.diagnosis.look import Look

FOLDER = Path(__file__).parent / "said"


def load(package: str, version: str | None, folder: Path = FOLDER) -> tuple[str, dict[str, Look]]:
    """The version that spoke, and what it said by the names of cases; nothing, if ``version`` is another one."""
    file = folder / f"{package}.jsonl"
    if not file.exists():
        return version or "", {}
    head, *rows = map(json.loads, file.read_text().splitlines())
    if version not in (None, head["version"]):
        return version or "", {}
    return head["version"], {row.pop("case"): Look(**row) for row in rows}


def keep(package: str, version: str, case: str, look: Look, folder: Path = FOLDER) -> None:
    """Adds a line; begins the file anew where another version spoke."""
    folder.mkdir(exist_ok=True)
    file = folder / f"{package}.jsonl"
    if not file.exists() or json.loads(file.read_text().partition("\n")[0])["version"] != version:
        file.write_text(json.dumps({"version": version}) + "\n")
    row = {"case": case} | asdict(look)
    with file.open("a") as lines:
        lines.write(json.dumps(row | {key: round(row[key], 2) for key in ("seconds", "cpu")}) + "\n")
