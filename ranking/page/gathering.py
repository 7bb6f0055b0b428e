"""Reads what a job's page shows from its run folders. Whatever is missing or damaged is left out and named, with the way to get it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from core.errors import IntegrityError, LoradError
from core.tasks import RankTask, RowsOf
from ranking.evidence import RANKING, VERDICT, Order, Verdict
from ranking.scores import EvidenceError, Scores, aligned, has_other_base, read_scores
from rendering.answers import question_of
from rendering.rows import Row, read_rows
from store.codec import read
from store.runs import PROGRESS, SPEC

WORST, BEST = 20, 5  # rows that are shown: those that lost most, and those that gained most
T = TypeVar("T")
Place = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """Something that the page could show and does not: why, and how to get it."""

    what: str
    why: str
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The losses of one training run: (step, nats per token)."""

    run: str
    train: tuple[tuple[float, float], ...]
    dev: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowChange:
    """One held-out row under both models. Texts are empty where they are not known."""

    drop: str
    line: int
    before: float
    """Loss per token of the incumbent, in nats."""
    after: float
    question: str = ""
    wanted: str = ""
    answer_before: str | None = None
    answer_after: str | None = None

    @property
    def change(self) -> float:
        """Above 0: worse."""
        return self.after - self.before


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteChange:
    """The items of a suite that the candidate answers worse, and better, than the incumbent."""

    name: str
    items: int
    lost: tuple[str, ...]
    won: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Everything that the page of a job shows."""

    job: str
    heading: Mapping[str, str]
    """Label -> words at the top of the page: adapter, file, state, …"""
    order: Order | None = None
    verdict: Verdict | None = None
    trainings: tuple[Training, ...] = ()
    worst: tuple[RowChange, ...] = ()
    best: tuple[RowChange, ...] = ()
    num_rows: int = 0
    num_worse: int = 0
    suites: tuple[SuiteChange, ...] = ()
    absent: tuple[Absent, ...] = ()


def gather(runs: Path, job: str, ranked: Path | None, ordered: Path | None, heading: Mapping[str, str]) -> Material:
    """What the page of a job shows.

    Args: runs: the job's run folders. ranked, ordered: the run folders that hold its verdict and its order; None: there are none yet.
    Reads those, the score files, answers and rows that their specs name, and the progress of the job's trainings. Writes nothing, raises nothing
    for what is missing.
    """
    absent: list[Absent] = []
    order = _record(Order, ordered, RANKING, "the order of the candidates", job, absent)
    verdict = _record(Verdict, ranked, VERDICT, "the verdict", job, absent)
    found = Material(job=job, heading=heading, order=order, verdict=verdict, trainings=_trainings(runs, absent))
    task = _task(ranked) if verdict is not None else None
    if verdict is not None and task is None:
        absent.append(Absent(what="rows and answers", why="the spec of the ranking is gone", how=f"lorad jobs retry {job} ranks again"))
    if task is not None and task.best is not None:
        found = _with_rows(found, task, absent)
        found = replace(found, suites=_suites(task, absent))
    return replace(found, absent=tuple(absent))


def _record(kind: type[T], run: Path | None, name: str, what: str, job: str, absent: list[Absent]) -> T | None:
    try:
        if run is not None:
            return read(kind, run / name)
        why = "the job has not come so far, or ended before"
    except FileNotFoundError:
        why = f"{run.name}/{name} is gone" if run else ""
    except IntegrityError as error:
        why = f"{run.name}/{name} cannot be read: {error.what.rpartition(': ')[2]}" if run else ""
    absent.append(Absent(what=what, why=why, how=f"lorad jobs show {job} says how far it is; a new job on its rows ranks anew: lorad jobs retry {job}"))
    return None


def _task(run: Path | None) -> RankTask | None:
    try:
        return read(RankTask, run / SPEC) if run is not None else None
    except (FileNotFoundError, IntegrityError):
        return None


# ---------------------------------------------------------------- trainings


def _trainings(runs: Path, absent: list[Absent]) -> tuple[Training, ...]:
    found = tuple(training for path in sorted(runs.glob(f"*-train/{PROGRESS}")) if (training := _training(path)).train or training.dev)
    if not found:
        absent.append(Absent(what="learning curves", why="no progress of a training is left", how="runs of the last retention.keep_jobs jobs stay; raise it"))
    return found


def _training(path: Path) -> Training:
    train, dev = [], []
    for line in _json_lines(path):
        step = line.get("step")
        if not isinstance(step, int):
            continue
        if line.get("stage") == "train" and isinstance(line.get("loss"), int | float):
            train.append((float(step), float(line["loss"])))
        elif line.get("stage") == "dev" and isinstance(line.get("dev_loss"), int | float):
            dev.append((float(step), float(line["dev_loss"])))
    return Training(run=path.parent.name, train=tuple(train), dev=tuple(dev))


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON Lines file; a torn line is left out."""
    for text in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict):
            yield line


# ---------------------------------------------------------------- rows


