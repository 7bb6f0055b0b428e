"""One comparison carried out: a scoring child for both models, then paired statistics on what it wrote.

Results lie in `caches/compare/<key>/`, by what was asked: asked again, nothing is scored again. Answers of a judged job
that its ranking wrote are taken from there.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cli.sides import Side, held_out_rows
from core.errors import LoradError, UsageError
from core.exits import ChildExit
from core.tasks import RankTask, RowsOf, ScoreTask, SuiteOf
from store.paths import Home

if TYPE_CHECKING:
    from core.config import Resolved
    from ranking.evidence import Comparison, Rules
    from ranking.metrics.held import Held
    from ranking.metrics.metric import Metric
    from ranking.statistics import Paired

SPLIT: Literal["gate"] = "gate"
SUITE = "suite:"
METRICS = ("token_accuracy", "exact_match", "f1", "chrf")  # beside ranking.metric, as far as they can be worked out


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A row with both answers. `before`, `after`: loss per token, in nats."""

    drop: str
    line: int
    group: str
    before: float
    after: float
    question: str = ""
    wanted: str = ""
    answers: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What came of it."""

    sides: tuple[Side, Side]
    on: str
    measures: tuple["Comparison", ...]
    rows: tuple[Shown, ...]
    """The rows whose loss differs most come first, worst for the second model on top."""
    lost: tuple[str, ...] = ()
    """Items of the suite that the second model answers worse."""
    won: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    made_up: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to compare on: a file of rows, `gate`, or `suite:NAME`; how many rows get answers."""

    on: str
    rows: int


def compared(home: Home, resolved: "Resolved", sides: tuple[Side, Side], asked: Asked) -> Compared:
    """Score both models where that was not done yet, and compare. Raises UsageError, RefusedError, LoradError."""
    if sides[0].model.id == sides[1].model.id:
        raise UsageError(f"{sides[0].word!r} and {sides[1].word!r} are the same model", hint="name two different ones", code="SAME_MODEL")
    if len(bases := {side.base_sha256 for side in sides if side.base_sha256}) > 1:
        found = " and ".join(sorted(base[:12] for base in bases))
        raise UsageError(
            f"the two learnt on different bases ({found})", hint="one training box scores on one base: compare each with base", code="BASES_DIFFER"
        )
    if asked.on.startswith(SUITE):
        return _on_suite(home, resolved, sides, asked)
    return _on_rows(home, resolved, sides, asked)


# ---------------------------------------------------------------- scoring


def _scored(home: Home, resolved: "Resolved", task: ScoreTask, key: str) -> dict[str, str]:
    """Key -> absolute path of what the child wrote, now or earlier."""
    from cli.scoringchild import score
    from daemon.cores import threads_for
    from store.runs import read_exit

    run = home.root / "caches" / "compare" / key / "score"
    note = read_exit(run)
    if note is None or note.code != ChildExit.DONE or not all((run / path).is_file() for path in note.scores.values()):
        shutil.rmtree(run, ignore_errors=True)
        note = score(task, run, threads_for(resolved.config))
    return {name: str(run / path) for name, path in note.scores.items()}


def _key(resolved: "Resolved", sides: tuple[Side, Side], what: object) -> str:
    config = resolved.config
    told = [*(side.model.id for side in sides), what, config.max_length, config.model_name, config.model_path, config.backend, config.ranking.max_new_tokens]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _folder(home: Home, key: str) -> Path:
    folder = home.root / "caches" / "compare" / key
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# ---------------------------------------------------------------- on rows


def _on_rows(home: Home, resolved: "Resolved", sides: tuple[Side, Side], asked: Asked) -> Compared:
    from cli.scoringchild import score_task

    notes: list[str] = []
    rows, on = _rows(home, resolved, sides, asked, notes)
    known = _known(sides, asked)
    if known:
        scores: Mapping[str, str] = known
    else:
        key = _key(resolved, sides, [[row.drop, row.sha256] for row in rows] + [asked.rows, asked.on])
        task = replace(score_task(resolved, rows, tuple(side.model for side in sides), answers=asked.rows), split=SPLIT)
        scores = _scored(home, resolved, task, key)
    return replace(_judged(_task(resolved, sides, rows, scores), sides, asked, notes), on=on)


