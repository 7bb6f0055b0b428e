"""Has a peer model asked for the right answers of mistakes, where the config names one: a few at a time, by a chore."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from daemon import clock
from daemon.feedback import Feedback
from daemon.index import Index
from daemon.worker import BackgroundWorker, Chore, ChoreDone
from store.peers import read_asked, write_asked

KIND = "peers"
LOOK_EVERY_S = 30.0
REST_S = 600.0  # after a peer that did not answer


class Peers:
    """`look` once a tick. `tell` is called with (now, action, fields). Raises OSError, and the next tick goes on."""

    def __init__(self, index: Index, worker: BackgroundWorker, feedback: Feedback, tell: Callable[..., None]) -> None:
        self._index, self._worker, self._feedback, self._tell = index, worker, feedback, tell
        self._next_s = float("-inf")
        self._asked: dict[str, list[str]] | None = None
        self._done: dict[str, tuple[int, int]] = {}  # adapter -> its counts when nothing was left to ask
        worker.hear(KIND, self._on_done)

    def look(self, now: datetime) -> None:
        """Ask about the mistakes of one adapter, where there are any that were not asked about."""
        settings = self._index.config.feedback
        if not settings.peer_url or clock.monotonic_s() < self._next_s or self._worker.is_busy(KIND):
            return
        self._next_s = clock.monotonic_s() + LOOK_EVERY_S
        if self._asked is None:
            self._asked = read_asked(self._index.home)
            self._part.unlink(missing_ok=True)  # of a chore that died with a former daemon
        adapter = next((name for name in sorted(self._feedback.counts()) if self._mark(name)[0] and self._done.get(name) != self._mark(name)), "")
        if not adapter:
            return
        spec = {"adapter": adapter, "url": settings.peer_url, "model": settings.peer_model, "key_file": settings.peer_key_file, "weight": settings.ai_weight}
        spec |= {"demands_consent": settings.require_consent, "asked": self._asked.get(adapter, []), "at": now.isoformat(), "out": str(self._part)}
        self._part.parent.mkdir(parents=True, exist_ok=True)
        self._worker.submit(Chore(kind=KIND, key=adapter, spec=spec))

    def _mark(self, adapter: str) -> tuple[int, int]:
        counts = self._feedback.counts()[adapter]
        return counts.mistakes, counts.pending + counts.review

    @property
    def _part(self) -> Path:
        return self._index.home.root / "feedback" / ".coming" / ".peers.part"

    def _on_done(self, done: ChoreDone) -> None:
        now, adapter = clock.now(), done.key
        if not done.ok:
            self._next_s = clock.monotonic_s() + REST_S
            self._tell(now, "peers.failed", adapter=adapter, reason=done.message)
            return
        if done.result["signals"]:
            path = self._part.with_name(f"peers-{now:%Y%m%d-%H%M%S-%f}.jsonl")
            self._part.rename(path)
            self._feedback.take_in(path)
        asked = list(done.result["asked"])
        if not asked:
            self._done[adapter] = self._mark(adapter)
            return
        self._next_s = float("-inf")
        self._asked = {**(self._asked or {}), adapter: [*(self._asked or {}).get(adapter, []), *asked]}
        write_asked(self._index.home, self._asked)
        self._tell(now, "peers.asked", adapter=adapter, asked=len(asked), proposed=done.result["signals"])
