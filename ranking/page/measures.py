"""What a verdict comes down to for a person: the answer in a sentence, what got better, what got worse, what to do next. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from core.records import VerdictWord
from ranking.evidence import Comparison, Leg, LegResult, Verdict
from ranking.page.drawing import Bar, bar, reach
from ranking.report import difference

OF_ONE_MODEL = ("coherence", "quality")  # compared with other questions, and with the least quality: not with another model
ANSWERS = {VerdictWord.PROMOTE: "Promoted", VerdictWord.HOLD: "Not promoted: held", VerdictWord.REFUSE: "Not promoted: refused"}


class Change(StrEnum):
    """What an interval proves about the candidate."""

    BETTER = "better"
    WORSE = "worse"
    OPEN = "not proven"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One leg of the verdict as it is shown."""

    name: str
    result: LegResult
    reason: str
    comparison: Comparison | None = None
    change: Change | None = None
    """None: it does not compare two models."""
    drawn: Bar | None = None
    also: tuple[tuple[str, Change], ...] = ()
    """Other measures of the same rows, in words, and what they prove."""

    @property
    def numbers(self) -> str:
        """The comparison in words; empty where there is none."""
        return numbers_of(self.comparison) if self.comparison is not None else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The first screen: everything a person asks first."""

    word: VerdictWord | None
    answer: str
    why: tuple[Measure, ...]
    """The legs that decided."""
    better: tuple[Measure, ...]
    worse: tuple[Measure, ...]
    next: tuple[tuple[str, str], ...]
    """(what to do, the command for it or "")."""


def numbers_of(found: Comparison) -> str:
    """`token accuracy 0.52 to 0.61 (+0.09, 95 % interval +0.04 to +0.14); 90 rows, 45 conversations`."""
    return f"{found.measure} {found.before:.3f} to {found.after:.3f} ({difference(found.difference)}); {found.rows:,} rows, {found.groups:,} conversations"


def change_of(found: Comparison) -> Change:
    """Better or worse where that is proven."""
    return Change.BETTER if found.is_better else Change.WORSE if found.is_worse else Change.OPEN


def measures_of(legs: Sequence[Leg]) -> tuple[Measure, ...]:
    """Every leg; each interval is drawn on a scale of its own, so that 0 and the margin can be told apart from its ends."""
    return tuple(_measure(leg) for leg in legs)


def _measure(leg: Leg) -> Measure:
    found = leg.comparison
    also = tuple((numbers_of(other), change_of(other)) for other in leg.also)
    if found is None:
        return Measure(name=leg.name, result=leg.result, reason=leg.reason, also=also)
    margin = found.margin if found.margin is None or not found.higher_is_better else -found.margin
    interval = found.difference
    drawn = bar(interval.low, interval.mean, interval.high, most=reach([(interval.low, interval.high)], margin or 0.0), margin=margin)
    change = None if leg.name in OF_ONE_MODEL else change_of(found)
    return Measure(name=leg.name, result=leg.result, reason=leg.reason, comparison=found, change=change, drawn=drawn, also=also)


def outcome_of(verdict: Verdict | None, job: str) -> Outcome:
    """The first screen of a job's page; without a verdict it says that there is none yet."""
    if verdict is None:
        again = (("see how far it is", f"lorad jobs show {job}"),)
        return Outcome(word=None, answer="There is no verdict yet", why=(), better=(), worse=(), next=again)
    legs = measures_of(verdict.legs)
    return Outcome(
        word=verdict.word,
        answer=ANSWERS[verdict.word],
        why=_deciding(legs, verdict.word),
        better=tuple(leg for leg in legs if leg.change is Change.BETTER),
        worse=tuple(leg for leg in legs if leg.change is Change.WORSE),
        next=_next(verdict),
    )


def _deciding(legs: Sequence[Measure], word: VerdictWord) -> tuple[Measure, ...]:
    if word is VerdictWord.PROMOTE:
        return tuple(leg for leg in legs if leg.result is LegResult.PASSED)
    stopping = tuple(leg for leg in legs if leg.result is LegResult.REGRESSION)
    return stopping or tuple(leg for leg in legs if leg.result is LegResult.UNPROVEN)


def _next(verdict: Verdict) -> tuple[tuple[str, str], ...]:
    job = verdict.job
    if verdict.word is VerdictWord.PROMOTE:
        return (("nothing: it is packed and shipped by itself; see where it is live", "lorad status"),)
    if verdict.word is VerdictWord.REFUSE:
        return (
            ("nothing serves it, and later jobs leave this drop out", ""),
            ("look at the worst rows below: are the answers of this drop what you meant? mend the file", "lorad fix FILE"),
            ("then drop it again", "lorad drop FILE"),
        )
    if verdict.conditions is None:
        return (("the evidence is not whole: score it again", f"lorad jobs cancel {job} && lorad jobs retry {job}"),)
    return (
        ("read the answers below, or rate them blind against what is live", f"lorad compare {_short(verdict.incumbent)} {job} --rate"),
        ("if they are better, release it", f'lorad jobs approve {job} --reason "…"'),
        ("if they are not, refuse it; later jobs leave this drop out", f'lorad jobs refuse {job} --reason "…"'),
    )


def _short(model: str) -> str:
    return model if model == "base" else model[:12]