def _task(resolved: "Resolved", sides: tuple[Side, Side], rows: tuple[RowsOf, ...], scores: Mapping[str, str]) -> RankTask:
    """What ranking's readers go by: the first model stands for the incumbent, the second for the candidate."""
    return RankTask(
        job="compare",
        purpose="verdict",
        backend="",
        this_drop="",
        candidates=(),
        incumbent=sides[0].model.id,
        scores=scores,
        settings=resolved.record()["values"],
        best=sides[1].model.id,
        rows=rows,
    )


def _known(sides: tuple[Side, Side], asked: Asked) -> Mapping[str, str]:
    """The files of the ranking of a judged job, where it has all that is asked for."""
    if asked.on != SPLIT:
        return {}
    wanted = [f"{SPLIT}/{side.model.id}" for side in sides] + ([f"answers/{SPLIT}/{side.model.id}" for side in sides] if asked.rows else [])
    for side in sides:
        if side.judged is not None and all(name in side.judged.scores and Path(side.judged.scores[name]).is_file() for name in wanted):
            return {name: side.judged.scores[name] for name in wanted}
    return {}


def _rows(home: Home, resolved: "Resolved", sides: tuple[Side, Side], asked: Asked, notes: list[str]) -> tuple[tuple[RowsOf, ...], str]:
    """(the rows, what they are in words)."""
    if asked.on == SPLIT:
        rows = held_out_rows(home, sides)
        notes += [f"{side.word} is no release of this home: whether it has learnt from these rows is not known" for side in sides if _is_stranger(side)]
        return rows, f"the held-out rows of {len(rows)} drop{'s' if len(rows) > 1 else ''}"
    from cli.foreground import check_rows
    from store.seals import hash_file

    file = Path(asked.on)
    if not file.is_file():
        raise UsageError(f"--on {asked.on!r} is no file", hint="name a file of rows, gate, or suite:NAME", code="FILE_MISSING")
    digest = hash_file(file)
    notes += [f"{side.word} has learnt from this very file: its numbers say nothing about other rows" for side in sides if digest in side.drops]
    row = check_rows(file, resolved.config, _folder(home, f"rows-{digest[:16]}"), split=SPLIT)
    return (row,), f"the rows of {file.name}"


def _is_stranger(side: Side) -> bool:
    return side.model.adapter is not None and not side.adapter


def _judged(task: RankTask, sides: tuple[Side, Side], asked: Asked, notes: list[str]) -> Compared:
    from ranking.metrics.held import Held
    from ranking.scores import aligned, check_conditions, path_of, read_scores
    from ranking.statistics import Paired, compare

    rules = _rules(task)
    before, after = (read_scores(key, path_of(task.scores, key)) for key in (f"{SPLIT}/{side.model.id}" for side in sides))
    after = aligned(after, before)
    check_conditions([before, after], before.conditions.backend)
    loss = Paired(before=before.loss / before.tokens, after=after.loss / after.tokens, weights=before.tokens, groups=before.groups)
    held = Held(task)
    measures = [compare(loss, rules), *_by_metrics(held, [side.model.id for side in sides], rules, notes, answered=bool(asked.rows))]
    rows = [
        Shown(drop=place[0], line=place[1], group=group, before=float(one), after=float(other))
        for place, group, one, other in zip(before.rows, before.groups, loss.before, loss.after, strict=True)
    ]
    rows.sort(key=lambda row: row.before - row.after)
    return Compared(sides=sides, on="", measures=tuple(adjusted(measures)), rows=_told(held, rows, sides, notes), notes=tuple(notes), made_up=before.made_up)


def _rules(task: RankTask) -> "Rules":
    from ranking.__main__ import rules_of

    return rules_of(task.settings)


def _by_metrics(held: "Held", models: Sequence[str], rules: "Rules", notes: list[str], *, answered: bool) -> list["Comparison"]:
    from ranking.metrics.metric import Need
    from ranking.metrics.registry import metric_named
    from ranking.statistics import compare

    found = []
    for metric in (metric_named(name) for name in dict.fromkeys((*([rules.metric] if rules.metric else []), *METRICS))):
        if Need.ANSWERS in metric.needs and not answered:
            continue
        try:
            paired = _paired(held, metric, models)
        except LoradError as error:
            notes.append(f"without {metric.name}: {error.what}")
            continue
        if paired is not None:
            found.append(compare(paired, rules))
    return found


