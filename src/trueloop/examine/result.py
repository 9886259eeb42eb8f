"""What comes of examinations: each with its verdict, in a sentence with numbers; all of them in one report."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from trueloop.doctor.findings import LEVELS, Certainty, Finding, Level, Place, plain
from trueloop.doctor.output import Report, Sentence
from trueloop.doctor.output.text import WIDTH, Paint
from trueloop.doctor.output.text import write as write_text
from trueloop.doctor.rule import about_of

if TYPE_CHECKING:
    from trueloop.doctor.rule import Rule

Verdict = Literal["passed", "failed", "unknown"]
"""``unknown``: it could not be judged; the sentence says why."""

COMMAND = "trueloop doctor --examine"


class Examination(NamedTuple):
    """One examination, made.

    Attributes:
        name: of the examination, as in ``examine.NAMES``.
        verdict: how it ended.
        sentence: what was seen, with numbers.
        findings: what is wrong, each by the name of a rule that ``trueloop explain`` knows; of a failed one only.
        seconds: how long it took.
        broke: why it could not be made to its end: what the user's own code raised; None if it was.

    Example:
        >>> Examination("gradients", "passed", "all 4 parameters get a gradient").level is None
        True
    """

    name: str
    verdict: Verdict
    sentence: str
    findings: tuple[Finding, ...] = ()
    seconds: float = 0.0
    broke: str | None = None

    @property
    def level(self) -> Level | None:
        """That of its gravest finding."""
        return max((finding.level for finding in self.findings), key=LEVELS.index, default=None)


@dataclass(frozen=True)
class Examined:
    """What ``Trainer.examine`` returns; printed, it is a report.

    Attributes:
        subject: what was examined, in words.
        examinations: in the order in which they were made.
    """

    subject: str
    examinations: tuple[Examination, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong, the gravest first."""
        found = [finding for one in self.examinations for finding in one.findings]
        return tuple(sorted(found, key=lambda finding: -LEVELS.index(finding.level)))

    @property
    def passed(self) -> bool:
        """Whether nothing was found that is a warning or graver."""
        return all(finding.level == "note" for finding in self.findings)

    def __str__(self) -> str:
        return self.text(show_passed=True).rstrip()

    def only(self, names: frozenset[str]) -> Examined:
        """The same with the findings of these rules alone; where none is left of a failed one, it is left out."""
        kept = []
        for one in self.examinations:
            findings = tuple(finding for finding in one.findings if finding.name in names)
            if findings:
                kept.append(one._replace(findings=findings, sentence=findings[0].message))
            elif not one.findings:
                kept.append(one)
        return replace(self, examinations=tuple(kept))

    def text(self, *, colours: bool = False, width: int = WIDTH, show_passed: bool = False) -> str:
        """The report for people: a line for each examination, then what is wrong in the manner of the doctor's.

        Args:
            colours: for a terminal.
            width: where long sentences are broken.
            show_passed: also what was found right; else what failed, and what could not be judged.

        Example:
            >>> print(Examined("Linear", (Examination("gradients", "unknown", "no batch came"),)).text(), end="")
            examined: Linear
              unknown  gradients  0.0 s  no batch came
            <BLANKLINE>
            trueloop doctor --examine: nothing wrong was found; 0 of 1 examinations passed
        """
        lines = [f"examined: {self.subject}"]
        shown = [one for one in self.examinations if show_passed or one.verdict != "passed"]
        names = max((len(one.name) for one in shown), default=0)
        for one in shown:
            lines += _line(one, names, Paint(colours), width)
        right = sum(one.verdict == "passed" for one in self.examinations)
        hidden = "" if show_passed or not right else " (--show-passed)"
        last = write_text(Report(self.findings, COMMAND), colours=colours, width=width).rstrip("\n")
        return "\n".join(lines) + f"\n\n{last}; {right} of {len(self.examinations)} examinations passed{hidden}\n"

    def report(self) -> Report:
        """The same for the doctor's formats."""
        return Report(
            findings=self.findings,
            command=COMMAND,
            passed=[Sentence(one.name, _timed(one)) for one in self.examinations if one.verdict == "passed"],
            unseen=[Sentence(one.name, _timed(one)) for one in self.examinations if one.verdict == "unknown"],
        )


def passed(sentence: str) -> Examination:
    """An examination that found nothing wrong."""
    return Examination("", "passed", sentence)


def failed(*findings: Finding) -> Examination:
    """One that found something."""
    return Examination("", "failed", findings[0].message, findings)


def unknown(sentence: str) -> Examination:
    """One that could not be judged."""
    return Examination("", "unknown", sentence)


def found(
    rule: type[Rule],
    message: str,
    *evidence: str,
    level: Level | None = None,
    certainty: Certainty | None = None,
    meaning: str | None = None,
    help: str | None = None,
    place: Place | None = None,
) -> Finding:
    """A finding by the name of a rule that knows the same mistake; what is not given is the rule's.

    Example:
        >>> from trueloop.doctor.rules.loader_bound import LoaderBound
        >>> found(LoaderBound, "the loader is slow").code
        506
    """
    about = about_of(rule)
    return Finding(
        name=rule.name,
        code=rule.code,
        level=level or rule.level,
        certainty=certainty or rule.certainty,
        message=message,
        evidence=evidence,
        meaning=about.get("Why it matters", "") if meaning is None else meaning,
        help=about.get("Fix", "") if help is None else help,
        place=place,
    )


_KINDS = {"passed": "good", "failed": "error", "unknown": "note"}
_LONGEST = max(map(len, get_args(Verdict)))


def _line(one: Examination, names: int, paint: Paint, width: int) -> Iterator[str]:
    kind = one.level or _KINDS[one.verdict]
    head = f"{one.verdict:<{_LONGEST}}  {one.name:<{names}}  {one.seconds:.1f} s  "
    indent = " " * (2 + len(head))
    lines = textwrap.wrap(plain(one.sentence), max(40, width - len(indent)), break_on_hyphens=False) or [""]
    yield f"  {paint(kind, head[:_LONGEST])}{head[_LONGEST:]}{lines[0]}"
    yield from (indent + line for line in lines[1:])


def _timed(one: Examination) -> str:
    return f"{one.sentence} ({one.seconds:.1f} s)"