def _with_rows(found: Material, task: RankTask, absent: list[Absent]) -> Material:
    changes = _changes(task, absent)
    if not changes:
        return found
    by_change = sorted(changes, key=lambda row: row.change, reverse=True)
    worst = by_change[:WORST]
    best = [row for row in reversed(by_change[len(worst) :]) if row.change < 0][:BEST]
    texts = _texts(task.rows, {(row.drop, row.line) for row in (*worst, *best)}, absent)
    answers = {model: _answers(task, model, absent) for model in (task.incumbent, task.best or "")}
    worst, best = (
        [
            replace(
                row,
                question=texts.get(place, ("", ""))[0],
                wanted=texts.get(place, ("", ""))[1],
                answer_before=answers[task.incumbent].get(place),
                answer_after=answers[task.best or ""].get(place),
            )
            for row in rows
            for place in [(row.drop, row.line)]
        ]
        for rows in (worst, best)
    )
    return replace(found, worst=tuple(worst), best=tuple(best), num_rows=len(changes), num_worse=sum(row.change > 0 for row in changes))


def _changes(task: RankTask, absent: list[Absent]) -> list[RowChange]:
    """Every row of the gate split under both models."""
    try:
        before, after = (_scores(task, f"gate/{model}") for model in (task.incumbent, task.best))
        after = aligned(after, before)
        if has_other_base(before, after):
            raise EvidenceError("the two stand on different bases, whose losses per token cannot be compared", hint="look at the suites", code="BASES_DIFFER")
    except EvidenceError as error:
        absent.append(Absent(what="the rows that got worse", why=error.what, how=error.hint))
        return []
    each = zip(before.rows, before.loss / before.tokens, after.loss / after.tokens, strict=True)
    return [RowChange(drop=drop, line=line, before=float(one), after=float(other)) for (drop, line), one, other in each]


def _scores(task: RankTask, key: str) -> Scores:
    if key not in task.scores:
        raise EvidenceError(f"nobody scored {key!r}", hint=f"lorad jobs retry {task.job} scores again", code="EVIDENCE_MISSING")
    return read_scores(key, Path(task.scores[key]))


def _texts(sources: Sequence[RowsOf], wanted: set[Place], absent: list[Absent]) -> dict[Place, tuple[str, str]]:
    """(question, wanted answer) of these rows, read from the drops."""
    try:
        rows = [row for row in read_rows(sources) if (row.drop, row.line) in wanted]
    except (LoradError, OSError) as error:
        absent.append(Absent(what="questions and wanted answers", why=str(error), how="restore the drop from a backup; what was forgotten stays so"))
        return {}
    if not rows:
        absent.append(Absent(what="questions and wanted answers", why="the drops no longer hold these rows", how="nothing brings back what was forgotten"))
    return {(row.drop, row.line): texts_of(row) for row in rows}


def texts_of(row: Row) -> tuple[str, str]:
    """(what is asked, the row's own answer with its tool calls); empty for a row without a learnt answer."""
    question = question_of(row)
    if question is None:
        return "", ""
    calls = "".join(f"\n{call.name}({call.arguments})" for call in question.expected.tool_calls)
    return question.asked, question.expected.content + calls


def _answers(task: RankTask, model: str, absent: list[Absent]) -> dict[Place, str]:
    key = f"answers/gate/{model}"
    if key not in task.scores:
        how = f"lorad compare {task.incumbent[:12]} {task.job} shows answers now; ranking.metric or ranking.profile lets each ranking write them"
        absent.append(Absent(what=f"answers of {model}", why="the ranking wrote no answers: no metric asked for them", how=how))
        return {}
    try:
        return read_answers(Path(task.scores[key]))
    except OSError as error:
        absent.append(Absent(what=f"answers of {model}", why=f"its file cannot be read: {error.strerror}", how=f"lorad jobs retry {task.job}"))
        return {}


def read_answers(path: Path) -> dict[Place, str]:
    """(drop, line) -> answer; lines that hold none (a header, a torn one) are left out. Raises OSError."""
    found: dict[Place, str] = {}
    for line in _json_lines(path):
        drop, number, answer = line.get("drop"), line.get("line"), line.get("answer")
        if isinstance(drop, str) and isinstance(number, int) and isinstance(answer, str):
            found[drop, number] = answer
    return found


# ---------------------------------------------------------------- suites


def _suites(task: RankTask, absent: list[Absent]) -> tuple[SuiteChange, ...]:
    names = sorted({key.split("/")[1] for key in task.scores if key.startswith("suite/") and key.endswith(f"/{task.best}")})
    if not names:
        absent.append(Absent(what="suites", why="no suite was scored for this candidate", how='ranking.suites: ["auto"] scores the shipped ones'))
    return tuple(change for name in names if (change := _suite(task, name, absent)) is not None)


def _suite(task: RankTask, name: str, absent: list[Absent]) -> SuiteChange | None:
    try:
        before, after = (_values(Path(task.scores[f"suite/{name}/{model}"])) for model in (task.incumbent, task.best))
    except (KeyError, OSError):
        absent.append(Absent(what=f"items of suite {name}", why="a file of its results is missing", how=f"lorad jobs retry {task.job}"))
        return None
    both = sorted(before.keys() & after.keys())
    return SuiteChange(
        name=name,
        items=len(both),
        lost=tuple(item for item in both if after[item] < before[item]),
        won=tuple(item for item in both if after[item] > before[item]),
    )


def _values(path: Path) -> dict[str, float]:
    return {
        str(line["item"]): float(line["value"])
        for line in _json_lines(path)
        if isinstance(line.get("item"), str | int) and isinstance(line.get("value"), int | float) and not isinstance(line.get("value"), bool)
    }
