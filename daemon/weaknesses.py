"""Has the weaknesses of adapters looked for, where what they fail at has changed: seldom, as it takes a model, and by a chore."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from core.names import SENTENCE_MODEL
from core.signals import Counts
from corpus.curriculum.skills import skills_of
from daemon import clock
from daemon.index import Index
from daemon.worker import BackgroundWorker, Chore, ChoreDone
from store.bases import models_dir
from store.seals import is_sealed
from store.vault import live_of
from store.weaknesses import exam_file, read_weaknesses

KIND = "weaknesses"
LOOK_EVERY_S = 600.0
APART = timedelta(hours=6)  # between two searches for one adapter
FEWEST_NEW = 10  # signals, since the last search; a new release or evaluation is enough by itself

Mark = tuple[int, str | None, tuple[int, ...]]


class WeaknessWatch:
    """Asks for one search after the other. `look` once a tick.

    Args: counts: the signals of each adapter, as the shelf counts them.
    """

    def __init__(self, index: Index, worker: BackgroundWorker, tell: Callable[..., None], counts: Callable[[], Mapping[str, Counts]]) -> None:
        self._index, self._worker, self._tell, self._counts = index, worker, tell, counts
        self._looked_s = clock.monotonic_s()  # a daemon that has just begun has better things to do
        self._marks: dict[str, Mark] = {}  # when it was searched last
        self._searched_at: dict[str, datetime] = {}
        worker.hear(KIND, self._on_done)

    def look(self, now: datetime) -> None:
        """Ask for the search that is due first, every ten minutes. Raises OSError."""
        if clock.monotonic_s() - self._looked_s < LOOK_EVERY_S or self._worker.is_busy(KIND):
            return
        self._looked_s = clock.monotonic_s()
        embedder = models_dir(self._index.config) / SENTENCE_MODEL
        marks = self._seen()
        due = [adapter for adapter, mark in sorted(marks.items()) if self._is_due(adapter, mark, now)]
        if not due or not is_sealed(embedder):
            return
        adapter = due[0]
        spec = {"adapter": adapter, "embedder": str(embedder), "now": now.isoformat(), "demand_consent": self._index.config.feedback.require_consent}
        if self._worker.submit(Chore(kind=KIND, key=f"{KIND}-{adapter}", spec=spec | {"skills": list(skills_of(self._index.config).get(adapter, ()))})):
            self._marks[adapter], self._searched_at[adapter] = marks[adapter], now
            self._looked_s = self._looked_s if len(due) == 1 else float("-inf")

    def _seen(self) -> dict[str, Mark]:
        counts, live, skills = self._counts(), live_of(self._index.home), skills_of(self._index.config)
        found: dict[str, Mark] = {}
        for adapter in {*counts, *(name for name, release in live.items() if release)}:
            one = counts.get(adapter, Counts())
            found[adapter] = (one.arrived + one.review, live.get(adapter), tuple(self._examined(skill) for skill in skills.get(adapter, ())))
        return found

    def _examined(self, skill: str) -> int:
        try:
            return exam_file(self._index.home, skill).stat().st_mtime_ns
        except OSError:
            return 0

    def _is_due(self, adapter: str, mark: Mark, now: datetime) -> bool:
        known = self._marks.get(adapter)
        if adapter not in self._searched_at:
            before = read_weaknesses(self._index.home, adapter)
            if before is not None:
                self._searched_at[adapter] = before.at
        last = self._searched_at.get(adapter)
        if last is not None and last <= now < last + APART:
            return False
        return known is None or known[1:] != mark[1:] or abs(mark[0] - known[0]) >= FEWEST_NEW

    def _on_done(self, done: ChoreDone) -> None:
        adapter = done.key.removeprefix(f"{KIND}-")
        if done.ok:
            self._tell(clock.now(), "weaknesses.found", adapter=adapter, found=done.result["weaknesses"])
        else:
            self._marks.pop(adapter, None)  # tried again in some hours
