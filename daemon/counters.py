"""Counts that only grow, kept over restarts in `series/counters.json`. The daemon alone writes it.

They are saved whenever status.json is written, so that kill -9 loses what was counted within a second. metrics.prom is
written after the save: it never shows a count that a restart takes back.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from core.measures import Labels, Measure
from store.durable import replace_file

log = logging.getLogger(__name__)

BUCKETS_S = (0.1, 0.5, 2.0, 10.0, 60.0, 300.0, 1800.0)


@dataclass(slots=True)
class Counters:
    """Counts by name and labels."""

    path: Path
    counts: dict[tuple[str, Labels], float] = field(default_factory=dict)
    _changed: bool = False

    @classmethod
    def load(cls, path: Path) -> "Counters":
        """What was saved; nothing where the file is missing or damaged: then counting begins anew."""
        try:
            found = json.loads(path.read_text())["counts"]
            counts = {(str(name), tuple((str(key), str(value)) for key, value in labels)): float(count) for name, labels, count in found}
        except FileNotFoundError:
            counts = {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s is damaged, counting begins anew: %s", path, type(error).__name__, extra={"action": "record_damaged"})
            counts = {}
        return cls(path, counts)

    def add(self, name: str, by: float = 1, *, labels: Mapping[str, str] | None = None) -> None:
        """Count."""
        key = (name, tuple((labels or {}).items()))
        self.counts[key] = self.counts.get(key, 0) + by
        self._changed = True

    def observe(self, name: str, seconds: float, labels: Mapping[str, str]) -> None:
        """Count a duration into a histogram: `_bucket` by upper bound, `_sum`, `_count`."""
        for bound in BUCKETS_S:
            self.add(f"{name}_bucket", float(seconds <= bound), labels={**labels, "le": f"{bound:g}"})
        self.add(f"{name}_bucket", labels={**labels, "le": "+Inf"})
        self.add(f"{name}_sum", max(0.0, seconds), labels=labels)
        self.add(f"{name}_count", labels=labels)

    def measures(self) -> Iterator[Measure]:
        """Every count, as it stands."""
        return (Measure(name, count, labels) for (name, labels), count in self.counts.items())

    def save(self) -> None:
        """Write them down where one has changed. Raises OSError."""
        if not self._changed:
            return
        rows = [[name, [list(label) for label in labels], count] for (name, labels), count in self.counts.items()]
        self.path.parent.mkdir(exist_ok=True)
        replace_file(self.path, json.dumps({"format": 1, "counts": rows}) + "\n", durable=False)
        self._changed = False
