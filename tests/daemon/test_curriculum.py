"""The curriculum beside the daemon's work: one evaluation at a time, no slot that a job could want, and nothing lost or doubled by a crash."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filled_index import facts_of, index_of, queued

from core.commands import Answer, Command, CommandKind
from core.curriculum import Course, Does
from core.exits import ChildExit
from core.facts import Facts, TargetSeen
from core.records import ChildRef
from core.tasks import ChildSeen, ExitNote, ScoreTask
from daemon import clock
from daemon.curriculum import Curriculum
from daemon.index import Index
from daemon.metrics import text_of
from daemon.worker import Chore, ChoreDone
from store.bases import STUB_BASE
from store.codec import read
from store.curriculum import course_history, read_course
from store.performance import performance_of
from store.runs import SPEC, write_exit

NOW = datetime(2026, 1, 6, tzinfo=UTC)
ROWS = {"rows": 40, "sha256": "a", "schema_id": "chat_sft_v1", "generator": "adder", "version": "7", "first_seed": 4, "last_seed": 4, "levels": [1, 2]}
ADAPTER = "skills/adding"


class Desk:
    """Worker and children that remember what they were asked, and end it when the test says so."""

    def __init__(self) -> None:
        self.chores: list[Chore] = []
        self.listeners: dict[str, Callable[[ChoreDone], None]] = {}
        self.child: Path | None = None
        self.seen = ChildSeen(ref=None, alive=True)  # type: ignore[arg-type]
        self.stopped: list[str] = []
        self.slots: tuple[int, ...] = (0,)

    def hear(self, kind: str, listener: Callable[[ChoreDone], None]) -> None:
        self.listeners[kind] = listener

    def submit(self, chore: Chore) -> bool:
        self.chores.append(chore)
        return True

    def free_slots(self) -> tuple[int, ...]:
        return self.slots if self.child is None else ()

    def start(self, job: str, run: Path, words: list[str], slot: int, threads: int) -> None:
        self.child = run
        assert (words, slot) == (["trainer"], 0)

    def look(self, job: str, ref: ChildRef) -> ChildSeen:
        return replace(self.seen, ref=ref)

    def stop(self, job: str, *, hung: str = "") -> None:
        self.stopped.append(hung)


class Taught:
    """A curriculum of one skill, its desk, and a clock that the test sets."""

    def __init__(self, folder: Path, **auto: Any) -> None:
        skill = {"url": "http://127.0.0.1:1", "up_evaluations": 1}
        self.index: Index = index_of(folder, skills={"adding": skill}, auto_generate={"enabled": True, **auto})
        self.index.base_sha256 = STUB_BASE
        self.desk, self.now, self.told = Desk(), NOW, list[tuple[str, dict[str, Any]]]()
        self.live: dict[str, str | None] = {}
        self.begin()

    def begin(self) -> None:
        """As a daemon that has just started."""
        self.curriculum = Curriculum(self.index, "i-1", self.desk, self.desk, lambda now, action, **fields: self.told.append((action, fields)))  # type: ignore[arg-type]

    def facts(self, **more: Any) -> Facts:
        target = TargetSeen(name="local", desired=None, observed=None, live=self.live)
        seen = {"free_slots": self.desk.free_slots(), "targets": (target,), "releases": dict.fromkeys(self.index.releases, 3)}
        return replace(facts_of(self.index), **(seen | more))

    def turn(self, **more: Any) -> None:
        self.curriculum.turn(self.facts(**more), self.now)

    def end(self, kind: str, code: str = "", **result: Any) -> None:
        """The newest chore ends; it must be of this kind."""
        chore = self.desk.chores.pop()
        assert chore.kind == kind
        done = ChoreDone(kind=kind, key=chore.key, ok=not code, message="it is ill" if code else "", result={"code": code} if code else result)
        self.desk.listeners[kind](done)

    def end_child(self, code: ChildExit = ChildExit.DONE, **note: Any) -> None:
        assert self.desk.child is not None
        write_exit(self.desk.child, ExitNote(code=code, ended_at=NOW, **note))
        self.desk.seen = replace(self.desk.seen, alive=False)
        self.turn()
        self.desk.child, self.desk.seen = None, replace(self.desk.seen, alive=True)

    def examine(self, right: int, of_base: int | None = None) -> ScoreTask:
        """A whole evaluation; returns what the child was asked."""
        self.turn()
        self.end("exam", **ROWS, max_new_tokens=32)
        self.turn()
        assert self.desk.child is not None
        task = read(ScoreTask, self.desk.child / SPEC)
        self.end_child()
        marks = {model.id: {"right": right, "loss": 1.5} for model in task.models}
        self.end("marks", **(marks | ({"base": {"right": of_base, "loss": 3.0}} if of_base is not None else {})))
        return task

    @property
    def course(self) -> Course:
        found = read_course(self.index.home, "adding")
        assert found is not None
        return found


@pytest.fixture
def taught(tmp_path: Path) -> Taught:
    return Taught(tmp_path)


def test_the_base_is_evaluated_first_and_is_its_own_baseline(taught: Taught) -> None:
    task = taught.examine(10)
    assert ([model.id for model in task.models], task.answers, task.split) == (["base"], 40, "gate")
    assert task.settings["ranking"]["max_new_tokens"] == 32  # type: ignore[index]
    assert (taught.course.evaluations[0].accuracy, taught.course.baselines[1]) == (0.25, taught.course.evaluations[0])
    assert not list(taught.index.home.tmp.iterdir()), "nothing is left of it"
    taught.turn()
    assert taught.desk.chores[-1].spec["level"] == 1, "then rows of the level are drawn"


def test_a_release_is_evaluated_with_the_base_beside_it_only_where_that_was_never_measured(taught: Taught) -> None:
    taught.index.releases["r1"] = SimpleNamespace(id="r1", folder=taught.index.home.root / "v3", version=3)  # type: ignore[assignment]
    taught.live[ADAPTER] = "r1"
    task = taught.examine(20, of_base=2)
    assert [model.id for model in task.models] == ["r1", "base"]
    one = taught.course.evaluations[0]
    assert (one.release, one.version, one.right, taught.course.baselines[1].right) == ("r1", 3, 20, 2)
    taught.index.releases["r2"] = SimpleNamespace(id="r2", folder=taught.index.home.root / "v4", version=4)  # type: ignore[assignment]
    taught.live[ADAPTER] = "r2"
    assert [model.id for model in taught.examine(21).models] == ["r2"]
    assert performance_of(taught.index.home, ADAPTER).tallies == (), "what the stub made up stands in no series"


def test_a_level_that_is_fulfilled_moves_up_and_is_told(taught: Taught) -> None:
    taught.examine(40)
    assert taught.course.level == 2
    assert [action for action, _ in taught.told] == ["curriculum.evaluated", "curriculum.moved"]
    assert [entry.kind for entry in course_history(taught.index.home, "adding")] == ["evaluation", "move"]


def test_no_evaluation_begins_while_a_job_could_want_the_slot(taught: Taught) -> None:
    job = queued(1)
    taught.index.views.put(job)
    taught.turn()
    assert taught.desk.chores == []
    assert taught.curriculum.choices["adding"].why.startswith("an evaluation waits for a free slot")
    taught.index.views = type(taught.index.views)()
    for why in ({"paused": "paused by ann"}, {"closed": "quiet hours"}, {"free_slots": ()}, {"base_sha256": None}, {"stopping": True}):
        taught.turn(**why)
        assert taught.desk.chores == [], why


def test_an_adapter_that_a_person_stopped_is_left_alone(taught: Taught) -> None:
    taught.curriculum.is_stopped = lambda adapter: adapter == ADAPTER
    taught.turn()
    assert taught.desk.chores == []
    assert "a person has stopped skills/adding" in taught.curriculum.choices["adding"].why


def test_a_draw_is_durable_before_it_is_asked_for_so_that_a_crash_makes_no_second_one(taught: Taught) -> None:
    taught.examine(10)
    taught.turn()
    assert taught.course.drawn_at == NOW
    taught.desk.chores.clear()
    taught.begin()  # the daemon died; its chore with it
    taught.turn()
    assert taught.desk.chores == []
    taught.now += timedelta(hours=1)
    taught.turn()
    assert [chore.kind for chore in taught.desk.chores] == ["draw"]


def test_rows_that_have_just_been_dropped_are_seen_before_the_next_draw(tmp_path: Path) -> None:
    taught = Taught(tmp_path, cooldown_s=0)
    taught.examine(10)
    taught.turn()
    taught.end("draw", file="adding-level-1-seed-0.jsonl", rows=500)
    taught.turn()  # by facts from before the drop
    assert taught.desk.chores == []
    taught.turn(num_entries=1)
    assert taught.desk.chores == []
    assert taught.course.drawn == "adding-level-1-seed-0.jsonl"


def test_a_drop_that_the_gate_refused_puts_off_the_next_one_longer_and_longer(tmp_path: Path) -> None:
    taught = Taught(tmp_path, cooldown_s=0)
    taught.examine(10)
    for count in (1, 2):
        taught.turn()
        file = f"adding-level-1-seed-{count}.jsonl"
        taught.end("draw", file=file, rows=500)
        refused = taught.index.home.rejected / f"drop-{count}" / file
        refused.parent.mkdir()
        refused.touch()
        taught.turn()
        taught.turn()
        assert taught.desk.chores == []
        trouble = taught.course.draw_trouble
        assert trouble is not None
        assert (trouble.code, trouble.count) == ("ROWS_REFUSED", count)
        taught.now = trouble.until
    taught.turn()
    taught.end("draw", file="adding-level-1-seed-3.jsonl", rows=500)
    taught.turn()
    taught.turn()
    assert [chore.kind for chore in taught.desk.chores] == ["draw"], "it was taken"
    assert taught.course.draw_trouble is None


def test_level_accuracy_and_baseline_are_measures(taught: Taught) -> None:
    taught.examine(10)
    assert text_of(taught.curriculum.measures()).splitlines()[2::3] == [
        'lorad_skill_level{skill="adding"} 1',
        'lorad_skill_accuracy{skill="adding"} 0.25',
        'lorad_skill_baseline{skill="adding"} 0.25',
    ]


@pytest.mark.parametrize("kind", ["exam", "marks"])
def test_a_teacher_that_fails_is_named_and_tried_again_later_while_rows_are_still_drawn(taught: Taught, kind: str) -> None:
    taught.now = clock.now()  # when a chore ended is told by the daemon's own clock
    taught.turn()
    if kind == "marks":
        taught.end("exam", **ROWS, max_new_tokens=32)
        taught.turn()
        taught.end_child()
    taught.end(kind, code="TEACHER_ROWS")
    assert (taught.course.trouble and taught.course.trouble.code, taught.course.evaluations) == ("TEACHER_ROWS", ())
    assert ("curriculum.failed", "TEACHER_ROWS") in [(action, fields.get("code")) for action, fields in taught.told]
    taught.turn()
    assert [chore.kind for chore in taught.desk.chores] == ["draw"]
    taught.end("draw", code="TEACHER_DOWN")
    taught.turn()
    taught.turn()
    assert taught.desk.chores == []
    assert taught.curriculum.choices["adding"].does is Does.WAIT


def test_a_child_that_fails_says_why_and_one_that_was_stopped_counts_for_nothing(taught: Taught) -> None:
    for code, trouble in ((ChildExit.STOPPED, None), (ChildExit.BAD_SPEC, "ADAPTER_UNREADABLE")):
        taught.turn()
        taught.end("exam", **ROWS, max_new_tokens=32)
        taught.turn()
        taught.end_child(code, error="ADAPTER_UNREADABLE", reason="it is torn")
        course = read_course(taught.index.home, "adding")
        assert (course.trouble.code if course is not None and course.trouble else None) == trouble
        taught.desk.chores.clear()


def test_a_stop_of_the_daemon_ends_the_child_and_a_silent_one_is_ended_too(taught: Taught) -> None:
    taught.turn()
    taught.end("exam", **ROWS, max_new_tokens=32)
    taught.turn()
    taught.turn(stopping=True)
    taught.desk.seen = replace(taught.desk.seen, silent_s=601.0)
    taught.turn()
    assert taught.desk.stopped == ["", "no sign of life for 600 s"]


def test_a_damaged_course_stops_its_skill_and_nothing_else(taught: Taught) -> None:
    path = taught.index.home.course("adding")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{")
    taught.turn()
    assert (taught.desk.chores, path.read_text()) == ([], "{")


def test_only_skills_that_the_config_names_are_learnt_by_themselves(taught: Taught) -> None:
    taught.turn()
    assert set(taught.curriculum.choices) == {"adding"}


def test_nothing_is_read_or_written_where_it_is_off(tmp_path: Path) -> None:
    taught = Taught(tmp_path, enabled=False)
    taught.turn()
    assert (taught.desk.chores, (taught.index.home.root / "curriculum").exists()) == ([], False)


# --- a person's wish


def test_a_level_is_set_once_however_often_the_wish_is_read(taught: Taught) -> None:
    details = {"what": "set", "skill": "adding", "level": "2"}
    command = Command(id="command-1", kind=CommandKind.CURRICULUM, actor="ann", details=details, made_at=NOW, expires_at=NOW)
    for _ in range(2):
        taught.curriculum.set_level(command, NOW)
        taught.begin()
    answer = read(Answer, taught.index.home.commands / "command-1.answer.json")
    assert (answer.ok, answer.made, taught.course.level) == (True, "2", 2)
    assert len(course_history(taught.index.home, "adding")) == 1
    unknown = replace(command, id="command-2", details=details | {"skill": "chess"})
    taught.curriculum.set_level(unknown, NOW)
    assert json.loads((taught.index.home.commands / "command-2.answer.json").read_text())["code"] == "SKILL_UNKNOWN"
