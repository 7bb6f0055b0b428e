"""The guard over new releases: counts both sides, asks the canary prompts, copies requests for a shadow; `core.guarding` rules.

The agent begins a watch and carries out what it rules. Rounds of canary prompts and shadow copies run in the background;
`look` only takes what is there. What a watch has counted is in memory: after a restart of the box it goes on for the rest of
its window with what comes then.
"""

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from core.errors import LoradError
from core.guarding import NOTHING, Asked, Phase, Ruling, Series, is_sampled, middle, rule
from core.wire import Watch, WatchState
from serving.engines.port import Ask, only
from serving.probe import ProbeLine, probe, read_probe
from serving.rehearsal import GREEDY, RUBBISH, Side, Stage, ask, ask_sides, talks_rubbish
from serving.witness import Count, Witness

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is watched: the release of an alias beside the one before it (None: the base)."""

    alias: str
    release: str
    before: str | None
    folder: Path
    new: Side
    old: Side
    phase: Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The canary prompts asked once of both sides. `proof`: what shows by itself that the release is not what it was."""

    new: Asked = NOTHING
    old: Asked = NOTHING
    proof: str = ""


class _Held:
    """Releases that stay loaded until the watch and everything that still asks them have left."""

    def __init__(self, let_go: Callable[[], None]) -> None:
        self._let_go = let_go
        self._users = 1
        self._lock = threading.Lock()

    def enter(self) -> bool:
        """Whether they may still be asked; then `leave` afterwards."""
        with self._lock:
            self._users += self._users > 0
            return self._users > 0

    def leave(self) -> None:
        """The last one lets go."""
        with self._lock:
            self._users -= 1
            is_last = self._users == 0
        if is_last:
            self._let_go()


@dataclass(slots=True, kw_only=True)
class _Watched:
    """A watch that goes on."""

    subject: Subject
    watch: Watch
    since: datetime
    began_s: float
    counts: tuple[Count, Count]  # of both sides when it began
    held: _Held
    canary: tuple[Asked, Asked] = (NOTHING, NOTHING)
    proof: str = ""
    next_round_s: float = 0.0
    round: Future[Round] | None = None
    heard: int = 0  # requests of the release before, while in the shadow
    copying: bool = False


