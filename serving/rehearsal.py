"""Asks releases the same prompts as clients do, for a rehearsal before a flip and for the canary prompts after it.

The prompts are those of the release's own probe. Each side is asked each of them, one right after the other and in turn
first, so that a busy moment hits both. Everything goes through the line as background work: people come first.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime

from core.answering import NO_RULES, AnswerRules
from core.errors import LoradError
from core.guarding import Asked, is_rubbish, is_unusable, rehearsed
from core.wire import Trial, TrialResult
from rendering.profiles import with_system
from rendering.specs import Message
from serving.engines.port import Ask, Blend, Engine, Piece, Sampling, only
from serving.line import Line
from serving.probe import ProbeLine

log = logging.getLogger(__name__)

MAX_TOKENS = 16  # of an answer: enough to see whether it makes sense
RUBBISH = "most of its own greedy answers are nothing that the base would ever say"
GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, repetition_penalty=1.0, max_tokens=MAX_TOKENS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two that are compared."""

    blend: Blend
    rules: AnswerRules = NO_RULES


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where questions are asked."""

    engine: Engine
    line: Line | None = None  # None: nobody else is there
    timeout_s: float = 300.0


def ask(stage: Stage, wanted: Ask) -> Asked:
    """One answer, waited for. Never raises: what went wrong is counted. Blocks; not for an event loop."""
    ended, said, began = threading.Event(), [""], 0.0
    failed: list[str] = []
    first: list[float] = []

    def hear(piece: Piece) -> None:
        if piece.text and not first:
            first.append((time.monotonic() - began) * 1e3)
        said[0] += piece.text
        if piece.error is not None:
            failed.append(piece.error.code)
        if piece.error is not None or piece.end is not None:
            ended.set()

    ticket = stage.line.join(background=True) if stage.line else None
    try:
        if ticket is not None and not ticket.wait(stage.timeout_s):
            return Asked()  # the line never moved: that says nothing of a release
        began = time.monotonic()
        generation = stage.engine.begin(wanted, hear)
        if not ended.wait(stage.timeout_s):
            generation.cancel()
            failed.append("TIMEOUT")
    except Exception as error:  # the border of one question: whatever an engine raises is its answer
        log.info("an asked prompt failed: %s", error, extra={"action": "prompt_failed"})
        failed.append(getattr(error, "code", type(error).__name__))
    finally:
        if ticket is not None:
            ticket.leave()
    seconds = time.monotonic() - began
    if failed:
        return Asked(requests=1, errors=1, seconds=seconds)
    return Asked(requests=1, broken=int(is_unusable(said[0])), first_ms=tuple(first), seconds=seconds)


def ask_sides(stage: Stage, prompts: Sequence[str], sides: tuple[Side, Side], requests: int, clients: int) -> tuple[Asked, Asked]:
    """`requests` prompts asked of each side by `clients` at once. `seconds`: of each side's own answers, as if it had been alone."""
    numbers, lock = iter(range(requests)), threading.Lock()
    found = [Asked(), Asked()]

    def client() -> None:
        while (number := _next(numbers, lock)) is not None:
            prompt = prompts[number % len(prompts)]
            for place in (0, 1) if number % 2 else (1, 0):
                side = sides[place]
                messages = tuple(with_system([Message("user", prompt)], side.rules.system))
                answered = ask(stage, Ask(blend=side.blend, messages=messages, sampling=GREEDY, rules=side.rules))
                with lock:
                    found[place] += answered

    threads = [threading.Thread(target=client, name=f"client {number}", daemon=True) for number in range(max(1, min(clients, requests)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = (replace(one, seconds=one.seconds / len(threads)) for one in found)
    return first, second


def _next(numbers: Iterator[int], lock: threading.Lock) -> int | None:
    with lock:
        return next(numbers, None)


def talks_rubbish(engine: Engine, lines: Sequence[ProbeLine]) -> bool:
    """Whether what the adapter says greedily, by its probe, is nothing that the base would ever say."""
    if any(line.made_up for line in lines):
        return False
    found = [engine.logprobs((), line.prompt_ids, line.adapter.ids) for line in lines]
    return is_rubbish([one for one in found if one])


# ---------------------------------------------------------------- rehearsals


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """A rehearsal that can begin: the release is loaded."""

    trial: Trial
    release: str
    live: str | None
    probe: Sequence[ProbeLine]
    rules: AnswerRules
    live_rules: AnswerRules


@dataclass(slots=True)
class Rehearsals:
    """Rehearsals in the background, one after the other. Asked by one thread."""

    stage: Stage
    now: Callable[[], datetime]
    _running: dict[str, Future[TrialResult]] = field(default_factory=dict)  # by trial
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="rehearsal"))

    def is_running(self, trial: str) -> bool:
        """Whether this trial has begun and its result was not taken yet."""
        return trial in self._running

    def begin(self, play: Play, let_go: Callable[[], None]) -> None:
        """Rehearse in the background; `let_go` is called when nothing of it is asked any more."""
        future = self._running[play.trial.id] = self._pool.submit(self._play, play)
        future.add_done_callback(lambda _: let_go())

    def take(self) -> list[TrialResult]:
        """Results that are new since the last call."""
        ended = [trial for trial, future in self._running.items() if future.done()]
        return [self._running.pop(trial).result() for trial in ended]

    def close(self) -> None:
        """End what waits; what runs is left alone."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _play(self, play: Play) -> TrialResult:
        sides = (Side(blend=only(play.release), rules=play.rules), Side(blend=only(play.live), rules=play.live_rules))
        prompts = [line.prompt for line in play.probe]
        try:
            new, live = ask_sides(self.stage, prompts, sides, play.trial.requests, play.trial.clients)
            rubbish = talks_rubbish(self.stage.engine, play.probe)
        except Exception as error:  # the border of the thread
            log.exception("a rehearsal broke off", extra={"action": "rehearsal_failed"})
            return failed(play.trial, play.release, self.now(), f"it broke off: {error}")
        result = rehearsed(play.trial, play.release, self.now(), new, live)
        if rubbish:
            result = failed(play.trial, play.release, self.now(), RUBBISH, *result.reasons)
        log.info("rehearsal of %s %s", play.release[:12], "passed" if result.passed else "failed", extra={"action": "rehearsed"})
        return result


def failed(trial: Trial, release: str, at: datetime, *reasons: str) -> TrialResult:
    """A rehearsal that was not passed, for these reasons."""
    return TrialResult(id=trial.id, release=release, at=at, passed=False, reasons=reasons)


def could_not(trial: Trial, release: str, at: datetime, error: LoradError) -> TrialResult:
    """A rehearsal that could not begin, because the release cannot be served here at all."""
    return failed(trial, release, at, f"{error.code}: {error.what}")
