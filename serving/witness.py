"""An engine that is listened to: what each release answered and where it failed, whichever door the request came through.

Counts only grow; whoever compares takes the difference of two of them (`core.guarding` decides). What a client got wrong is
no failure of a release, and an answer that nobody waited for says nothing.
"""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.fingerprints import BASE_MARK
from serving.engines.port import Ask, Blend, Engine, Generation, Piece, PromptError, Sink


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What was counted of one release, or of the base."""

    answers: int = 0
    errors: int = 0
    rated: int = 0
    negative: int = 0

    def since(self, before: "Count") -> "Count":
        """What came on top of an earlier count."""
        return Count(
            answers=self.answers - before.answers,
            errors=self.errors - before.errors,
            rated=self.rated - before.rated,
            negative=self.negative - before.negative,
        )


class Witness:
    """`serving.engines.port.Engine` around another one."""

    def __init__(self, engine: Engine) -> None:
        self.inner = engine
        self.name, self.backend, self.base, self.streams = engine.name, engine.backend, engine.base, engine.streams
        self.on_ask: Callable[[Ask], None] = lambda ask: None  # hears every request that an answer was begun for
        self._counts: Counter[tuple[str, str]] = Counter()  # (release or base, what) -> how often
        self._running: dict[int, tuple[Blend, Generation]] = {}
        self._number = 0
        self._lock = threading.Lock()

    def open(self) -> None:
        """See the port."""
        self.inner.open()
        self.name, self.backend, self.base, self.streams = self.inner.name, self.inner.backend, self.inner.base, self.inner.streams

    def close(self) -> None:
        """See the port."""
        self.inner.close()

    def load(self, release: str, folder: Path) -> None:
        """See the port."""
        self.inner.load(release, folder)

    def unload(self, release: str) -> None:
        """See the port."""
        self.inner.unload(release)

    def logprobs(self, blend: Blend, prompt_ids: Sequence[int], ids: Sequence[int]) -> list[float] | None:
        """See the port."""
        return self.inner.logprobs(blend, prompt_ids, ids)

    def begin(self, ask: Ask, sink: Sink) -> Generation:
        """See the port. The answer is counted when its last piece comes."""
        with self._lock:
            self._number += 1
            number = self._number
        ended = threading.Event()

        def hear(piece: Piece) -> None:
            if piece.end is not None or piece.error is not None:
                ended.set()
                with self._lock:
                    self._running.pop(number, None)
                if piece.end != "cancelled":
                    self.count(ask.blend, "errors" if piece.error is not None and not isinstance(piece.error, PromptError) else "answers")
            sink(piece)

        try:
            generation = self.inner.begin(ask, hear)
        except PromptError:
            raise
        except Exception:
            self.count(ask.blend, "errors")
            raise
        with self._lock:
            if not ended.is_set():
                self._running[number] = (ask.blend, generation)
        self.on_ask(ask)
        return generation

    def cancel(self, release: str) -> int:
        """Cancel all answers that `release` has a part in; their readers hear it. Returns how many."""
        with self._lock:
            found = [generation for blend, generation in self._running.values() if any(part.release == release for part in blend)]
        for generation in found:
            generation.cancel()
        return len(found)

    def rate(self, release: str | None, *, negative: bool) -> None:
        """Count a person's rating of an answer of `release`, or of the base."""
        label = release or BASE_MARK
        with self._lock:
            self._counts[label, "rated"] += 1
            self._counts[label, "negative"] += negative

    def count(self, blend: Blend, what: str) -> None:
        """Count an answer, or an error, of every release in the blend."""
        with self._lock:
            for label in {part.release for part in blend} or {BASE_MARK}:
                self._counts[label, what] += 1

    def counted(self, release: str | None) -> Count:
        """All that was counted of a release, or of the base, since this process began."""
        label = release or BASE_MARK
        with self._lock:
            return Count(**{what: self._counts[label, what] for what in Count.__slots__})
