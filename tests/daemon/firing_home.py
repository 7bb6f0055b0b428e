"""A home whose signals, clocks and crashes a test makes up, and the triggers at work in it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from core.config import Config
from core.facts import Facts, TargetSeen
from core.signals import Counts
from daemon.triggers import Clocks, Triggers
from store.paths import Home

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)  # a Monday
ADAPTER = "support/tone"


class PowerCut(OSError):
    """The daemon ends here."""


@dataclass
class Signals:
    """Pending rows that survive every restart, and the batches that were made of them."""

    pending: dict[str, list[datetime]] = field(default_factory=dict)
    arrived: dict[str, int] = field(default_factory=dict)
    batches: dict[str, tuple[str, str, datetime, int]] = field(default_factory=dict)  # key -> adapter, trigger, when, rows
    fails: int = 0  # so many batches cannot be begun
    ends: int = 0  # after so many the daemon dies before it can note that they were

    def counts(self) -> dict[str, Counts]:
        return {name: Counts(rows=len(rows), oldest_at=min(rows, default=None), arrived=self.arrived[name]) for name, rows in self.pending.items()}

    def is_making(self, adapter: str) -> bool:
        return False

    def begin_batch(self, adapter: str, trigger: str, key: str, now: datetime) -> str:
        if self.fails:
            self.fails -= 1
            raise PowerCut("the power is gone")
        if key not in self.batches:
            rows, self.pending[adapter] = self.pending[adapter], []
            self.batches[key] = (adapter, trigger, now, len(rows))
        if self.ends:
            self.ends -= 1
            raise PowerCut("the power is gone, and the batch is there")
        return f"batch-{key}"


@dataclass
class FiringHome:
    """One home. `turn` is a tick of the daemon; `restart` is a new daemon on what lies on disk."""

    root: Path
    config: Config
    wall: datetime = NOON
    elapsed_s: float = 1000.0
    boot: str = "boot-1"
    signals: Signals = field(default_factory=Signals)
    stopped: set[str] = field(default_factory=set)
    told: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    live: dict[str, str | None] = field(default_factory=dict)
    triggers: Triggers = field(init=False)

    def __post_init__(self) -> None:
        self.home.prepare()
        self.restart()

    @property
    def home(self) -> Home:
        return Home(self.root)

    def restart(self) -> None:
        clocks = Clocks(now=lambda: self.wall, elapsed_s=lambda: self.elapsed_s, boot=lambda: self.boot)
        self.triggers = Triggers(self, self.signals, self.stopped.__contains__, self._tell, clocks)  # type: ignore[arg-type]

    def _tell(self, now: datetime, action: str, **fields: object) -> None:
        self.told.append({"action": action, **fields})

    def come(self, rows: int, adapter: str = ADAPTER) -> None:
        """So many rows become pending."""
        self.signals.pending.setdefault(adapter, []).extend([self.wall] * rows)
        self.signals.arrived[adapter] = self.signals.arrived.get(adapter, 0) + rows

    def sleep(self, **time: float) -> None:
        """Time passes without a tick."""
        self.wall += timedelta(**time)
        self.elapsed_s += timedelta(**time).total_seconds()

    def turn(self) -> None:
        """One tick; where the power is cut in it, the daemon starts again."""
        target = TargetSeen(name="box", desired=None, observed=None, live=self.live)
        facts = Facts(instance="x", config=self.config, backend="stub", base_sha256="base", targets=(target,), **self.facts)
        try:
            self.triggers.turn(facts)
        except PowerCut:
            self.restart()

    def run(self, step_s: float, steps: int) -> None:
        """Let time pass, with a tick after each step."""
        for _ in range(steps):
            self.sleep(seconds=step_s)
            self.turn()

    @property
    def fired(self) -> list[tuple[str, str, datetime, int]]:
        """(adapter, trigger, when, rows) of every batch, in the order of their making."""
        return list(self.signals.batches.values())


def settings(zone: str = "UTC", schedule: dict[str, Any] | None = None, **triggers: dict[str, Any]) -> Config:
    return Config.model_validate({"schedule": {"time_zone": zone, **(schedule or {})}, "triggers": triggers})
