"""What is remembered of an adapter's signals beside themselves, `manifest.json`: counts, what a day has brought, how the gate judged each source."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec

from core.learning import FeedbackConfig
from core.signals import Counts
from store.durable import replace_file

SOURCE_HELD, SOURCE_CAP, USER_CAP = "SOURCE_HELD", "SOURCE_CAP", "USER_CAP"  # codes of signals that wait
LEAST_JUDGED = 10  # rows of a source, below which its share of failures says nothing
FADES_AT = 1000.0  # rows of a source; then both its counts are halved, so that what is long ago counts less


@dataclass(slots=True)
class Day:
    """How many signals one day (UTC) has brought, for the caps."""

    day: str = ""
    sources: dict[str, int] = field(default_factory=dict)
    users: dict[str, int] = field(default_factory=dict)

    def turn(self, now: datetime) -> bool:
        """Begin another day where it is one. True where it is; never where the clock went back."""
        if (day := f"{now:%Y-%m-%d}") <= self.day:
            return False
        self.day, self.sources, self.users = day, {}, {}
        return True

    def over(self, source: str, user: str, limits: FeedbackConfig) -> str:
        """The code of the cap that one more would break; empty: none."""
        if limits.source_cap and self.sources.get(source, 0) >= limits.source_cap:
            return SOURCE_CAP
        return USER_CAP if user and limits.user_cap and self.users.get(user, 0) >= limits.user_cap else ""

    def count(self, source: str, user: str, by: int = 1) -> None:
        """Count one that was taken."""
        self.sources[source] = self.sources.get(source, 0) + by
        if user:
            self.users[user] = self.users.get(user, 0) + by

    def recount(self, taken: Iterable[tuple[datetime, str, str]]) -> None:
        """Make good for what was taken (when, source, user) after the manifest was written last."""
        found = Day()
        for at, source, user in taken:
            found.turn(at)
            if f"{at:%Y-%m-%d}" == found.day:
                found.count(source, user)
        if found.day > self.day:
            self.day, self.sources, self.users = found.day, found.sources, found.users
        elif found.day == self.day:
            for known, counted in ((self.sources, found.sources), (self.users, found.users)):
                known |= {name: max(count, known.get(name, 0)) for name, count in counted.items()}


@dataclass(slots=True, kw_only=True)
class Manifest:
    """`manifest.json`. The counts are worked out again at each start."""

    format: int = 1
    counts: Counts = field(default_factory=Counts)
    arrived: int = 0
    day: Day = field(default_factory=Day)
    judged: dict[str, tuple[float, float]] = field(default_factory=dict)  # source -> rows that the gate judged, rows that failed
    held: dict[str, str] = field(default_factory=dict)  # sources that wait for a person -> why

    def judge(self, rows: Mapping[str, int], failed: Mapping[str, float]) -> None:
        """Count rows of each source that the gate judged, and how many of them failed."""
        for source, count in rows.items():
            judged, bad = self.judged.get(source, (0.0, 0.0))
            judged, bad = judged + count, bad + failed.get(source, 0)
            self.judged[source] = (judged / 2, bad / 2) if judged > FADES_AT else (judged, bad)

    def failing(self, share: float) -> dict[str, str]:
        """Sources of which more than this share fails and that are not held yet -> why."""
        return {
            source: f"{bad:.0f} of {judged:.0f} rows failed the gate, more than feedback.quarantine_share ({share:g})"
            for source, (judged, bad) in self.judged.items()
            if source not in self.held and judged >= LEAST_JUDGED and bad / judged > share
        }


def read_manifest(path: Path) -> Manifest:
    """The manifest; an empty one where there is none, or none that is whole."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError, UnicodeError):
        return Manifest()


def write_manifest(path: Path, manifest: Manifest, *, durable: bool) -> None:
    """Replace it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n", durable=durable)
