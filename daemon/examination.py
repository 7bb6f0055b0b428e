"""One evaluation at a time of what a skill's adapter serves: rows by a chore, answers by a `trainer score` child, marks by a chore.

Everything lies in one folder below `tmp/`. A daemon that dies on the way begins again with other rows: nothing was counted.
"""

import logging
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from core.curriculum import Evaluation
from core.errors import LockHeldError
from core.exits import ChildExit
from core.names import stamp
from core.records import ChildRef, Kind
from core.tasks import ChildSeen, RowsOf, ScoreModel, ScoreTask
from daemon.children import TRAINER, Children
from daemon.index import Index
from daemon.worker import BackgroundWorker, Chore, ChoreDone
from store.bases import base_folder
from store.runs import read_exit, write_spec

log = logging.getLogger(__name__)

EXAM, MARKS = "exam", "marks"
BASE = "base"
RUN = "score"
SILENT_S = 600.0  # a child that gives no sign of life for so long is ended


class Stage(StrEnum):
    """How far an evaluation is."""

    SETTING = "setting"  # the teacher is asked for rows
    READY = "ready"  # waits for a slot
    SCORING = "scoring"
    MARKING = "marking"  # the teacher looks at the answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """What is evaluated: which skill at which level, and the release that is live (empty: the base) under its version."""

    skill: str
    level: int
    turn: int
    release: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an evaluation ended. With `evaluation` it is whole; with neither it nor a `code` it was broken off and counts for nothing."""

    paper: Paper
    evaluation: Evaluation | None = None
    baseline: Evaluation | None = None
    levels: tuple[int, ...] = ()
    code: str = ""
    message: str = ""


@dataclass(slots=True, kw_only=True)
class _Work:
    id: str
    paper: Paper
    folder: Path
    begun_at: datetime
    stage: Stage = Stage.SETTING
    rows: Mapping[str, Any] = field(default_factory=dict)  # what the chore says of the rows
    models: tuple[str, ...] = ()
    ref: ChildRef | None = None
    backend: str = ""


class Examination:
    """Carries out evaluations. `turn` once a tick; `on_end` is told how each ended.

    Raises: OSError from `turn`, and the evaluation is told to have failed. Side effects: starts chores and a child in a
    slot, writes and deletes below `tmp/`.
    """

    def __init__(self, index: Index, instance: str, worker: BackgroundWorker, children: Children, on_end: Callable[[Outcome], None]) -> None:
        self._index, self._instance, self._worker, self._children, self._on_end = index, instance, worker, children, on_end
        self._work: _Work | None = None
        worker.hear(EXAM, self._on_rows)
        worker.hear(MARKS, self._on_marks)

    @property
    def skill(self) -> str:
        """The skill that is being evaluated; empty: none is."""
        return self._work.paper.skill if self._work is not None else ""

    def begin(self, paper: Paper, now: datetime) -> None:
        """Ask the teacher for unseen rows. Nothing else may be under way."""
        assert self._work is None, "one evaluation at a time"
        identity = f"exam-{stamp(now, secrets.token_hex(3))}"
        folder = self._index.home.tmp / identity
        spec = {"skill": paper.skill, "level": paper.level, "turn": paper.turn, "folder": str(folder / "rows")}
        if self._worker.submit(Chore(kind=EXAM, key=identity, spec=spec)):
            self._work = _Work(id=identity, paper=paper, folder=folder, begun_at=now)

    def turn(self, slot: int | None, now: datetime, *, wants_baseline: Callable[[str, str], bool], stopping: bool = False) -> None:
        """Go on. `slot` is one that may be taken; `wants_baseline` says by generator and version whether the base is asked too."""
        work = self._work
        if work is None:
            return
        if work.stage is Stage.READY and slot is not None and not stopping:
            self._start(work, slot, now, wants_baseline(work.rows["generator"], work.rows["version"]))
        elif work.stage is Stage.SCORING and work.ref is not None:
            seen = self._children.look(work.id, work.ref)
            if not seen.alive:
                self._scored(work, seen)
            elif stopping:
                self._children.stop(work.id)
            elif seen.silent_s > SILENT_S:
                self._children.stop(work.id, hung=f"no sign of life for {SILENT_S:.0f} s")

    def _ended_well(self, done: ChoreDone) -> _Work | None:
        """The work under way, where its chore ended well; a failure ends it."""
        work = self._work
        if work is None or done.key != work.id:
            return None
        if not done.ok:
            self._end(work, code=str(done.result.get("code", "")) or "CHORE_FAILED", message=done.message)
            return None
        return work

    # ---------------------------------------------------------------- rows

    def _on_rows(self, done: ChoreDone) -> None:
        if work := self._ended_well(done):
            work.rows, work.stage = done.result, Stage.READY

    # ---------------------------------------------------------------- answers

    def _start(self, work: _Work, slot: int, now: datetime, with_base: bool) -> None:
        release = self._index.releases.get(work.paper.release)
        if work.paper.release and release is None:  # gone meanwhile
            self._end(work)
            return
        models = [ScoreModel(id=release.id, adapter=str(release.folder))] if release is not None else []
        if with_base or not models:
            models.append(ScoreModel(id=BASE, adapter=None))
        work.models, work.backend = tuple(model.id for model in models), self._index.backend.name
        run = work.folder / RUN
        ref = ChildRef(run=RUN, kind=Kind.SCORE, instance=self._instance, slot=slot, started_at=now)
        try:
            run.mkdir(parents=True)
            write_spec(run, self._task(work, tuple(models)))
            self._children.start(work.id, run, TRAINER, slot, self._index.config.training.threads)
        except LockHeldError:  # taken since it was seen to be free
            shutil.rmtree(run, ignore_errors=True)
            return
        except OSError as error:
            self._end(work, code="CHILD_NOT_STARTED", message=f"the evaluation could not be started: {error}")
            raise
        work.ref, work.stage = ref, Stage.SCORING

    def _task(self, work: _Work, models: tuple[ScoreModel, ...]) -> ScoreTask:
        config, rows = self._index.config, work.rows
        settings = config.model_dump(mode="json")
        settings["ranking"]["max_new_tokens"] = rows["max_new_tokens"]
        source = RowsOf(drop=work.id, sha256=rows["sha256"], folder=str(work.folder / "rows"), schema_id=rows["schema_id"])
        return ScoreTask(
            job=work.id,
            backend=work.backend,
            base="" if work.backend == "stub" else str(base_folder(config)),
            rows=(source,),
            split="gate",
            models=models,
            settings=settings,
            this_drop=work.id,
            answers=int(rows["rows"]),
        )

    def _scored(self, work: _Work, seen: ChildSeen) -> None:
        note = read_exit(work.folder / RUN)
        if note is None or note.code != ChildExit.DONE:
            stopped = note is not None and note.code == ChildExit.STOPPED and not seen.hung
            if stopped or (note is None and seen.status == ChildExit.STOPPED):
                self._end(work)
                return
            how = seen.hung or (note.reason if note is not None else "its child left no result")
            self._end(work, code=(note.error if note is not None else "") or "SCORING_FAILED", message=f"the evaluation failed: {how}")
            return
        spec = {"skill": work.paper.skill, "folder": str(work.folder / "rows"), "run": str(work.folder / RUN), "models": list(work.models)}
        if self._worker.submit(Chore(kind=MARKS, key=work.id, spec={**spec, "scores": dict(note.scores)})):
            work.stage = Stage.MARKING

    # ---------------------------------------------------------------- marks

    def _on_marks(self, done: ChoreDone) -> None:
        if work := self._ended_well(done):
            found = {model: self._evaluation(work, model, done.result[model]) for model in work.models}
            self._end(work, evaluation=found[work.models[0]], baseline=found.get(BASE), levels=tuple(work.rows["levels"]))

    def _evaluation(self, work: _Work, model: str, marks: Mapping[str, Any]) -> Evaluation:
        is_base, rows = model == BASE, work.rows
        return Evaluation(
            id=work.id,
            at=work.begun_at,
            skill=work.paper.skill,
            level=work.paper.level,
            release="" if is_base else work.paper.release,
            version=0 if is_base else work.paper.version,
            rows=int(rows["rows"]),
            right=int(marks["right"]),
            loss=marks["loss"],
            first_seed=int(rows["first_seed"]),
            last_seed=int(rows["last_seed"]),
            generator=str(rows["generator"]),
            generator_version=str(rows["version"]),
            base_sha256=self._index.base_sha256 or "",
            made_up=work.backend == "stub",
            is_baseline=is_base and bool(work.paper.release),
        )

    def _end(self, work: _Work, **outcome: Any) -> None:
        self._work = None
        shutil.rmtree(work.folder, ignore_errors=True)
        self._on_end(Outcome(paper=work.paper, **outcome))
