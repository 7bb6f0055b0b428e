"""Material to HTML: one page that stands alone. No script, no address outside; every text of a row passes through autoescape."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from core.records import VerdictWord
from ranking.evidence import RANKING, Order
from ranking.page.drawing import Bar, Picture, bar, curves, reach
from ranking.page.gathering import Material, RowChange, gather
from ranking.page.measures import measures_of, outcome_of
from ranking.page.words import Part, clean, side_by_side
from ranking.report import signed
from store.durable import replace_file

TEMPLATE = "report.html"
PAGE = "samples/report.html"  # in the run folder of the verdict: the page holds text of rows
MOST_ITEMS = 12  # of a suite that are named


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownRow:
    """A row as it is shown: its answers in parts, those of each model that the other does not have marked."""

    where: str
    before: str
    after: str
    change: str
    is_worse: bool
    question: str
    wanted: str
    left: tuple[Part, ...] | None
    right: tuple[Part, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCandidate:
    """A candidate of the order."""

    id: str
    step: int
    loss: str
    words: str
    numbers: str
    drawn: Bar


@cache
def _environment() -> Environment:
    # Autoescape for all templates: the page holds text of rows, which anybody may have written.
    environment = Environment(autoescape=True, loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["clean"] = lambda value: clean(str(value))
    environment.filters["signed"] = signed
    return environment


def document(material: Material) -> str:
    """The page as text. The same material gives the same page."""
    verdict = material.verdict
    return (
        _environment()
        .get_template(TEMPLATE)
        .render(
            material=material,
            verdict=verdict,
            order=material.order,
            outcome=outcome_of(verdict, material.job),
            legs=measures_of(verdict.legs) if verdict else (),
            candidates=_candidates(material.order),
            worst=tuple(_row(row) for row in material.worst),
            best=tuple(_row(row) for row in material.best),
            pictures=_pictures(material),
            suites=material.suites,
            most_items=MOST_ITEMS,
            promoted=verdict is not None and verdict.word is VerdictWord.PROMOTE,
        )
    )


def write_page(run: Path, job: str, drop: str) -> Path:
    """Write the page of the verdict that lies in `run`, beside the order in the newest run folder that holds one. Returns its path. Raises OSError."""
    ordered = max(run.parent.glob(f"*-rank/{RANKING}"), default=None)
    material = gather(run.parent, job, run, ordered.parent if ordered else None, {"job": job, "drop": drop})
    page = run / PAGE
    page.parent.mkdir(exist_ok=True)
    replace_file(page, document(material), durable=False)
    return page


def _row(row: RowChange) -> ShownRow:
    has_both = row.answer_before is not None and row.answer_after is not None
    left, right = side_by_side(row.answer_before or "", row.answer_after or "") if has_both else (None, None)
    return ShownRow(
        where=f"line {row.line} of {row.drop}",
        before=f"{row.before:.2f}",
        after=f"{row.after:.2f}",
        change=signed(row.change),
        is_worse=row.change > 0,
        question=clean(row.question),
        wanted=clean(row.wanted),
        left=left,
        right=right,
    )


def _candidates(order: Order | None) -> tuple[ShownCandidate, ...]:
    if order is None:
        return ()
    most = reach([(place.against_incumbent.low, place.against_incumbent.high) for place in order.places])
    found = []
    for number, place in enumerate(order.places):
        words = "best" if number == 0 else "tied with the best" if place.tied else f"{signed(place.against_best.mean)} behind the best"
        against = place.against_incumbent
        numbers = f"{signed(against.mean)} ({signed(against.low)} to {signed(against.high)})"
        drawn = bar(against.low, against.mean, against.high, most=most)
        found.append(ShownCandidate(id=place.id, step=place.step, loss=f"{place.loss:.4f}", words=words, numbers=numbers, drawn=drawn))
    return tuple(found)


def _pictures(material: Material) -> tuple[tuple[str, Picture], ...]:
    drawn = ((training.run, curves([("train", training.train, False), ("dev", training.dev, True)])) for training in material.trainings)
    return tuple((run, picture) for run, picture in drawn if picture is not None)