@dataclass(slots=True)
class Watches:
    """The watches of one box. One thread begins, looks and ends; requests only call `hear`."""

    witness: Witness
    stage: Stage
    hold: Callable[[Sequence[str]], Callable[[], None]]  # keeps releases loaded until what it returns is called
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    dirty: bool = False  # something that active.json tells has changed
    _open: dict[str, _Watched] = field(default_factory=dict)
    _ended: dict[str, WatchState] = field(default_factory=dict)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, thread_name_prefix="watch"))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def phase_of(self, alias: str, release: str | None) -> Phase | None:
        """How far the watch over this release of the alias is; None where it was not watched."""
        if (watched := self._open.get(alias)) is not None and watched.subject.release == release:
            return watched.subject.phase
        ended = self._ended.get(alias)
        return Phase(ended.phase) if ended is not None and ended.release == release else None

    def subject(self, alias: str) -> Subject | None:
        """What is watched of an alias now."""
        return self._open[alias].subject if alias in self._open else None

    def begin(self, subject: Subject, watch: Watch, spent_s: float = 0.0) -> None:
        """Watch a release from now on, or, `spent_s` of its window being over, again after a restart."""
        counts = (self.witness.counted(subject.release), self.witness.counted(subject.before))
        if subject.phase is Phase.ALL:
            counts = (counts[0], Count())  # what the release before answered until now is the measure: it answers no users any more
        now_s, since = self.monotonic(), self.now() - timedelta(seconds=spent_s)
        held = _Held(self.hold([release for release in (subject.release, subject.before) if release]))
        self.forget(subject.alias)
        self._open[subject.alias] = _Watched(subject=subject, watch=watch, since=since, began_s=now_s - spent_s, counts=counts, held=held, next_round_s=now_s)
        self.dirty = True
        self._listen()

    def forget(self, alias: str) -> None:
        """Watch an alias no more, and tell nothing of it: another release is there."""
        watched = self._open.pop(alias, None)
        if watched is not None:
            watched.held.leave()
        if watched is not None or self._ended.pop(alias, None) is not None:
            self.dirty = True
        self._listen()

    def let_go(self, unwanted: Collection[str]) -> None:
        """End the watches that hold a release which is to be deleted: there is nothing to compare with, nor to go back to."""
        for alias, watched in tuple(self._open.items()):
            if watched.subject.before in unwanted or watched.subject.release in unwanted:
                self.forget(alias)

    def end(self, alias: str, phase: Phase, reason: str) -> None:
        """Let a watch end with this word."""
        watched = self._open.pop(alias)
        self._ended[alias] = replace(self._state(watched), phase=phase.value, reason=reason)
        watched.held.leave()
        self.dirty = True
        self._listen()

    def remember(self, alias: str, state: WatchState) -> None:
        """Tell of a watch that ended before this process began."""
        self._ended[alias] = state

    def look(self, watch: Watch | None) -> list[tuple[Subject, Ruling]]:
        """What is ruled now. `watch`: the criteria that are in force; None: nothing is watched any more."""
        found = []
        for watched in list(self._open.values()):
            if watch is None:
                found.append((watched.subject, Ruling(passes=True, reason="the watch was switched off")))
                continue
            watched.watch = watch
            self._turn(watched)
            new, old = self._series(watched)
            ruling = rule(watch, new, old, self.monotonic() - watched.began_s)
            if watched.proof:
                ruling = Ruling(rolls_back=True, reason=watched.proof)
            if ruling.rolls_back or (ruling.passes and watched.round is None):
                found.append((watched.subject, ruling))
        return found

    def states(self) -> dict[str, WatchState]:
        """What active.json tells of each alias."""
        self.dirty = False
        return self._ended | {alias: self._state(watched) for alias, watched in self._open.items()}

    def close(self) -> None:
        """Ask nothing more."""
        self._open.clear()
        self._listen()
        self._pool.shutdown(wait=False, cancel_futures=True)

    # The canary prompts

    def _turn(self, watched: _Watched) -> None:
        """Take the round that has ended, begin the next one when it is time."""
        if watched.round is not None and watched.round.done():
            found = watched.round.result()
            watched.round = None
            watched.canary = (watched.canary[0] + found.new, watched.canary[1] + found.old)
            watched.proof = watched.proof or found.proof
            self.dirty = True
        if watched.round is None and self.monotonic() >= watched.next_round_s:
            watched.next_round_s = self.monotonic() + watched.watch.every_s
            watched.held.enter()
            watched.round = self._pool.submit(self._round, watched.subject)
            watched.round.add_done_callback(lambda _: watched.held.leave())

    def _round(self, subject: Subject) -> Round:
        try:
            lines = read_probe(subject.folder)
            proof = self._proof(subject, lines)
            new, old = ask_sides(self.stage, [line.prompt for line in lines], (subject.new, subject.old), len(lines), 1)
        except LoradError as error:
            return Round(proof=f"{error.code}: {error.what}")
        except Exception:  # the border of the thread: a round that broke off says nothing of the release
            log.exception("a round of canary prompts broke off", extra={"action": "canary_failed"})
            return Round()
        return Round(new=new, old=old, proof=proof)

    def _proof(self, subject: Subject, lines: Sequence[ProbeLine]) -> str:
        """Asked again while it serves: weights that changed in memory, or an answer of another release, show here."""
        probe(self.stage.engine, subject.release, subject.folder)
        return RUBBISH if talks_rubbish(self.stage.engine, lines) else ""

    # The shadow

    def _listen(self) -> None:
        is_shadowing = any(watched.subject.phase is Phase.SHADOW for watched in self._open.values())
        self.witness.on_ask = self._hear if is_shadowing else lambda ask: None

    def _hear(self, asked: Ask) -> None:
        """Let the new release answer a sampled request too, unless the last copy is still being answered. On the request's own thread."""
        for watched in list(self._open.values()):
            subject = watched.subject
            if subject.phase is not Phase.SHADOW or asked.blend != only(subject.before):
                continue
            with self._lock:
                watched.heard += 1
                if watched.copying or not is_sampled(watched.heard - 1, watched.watch.shadow_share) or not watched.held.enter():
                    continue
                watched.copying = True
            tokens = min(asked.sampling.max_tokens or GREEDY.max_tokens or 1, GREEDY.max_tokens or 1)
            copy = replace(asked, blend=subject.new.blend, rules=subject.new.rules, sampling=replace(asked.sampling, max_tokens=tokens))
            try:
                self._pool.submit(self._copy, watched, copy)
            except RuntimeError:  # closed meanwhile
                watched.held.leave()

    def _copy(self, watched: _Watched, copy: Ask) -> None:
        answered = ask(self.stage, copy)
        watched.held.leave()
        with self._lock:
            watched.canary = (watched.canary[0] + replace(answered, first_ms=()), watched.canary[1])  # other prompts, other latency
            watched.copying = False

    # What it tells

    def _series(self, watched: _Watched) -> tuple[Series, Series]:
        subject = watched.subject
        counts = (self.witness.counted(subject.release).since(watched.counts[0]), self.witness.counted(subject.before).since(watched.counts[1]))
        new, old = (
            Series(answers=count.answers, errors=count.errors, rated=count.rated, negative=count.negative, canary=canary)
            for count, canary in zip(counts, watched.canary, strict=True)
        )
        return new, old

    def _state(self, watched: _Watched) -> WatchState:
        new, old = self._series(watched)
        subject = watched.subject
        return WatchState(
            release=subject.release,
            before=subject.before,
            phase=subject.phase.value,
            since=watched.since,
            until=watched.since + timedelta(seconds=watched.watch.window_s),
            answers=new.seen,
            errors=new.failed,
            latency_ms=round(middle(new.canary.first_ms), 1),
            before_answers=old.seen,
            before_errors=old.failed,
            before_latency_ms=round(middle(old.canary.first_ms), 1),
        )


def open_states(states: Mapping[str, WatchState]) -> dict[str, WatchState]:
    """Those of a former process that are to go on."""
    return {alias: state for alias, state in states.items() if state.phase in (Phase.CANARY, Phase.ALL)}