def _paired(held: "Held", metric: "Metric", models: Sequence[str]) -> "Paired | None":
    """Both models by the metric on the rows of which it says something for both; None where there are none. Raises EvidenceError, MetricError."""
    import numpy as np

    from ranking.statistics import Paired

    one, other = (held.measured(metric, SPLIT, model) for model in models)
    place_of = {place: index for index, place in enumerate(other.places)}
    index = np.array([place_of[place] for place in one.places if place in place_of], dtype=np.intp)
    if len(index) != len(one.places) or len(index) != len(other.places):
        raise LoradError("the two answered other rows", hint="delete caches/compare and ask again", code="ROWS_DIFFER")
    known = np.flatnonzero(~np.isnan(one.values) & ~np.isnan(other.values[index]) & (one.weights > 0))
    if not len(known):
        return None
    return Paired(
        before=one.values[known],
        after=other.values[index][known],
        weights=one.weights[known],
        groups=[one.groups[row] for row in known],
        measure=metric.name,
        higher_is_better=metric.higher_is_better,
    )


def adjusted(measures: Sequence["Comparison"]) -> list["Comparison"]:
    """The same with p-values for that many looks at once (Holm)."""
    from ranking.statistics import holm

    values = holm([measure.p if measure.p is not None else 1.0 for measure in measures])
    return [replace(measure, p=p) if measure.p is not None else measure for measure, p in zip(measures, values, strict=True)]


def _told(held: "Held", rows: list[Shown], sides: tuple[Side, Side], notes: list[str]) -> tuple[Shown, ...]:
    """The rows with their texts: those that were answered, else all of them without answers."""
    from rendering.answers import question_of

    try:
        texts = [held.answers(SPLIT, side.model.id).texts for side in sides]
    except LoradError:
        texts = [{}, {}]
    answered = [row for row in rows if all((row.drop, row.line) in text for text in texts)]
    try:
        by_place = dict(held.rows)
    except (LoradError, OSError) as error:
        notes.append(f"without the rows' own texts: {error}")
        by_place = {}
    told = []
    for row in answered or rows:
        place = (row.drop, row.line)
        question = question_of(by_place[place]) if place in by_place else None
        answers = (texts[0][place], texts[1][place]) if answered else None
        told.append(replace(row, answers=answers, question=question.asked if question else "", wanted=question.expected.content if question else ""))
    return tuple(told)


# ---------------------------------------------------------------- on a suite


def _on_suite(home: Home, resolved: "Resolved", sides: tuple[Side, Side], asked: Asked) -> Compared:
    import numpy as np

    from cli.scoringchild import score_task
    from ranking.statistics import Paired, compare
    from ranking.suiteresults import paired_suite
    from rendering.suites.shelf import of_names

    name = asked.on.removeprefix(SUITE)
    suites: tuple[SuiteOf, ...] = of_names((name,), home.suites, on_gpu=True)
    task = score_task(resolved, (), tuple(side.model for side in sides), suites=suites, cache=str(home.suite_results))
    scores = _scored(home, resolved, task, _key(resolved, sides, [suite.sha256 for suite in suites]))
    judged = _task(resolved, sides, (), scores)
    measures, lost, won = [], list[str](), list[str]()
    for suite in suites:
        before, after = paired_suite(judged, suite.name, *(side.model.id for side in sides))
        paired = Paired(
            before=before.values,
            after=after.values,
            weights=np.ones(len(before.values)),
            groups=before.groups,
            measure=f"suite {suite.name}",
            higher_is_better=True,
        )
        measures.append(compare(paired, _rules(judged)))
        each = list(zip(before.items, before.values, after.values, strict=True))
        lost += [item for item, one, other in each if other < one]
        won += [item for item, one, other in each if other > one]
    return Compared(sides=sides, on=f"the suite {name}", measures=tuple(adjusted(measures)), rows=(), lost=tuple(lost), won=tuple(won))
