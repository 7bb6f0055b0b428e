"""The queue against a model, with crashes wherever hypothesis likes: the real daemon's tick on a real home, no children.

The model remembers only what people and readers saw: the files that were dropped, the jobs that were told, the ends that
were told, the commands that were answered. After every rule the disk is read and compared with it.
"""

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from crashpoints import Crash, CrashPoints
from homeaudit import check, check_memory
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from lonedaemon import NOT_JSON, LoneDaemon, rows

from core.commands import CommandKind
from core.errors import StateError
from core.exits import ChildExit
from core.lifecycle import TABLE
from core.records import ENDED, JobState, VerdictWord

pytestmark = pytest.mark.usefixtures("quick_disk")

POINTS = st.one_of(st.just(0), st.integers(1, 60))  # 0: nothing happens; the busiest tick makes about 60 changes
MOVES_AT_ONCE = 2  # of one job, between two looks: a command and the tick's own


def reachable(state: JobState) -> set[JobState]:
    """The states that the table leads to between two looks."""
    found = {state}
    for _ in range(MOVES_AT_ONCE):
        found |= {to for known in found for to in TABLE[known].values()}
    return found


class QueueModel(RuleBasedStateMachine):
    """What people saw; `lone` is the daemon."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="queue-model-"))
        self.lone = LoneDaemon(self.root)
        self.files: dict[str, bytes] = {}
        self.dropped = self.refused = 0
        self.states: dict[str, JobState] = {}
        self.retried = 0
        self.commands: dict[str, CommandKind] = {}
        self.holds = True  # so far

    def teardown(self) -> None:
        try:
            if self.holds:
                self._comes_to_an_end()
        finally:
            shutil.rmtree(self.root)

    # ---------------------------------------------------------------- people

    @rule(adapter=st.sampled_from(["", "support/", "support/tone/"]), priority=st.sampled_from([None, 5, -5]))
    def drop(self, adapter: str, priority: int | None) -> None:
        """A new file."""
        self.dropped += 1
        name, content = f"{self.dropped}.jsonl", rows(self.dropped)
        self._put(adapter, name, content, {"priority": priority} if priority is not None else None)
        self.files[name] = content

    @precondition(lambda self: self.files)
    @rule(pick=st.integers(0, 99))
    def drop_again(self, pick: int) -> None:
        """Bytes that were dropped before: refused as a duplicate, or a new job where the first one has failed."""
        self.refused += 1
        content = self.files.pop(list(self.files)[pick % len(self.files)])
        self._put("", f"again-{self.refused}.jsonl", content, None)  # where it lies twice, it may

    @rule()
    def drop_rubbish(self) -> None:
        self.refused += 1
        self._put("", f"rubbish-{self.refused}.jsonl", NOT_JSON, None)

    def _put(self, adapter: str, name: str, content: bytes, job: dict[str, int] | None) -> None:
        (self.lone.home.inbox / adapter).mkdir(parents=True, exist_ok=True)
        self.lone.drop(content, f"{adapter}{name}", {"job": job} if job else None)

    @precondition(lambda self: self.states)
    @rule(kind=st.sampled_from(["cancel", "retry", "approve", "refuse", "pause", "resume"]), pick=st.integers(0, 99))
    def ask(self, kind: str, pick: int) -> None:
        """A command about any job, sensible or not."""
        job = sorted(self.states)[pick % len(self.states)]
        self.commands[self.lone.ask(CommandKind(kind), job=job, reason="because")] = CommandKind(kind)
        self.retried += kind == "retry"

    @rule(kind=st.sampled_from(["pause", "resume"]))
    def ask_all(self, kind: str) -> None:
        """Pause or resume the whole queue."""
        self.commands[self.lone.ask(CommandKind(kind))] = CommandKind(kind)

    # ---------------------------------------------------------------- the machine

    @rule(point=POINTS)
    def tick_and_be_killed(self, point: int) -> None:
        """A tick; with a point, killed there and started anew from the disk."""
        self._tick(CrashPoints(point))

    @rule(point=POINTS)
    def tick_on_a_bad_disk(self, point: int) -> None:
        """A tick in which one call fails: a full disk is survived, a sync that fails ends the daemon."""
        self._tick(CrashPoints(point, fail=True))

    def _tick(self, points: CrashPoints) -> None:
        self.lone.points = points
        try:
            with points:
                self.lone.tick()
        except (Crash, StateError):
            self.lone.points = None
            self.lone.start()
        self.lone.points = None

    @rule(ticks=st.integers(2, 6))
    def tick_on(self, ticks: int) -> None:
        for _ in range(ticks):
            self.lone.tick()

    @rule()
    def reload_from_disk(self) -> None:
        """Killed between two ticks."""
        self.lone.start()

    @rule()
    def remember(self) -> None:
        """Records are noted for a quick start."""
        self.lone.remember()

    @rule()
    def serve(self) -> None:
        """The box acts on the wish."""
        self.lone.serve()

    @rule(hours=st.integers(1, 3))
    def time_passes(self, hours: int) -> None:
        self.lone.now += timedelta(hours=hours)

    @precondition(lambda self: self.lone.children.alive)
    @rule(
        pick=st.integers(0, 9),
        code=st.sampled_from([ChildExit.DONE] * 6 + [ChildExit.OUT_OF_MEMORY, ChildExit.BAD_DATA, ChildExit.STOPPED]),
        word=st.sampled_from([VerdictWord.PROMOTE, VerdictWord.PROMOTE, VerdictWord.HOLD, VerdictWord.REFUSE]),
    )
    def child_ends(self, pick: int, code: ChildExit, word: VerdictWord) -> None:
        alive = sorted(self.lone.children.alive)
        self.lone.finish(alive[pick % len(alive)], code=code, word=word)

    @precondition(lambda self: self.lone.children.alive)
    @rule(pick=st.integers(0, 9))
    def child_is_killed(self, pick: int) -> None:
        alive = sorted(self.lone.children.alive)
        self.lone.lose(alive[pick % len(alive)])

    # ---------------------------------------------------------------- what must hold

    @invariant()
    def nothing_is_lost_and_nothing_is_there_twice(self) -> None:
        lone, self.holds = self.lone, False
        found = check(lone.home, {}, self._told("job.queued"))
        check_memory(lone.index)
        for job, state in self.states.items():
            assert found[job] in reachable(state), f"{job} went from {state.value} to {found[job].value}"
        for state in ENDED:
            assert all(found[job] is state for job in self._told(f"job.{state.value}")), f"an end that was told ({state.value}) was taken back"
        self.states = found
        made_for = [lone.index.job(job).card.drop for job in found if lone.index.job(job).card.retry_of is None]
        assert len(made_for) == len(set(made_for)), "two jobs for one drop"
        assert len(found) - len(made_for) <= self.retried, "a retry made two jobs"
        identities = [lone.index.job(job).card.identity for job, state in found.items() if state is JobState.RELEASED]
        assert len(identities) == len(set(identities)), "the same rows were promoted twice"
        self.holds = True

    def _told(self, action: str) -> list[str]:
        return [fields["job"] for told, fields in self.lone.told if told == action]

    def _comes_to_an_end(self) -> None:
        """With the pauses gone, everything that was dropped comes to its end, and every command has its answer."""
        lone = self.lone
        lone.ask(CommandKind.RESUME)
        for job in list(lone.index.jobs):
            lone.ask(CommandKind.RESUME, job=job)
        lone.settle()
        lone.start()
        lone.settle()
        found = check(lone.home, self.files, self._told("job.queued"))
        left = {job: state for job, state in found.items() if state not in ENDED and state is not JobState.HELD}
        assert not left, f"never ended: {left}"
        for command in self.commands:
            assert lone.answer(command) is not None, f"{command} was never answered"
        assert not [path for path in lone.home.tmp.iterdir() if not path.name.startswith("known-")]
        self.states = found
        self.nothing_is_lost_and_nothing_is_there_twice()


def play(runs: int, steps: int, *, phases: tuple[Phase, ...] = (Phase.generate, Phase.shrink), again: bool = True) -> None:
    """Raises the first broken promise, with the shortest story that hypothesis finds for it. `again`: the same runs each time."""
    rules = settings(
        max_examples=runs,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        derandomize=again,
        report_multiple_bugs=False,
        phases=phases,
    )
    run_state_machine_as_test(QueueModel, settings=rules)


def test_the_queue_keeps_its_word_whatever_is_killed() -> None:
    play(25, 30)


@pytest.mark.full
def test_the_queue_keeps_its_word_through_thousands_of_steps() -> None:
    play(300, 60, again=False)


def test_the_model_finds_a_start_that_throws_running_jobs_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model bites."""
    start = LoneDaemon.start

    def forgetful(lone: LoneDaemon) -> None:
        for folder in (lone.home.root / "jobs" / "training").iterdir():
            shutil.rmtree(folder)
        start(lone)

    monkeypatch.setattr(LoneDaemon, "start", forgetful)
    with pytest.raises(AssertionError, match="acknowledged and lost"):
        play(50, 30, phases=(Phase.generate,))
