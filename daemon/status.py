"""Tells how things stand: status.json, status.jsonl, the listing and metrics.prom, all from one `Standing`; and the alerts.

status.json is replaced by rename, so that no reader ever sees half of it; status.jsonl is only added to, and the daemon
waits for no reader of either. A change is told at once, but never so often that telling takes much of the time.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from core.alerts import Alert
from core.facts import Facts
from core.measures import Measure
from core.signals import Counts
from daemon import logs
from daemon.alerts import Alerts, unclean_end
from daemon.allowance import Allowance
from daemon.clock import monotonic_s
from daemon.counters import Counters
from daemon.index import Index
from daemon.listing import Listing
from daemon.metrics import MetricsFile, measures_of
from daemon.performance import Performance
from daemon.standing import Look, Plain, Process, Standing, progress_of, standing_of
from daemon.tally import Tally
from daemon.worker import BackgroundWorker
from store.durable import replace_file
from store.paths import Home
from store.rotation import line_log

PROGRESS_EVERY_S = 10.0
WRITE_EVERY_S = 1.0
SHARE, BURST_S = 0.05, 0.05  # of the time may go into telling of changes: at once, but for a burst of ten thousand drops
LOG_BYTES = 10 << 20  # status.jsonl begins a new part above this
LOG_PARTS = 5  # earlier parts that stay


class Status:
    """Writes what the daemon is at. `tell` adds a transition to status.jsonl at once."""

    def __init__(self, index: Index, instance: str, started_at: datetime) -> None:
        self._index = index
        self._process = Process.this(instance, started_at)
        self._tally = Tally(index, Counters.load(index.home.counters))
        self._listing = Listing(self._tally)
        self._metrics = MetricsFile(index.home)
        self._alerts: Alerts | None = None
        self.performance = Performance(index)
        self.measure_skills: Callable[[], Iterable[Measure]] = tuple  # none, until the daemon names its own
        self.count_signals: Callable[[], Mapping[str, Counts]] = dict  # none, until the daemon names its own
        self._progress_at_s = float("-inf")
        self._written_at_s = float("-inf")
        self._dirty = True
        self._allowance = Allowance(SHARE, BURST_S)

    def alert_by(self, worker: BackgroundWorker, now: datetime) -> None:
        """Watch for alerts from now on, and have `worker` send them. Looks at how the daemon before this one ended."""
        happening = unclean_end(read_status(self._index.home), self._process.instance)
        if happening is not None:
            self._tally.happen(happening)
        self._alerts = Alerts(self._tally, worker, now)

    def critical_alerts(self) -> tuple[Alert, ...]:
        """The critical alerts that are open."""
        return self._alerts.critical() if self._alerts is not None else ()

    def tell(self, now: datetime, action: str, **fields: object) -> None:
        """Append a transition for `tail -F`, and count it."""
        self._dirty = True
        self._tally.on_told(action, fields)
        self._append({"at": now.isoformat(), "action": action, **{key: value for key, value in fields.items() if value not in (None, "")}})

    def write(self, facts: Facts, now: datetime, state: str = "running") -> None:
        """Look at how things stand and write it down, where a second has passed or something changed. Raises OSError."""
        must = state != "running"
        is_due = monotonic_s() - self._written_at_s >= WRITE_EVERY_S
        if is_due or must or (self._dirty and self._allowance.is_left()):
            with self._allowance.spent():
                self._write(facts, now, state)

    def _write(self, facts: Facts, now: datetime, state: str) -> None:
        must = state != "running"
        self._written_at_s, self._dirty = monotonic_s(), False
        logs.flush()
        progress = progress_of(self._index)
        self._tally.count_tokens(progress)
        standing = standing_of(Look(facts=facts, now=now, progress=progress, state=state, signals=self.count_signals()), self._tally, self._process)
        measures = (*measures_of(standing, self._tally, now), *self.performance.measures, *self.measure_skills())
        if self._alerts is not None:
            standing, measures = self._with_alerts(self._alerts, standing, measures, facts, now)
        self._tally.counters.save()
        replace_file(self._index.home.status, json.dumps(standing.as_json(), indent=1, ensure_ascii=False) + "\n", durable=False)
        self._metrics.write(measures, must=must)
        self._listing.write(facts, progress, now, must=must)
        if standing.current and monotonic_s() - self._progress_at_s >= PROGRESS_EVERY_S:
            self._progress_at_s = monotonic_s()
            self._append({"at": now.isoformat(), "action": "progress", **standing.current})

    def _with_alerts(
        self, alerts: Alerts, standing: Standing, measures: tuple[Measure, ...], facts: Facts, now: datetime
    ) -> tuple[Standing, tuple[Measure, ...]]:
        if not facts.stopping:
            alerts.look(facts, measures, now)
        rows, sending = alerts.open(now), alerts.notices()
        daemon = standing.daemon | {"warnings": [*standing.daemon["warnings"], *alerts.warnings()]}
        mine = (Measure("alerts_open", sending["open"]), Measure("alerts_waiting", sending["waiting"]))
        return replace(standing, daemon=daemon, alerts=rows, notices=sending), (*measures, *mine)

    def _append(self, entry: Mapping[str, Any]) -> None:
        log = line_log(self._index.home.status_log, LOG_BYTES, LOG_PARTS)
        log.append(str(entry["at"]), json.dumps(entry, ensure_ascii=False))


def read_status(home: Home) -> Plain | None:
    """The newest status.json, or None where there is none, or a power cut has spoilt it."""
    try:
        found = json.loads(home.status.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
