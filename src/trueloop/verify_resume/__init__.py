"""Whether a resume changes nothing, tried: the same run unbroken, twice, and killed half-way and resumed.

``roles`` is what each process does, ``record`` what it writes down, ``unsaved`` what nobody saves, ``verdict`` what
comes of comparing, ``processes`` how they are started. ``trial`` puts it together.
"""

from trueloop.verify_resume.trial import tried, verify_resume
from trueloop.verify_resume.verdict import Verdict

__all__ = ["Verdict", "tried", "verify_resume"]
