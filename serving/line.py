"""The line in front of the engine: every answer takes a turn of it, whichever door its request came through.

A request that finds all streams taken waits, first come first served, and learns its position; one that finds
`serving.queue` others waiting is refused at once (429, Retry-After). Background work (a rehearsal, a shadow) goes behind
all of them and is not counted among the waiting, but every eighth free stream is its own: it is slow on a busy box and
never stands still.

The line pins nothing: resolve the model once the turn has come, so that who waited is answered by what is live then. A
request for several answers takes a ticket for each, and lets each go when its answer ends; holding one while waiting for
the next would lock two such requests against each other.
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from types import TracebackType

from core.errors import LoradError

BACKGROUND_SHARE = 8  # one in so many turns goes to background work where both wait
LONGEST_RETRY_S = 60
SMOOTHING = 0.2  # weight of the newest turn in the mean that Retry-After is made from


class LineFull(LoradError):
    """As many wait as may. `retry_after_s` (whole seconds) is when it is likely to be better."""

    def __init__(self, waiting: int, retry_after_s: int) -> None:
        super().__init__(f"{waiting} requests wait already", hint=f"ask again in {retry_after_s} s; serving.queue is how many may wait", code="QUEUE_FULL")
        self.retry_after_s = retry_after_s


class Ticket:
    """One answer's place: in the line, then at the engine, until `leave`. A context that leaves it; safe in threads."""

    def __init__(self, line: "Line", background: bool) -> None:
        self.background = background
        self.joined_s = line.monotonic()
        self.began_s: float | None = None  # when its turn came
        self._line = line
        self._turn: Future[None] = Future()
        self._moved: Callable[[], None] = lambda: None

    @property
    def position(self) -> int:
        """How many turns away it is; 1 is the next, 0 has its turn or has left."""
        return self._line.position(self)

    @property
    def waited_s(self) -> float:
        """Seconds in the line, until its turn or until now."""
        return (self._line.monotonic() if self.began_s is None else self.began_s) - self.joined_s

    async def positions(self) -> AsyncGenerator[int, None]:
        """Its position now and whenever it changed; ends after 0. For one listener. Leave it where the wait is cancelled."""
        loop, moved = asyncio.get_running_loop(), asyncio.Event()
        told: int | None = None

        def wake() -> None:
            with suppress(RuntimeError):  # the loop has ended, and the listener with it
                loop.call_soon_threadsafe(moved.set)

        self._moved = wake
        try:
            while told != 0:
                moved.clear()
                if (now := self.position) != told:
                    told = now
                    yield now
                else:
                    await moved.wait()
        finally:
            self._moved = lambda: None

    async def turn(self) -> "Ticket":
        """Wait in an event loop until it is its turn."""
        async for _ in self.positions():
            pass
        return self

    def wait(self, timeout_s: float) -> bool:
        """Wait in a thread that runs no event loop until it is its turn; False after `timeout_s`."""
        try:
            self._turn.result(timeout_s)
        except TimeoutError:
            return False
        return True

    def leave(self) -> None:
        """Give the place up, waiting or at the engine. Repeating it is harmless."""
        self._line.let_go(self)

    def __enter__(self) -> "Ticket":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.leave()

    def call(self) -> None:
        """Its turn has come. For the line alone."""
        self.began_s = self._line.monotonic()
        self._turn.set_result(None)

    def tell(self) -> None:
        """Its position may have changed. For the line alone."""
        self._moved()


class Line:
    """At most `streams` answers at the engine and `waiting` requests before it. Safe in threads."""

    def __init__(self, streams: int, waiting: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.streams = streams
        self.monotonic = monotonic
        self._capacity = waiting
        self._at_engine: set[Ticket] = set()
        self._waiting: deque[Ticket] = deque()
        self._background: deque[Ticket] = deque()
        self._since_background = 0
        self._mean_s = 1.0
        self._lock = threading.RLock()

    @property
    def num_running(self) -> int:
        """Answers that have their turn."""
        return len(self._at_engine)

    @property
    def num_waiting(self) -> int:
        """Requests of people that wait."""
        return len(self._waiting)

    def join(self, *, background: bool = False) -> Ticket:
        """Take a place; its turn may have come at once. Raises LineFull; background work is never refused."""
        with self._changed():
            if not background and len(self._waiting) >= self._capacity and not self._is_free():
                raise LineFull(len(self._waiting), self.retry_after_s)
            ticket = Ticket(self, background)
            (self._background if background else self._waiting).append(ticket)
        return ticket

    def position(self, ticket: Ticket) -> int:
        """See `Ticket.position`."""
        with self._lock:
            if ticket in self._waiting:
                return self._waiting.index(ticket) + 1
            if ticket in self._background:
                return len(self._waiting) + self._background.index(ticket) + 1
            return 0

    def let_go(self, ticket: Ticket) -> None:
        """See `Ticket.leave`."""
        with self._changed():
            if ticket in self._at_engine:
                self._at_engine.remove(ticket)
                if ticket.began_s is not None:
                    self._mean_s += SMOOTHING * (self.monotonic() - ticket.began_s - self._mean_s)
                return
            for line in (self._waiting, self._background):
                if ticket in line:
                    line.remove(ticket)

    @property
    def retry_after_s(self) -> int:
        """Whole seconds until those who wait now have probably had their turn, by the mean length of a turn; 1 to 60."""
        return min(LONGEST_RETRY_S, max(1, math.ceil((len(self._waiting) + 1) / self.streams * self._mean_s)))

    def _is_free(self) -> bool:
        return len(self._at_engine) < self.streams and not self._waiting

    @contextmanager
    def _changed(self) -> Iterator[None]:
        """Under the lock; afterwards free streams are given away, and all who wait are told."""
        with self._lock:
            yield
            while len(self._at_engine) < self.streams and (self._waiting or self._background):
                ticket = self._next()
                self._at_engine.add(ticket)
                ticket.call()
                ticket.tell()
            for ticket in (*self._waiting, *self._background):
                ticket.tell()

    def _next(self) -> Ticket:
        if self._background and (not self._waiting or self._since_background >= BACKGROUND_SHARE - 1):
            self._since_background = 0
            return self._background.popleft()
        self._since_background += bool(self._background)
        return self._waiting.popleft()
