"""The sections of the config schema. Each field's docstring is its help text.

A field marked SIDECAR may be set by whoever drops a file; a field marked IDENTITY changes rows, row weights or objective,
so that the same bytes under another value are another drop. A field marked RESTART is read once by the programs that it
names: a reload of the config leaves it as it was, and says so.
"""

from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from core.errors import UsageError
from core.names import is_part, parse_adapter
from core.windows import never_open, parse_span

SIDECAR = {"sidecar": True}
SECRET = {"secret": True}  # its value is never quoted
IDENTITY = {"sidecar": True, "identity": True}
RESTART = {"restart": "lorad"}
RESTART_SERVING = {"restart": "lorad-serve"}
RESTART_BOTH = {"restart": "lorad and lorad-serve"}

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Words = Annotated[tuple[str, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]
LevelName = Literal["quick", "standard", "deep"]


class Section(BaseModel):
    """Base of all sections: no unknown keys, no silent coercion of text to numbers, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, strict=True, allow_inf_nan=False)


class ValidationConfig(Section):
    """The gate."""

    level: Annotated[LevelName, Field(json_schema_extra=SIDECAR)] = "standard"
    """How deep a drop is checked where neither its sidecar nor its source nor its adapter says so."""
    levels: dict[str, LevelName] = {}
    """How deep the drops of an adapter are checked: {"persona/domain": level}."""
    sources: dict[str, LevelName] = {}
    """How deep drops are checked whose sidecar names this source: {"scraped": "deep"}; comes before levels."""
    background_deep: bool = False
    """Whether a drop is queued after the level standard, and checked at deep while its job waits; deep may still refuse it."""
    profile: str = "default"
    """Name of the set of limits that the checks go by: one of profiles, or default."""
    profiles: dict[str, dict[str, float | bool]] = {}
    """Named sets of limits: {"mine": {"B02.warn_share": 0.05, "B11": false}}; false turns a check off."""
    quarantine_share: Share = 0.0
    """Share of the rows up to which rows with errors are put aside and the rest is accepted; 0 refuses the file."""
    references: Words = ()
    """Evaluation sets that no drop may hold: paths of JSON Lines files; relative paths start at the config's folder."""
    processes: Annotated[int, Field(ge=1, le=64)] = 2
    """Processes that check one large file."""
    memory_mb: Annotated[int, Field(ge=2048)] = 4096
    """Most address space of each process of the gate, in MiB; its libraries alone reserve up to 1,800 of them."""
    cpu_s: Annotated[int, Field(ge=0)] = 3600
    """Most CPU seconds of each process of the gate for one file; 0 means no bound."""
    max_row_bytes: Count = 4 << 20
    """A longer row is refused."""
    max_file_bytes: Count = 5 << 30
    """A larger file is refused."""
    settle_s: Annotated[float, Field(gt=0)] = 1.0
    """Quiet time after the last write before a file that was not renamed into place is taken."""
    unparsable_settle_s: Annotated[float, Field(gt=0)] = 30.0
    """Quiet time before a file whose last line does not parse is taken, to be refused by the gate."""

    @field_validator("levels")
    @classmethod
    def _adapters(cls, value: dict[str, LevelName]) -> dict[str, LevelName]:
        try:
            return {parse_adapter(name): level for name, level in value.items()}
        except UsageError as error:
            raise ValueError(f"{error.what}; {error.hint}") from None


# ---------------------------------------------------------------- a year alone


class ScheduleEntry(Section):
    """One thing that the clock asks for."""

    does: Literal["train", "gc", "snapshot", "backup"]
    """train makes a new job on everything an adapter has accepted; gc, snapshot and backup are the commands of that name."""
    adapter: str = ""
    """Adapter to train (persona/domain); only for train."""
    cron: str = ""
    """Five cron fields: "0 3 * * sat"."""
    every_s: Annotated[float, Field(ge=0)] = 0
    """Seconds between two times, instead of cron."""
    jitter_s: Annotated[float, Field(ge=0)] = 0
    """Each time is put off by up to so many seconds, drawn anew."""

    @model_validator(mode="after")
    def _one_clock(self) -> "ScheduleEntry":
        if bool(self.cron) == bool(self.every_s):
            raise ValueError("give cron or every_s, one of them")
        if (self.does == "train") != bool(self.adapter):
            raise ValueError('adapter belongs to "does": "train", and only there')
        return self

    @field_validator("adapter")
    @classmethod
    def _adapter(cls, value: str) -> str:
        try:
            return parse_adapter(value) if value else ""
        except UsageError as error:
            raise ValueError(f"{error.what}; {error.hint}") from None


class ScheduleConfig(Section):
    """When training may run, and what the clock starts."""

    time_zone: str = ""
    """IANA name such as Europe/Berlin; empty means the machine's own."""
    windows: Words = ()
    """Training runs only inside these: "22:00-06:30", "mon-fri 20:00-07:00", "sat,sun 00:00-24:00"; empty means always."""
    quiet_hours: Words = ()
    """Training never runs inside these; one under way writes a checkpoint and waits."""
    entries: dict[str, ScheduleEntry] = {}
    """What the clock starts, by a name of your own; times missed while the daemon was down are made up once."""

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            return ZoneInfo(value).key if value else ""
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError("no such time zone; write an IANA name such as Europe/Berlin") from None

    @field_validator("windows", "quiet_hours")
    @classmethod
    def _spans(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            parse_span(text)
        return value

    @field_validator("entries")
    @classmethod
    def _names(cls, value: dict[str, ScheduleEntry]) -> dict[str, ScheduleEntry]:
        for name in value:
            if not is_part(name):
                raise ValueError(f"{name!r}: use a-z, 0-9, '.', '_', '-'")
        return value

    @model_validator(mode="after")
    def _some_time_is_left(self) -> "ScheduleConfig":
        if never_open(self.windows, self.quiet_hours):
            raise ValueError("windows and quiet_hours leave no minute of the week to train in")
        return self


class RetentionConfig(Section):
    """What stays on disk. Live, previous, best, newest, pinned and running are never deleted."""

    budget_gb: Annotated[float, Field(ge=0)] = 0
    """Most that home may hold, in GB; 0 means no budget beside the free space."""
    min_free_mb: Annotated[int, Field(ge=128)] = 1024
    """Training pauses while the disk of home has less free than this, in MiB."""
    min_free_inodes: Annotated[int, Field(ge=0)] = 5000
    """Training pauses while the disk of home has fewer free inodes than this, where it counts them."""
    reserve_mb: Annotated[int, Field(ge=0)] = 32
    """Size of a file that is kept to be given up first when the disk is full, in MiB; 0 means none."""
    keep_jobs: Annotated[int, Field(ge=0)] = 20
    """Ended jobs of an adapter whose runs (logs, scores, checkpoints) stay."""
    keep_releases: Annotated[int, Field(ge=1)] = 5
    """Releases of an adapter that stay beside live, previous and pinned ones."""
    keep_snapshots: Annotated[int, Field(ge=1)] = 5
    """Snapshots and backups that stay."""


class AlertRule(Section):
    """A rule of one's own."""

    metric: str
    """Name in metrics.prom without lorad_, for example gpu_celsius or queue_oldest_seconds."""
    above: float | None = None
    """Tells when the metric is above this."""
    below: float | None = None
    """Tells when the metric is below this."""
    for_s: Annotated[float, Field(ge=0)] = 0
    """How long it must stay so."""
    severity: Literal["info", "warning", "critical"] = "warning"
    """How urgent it is."""

    @model_validator(mode="after")
    def _one_bound(self) -> "AlertRule":
        if (self.above is None) == (self.below is None):
            raise ValueError("give above or below, one of them")
        return self


class AlertsConfig(Section):
    """Who is told when something needs a person."""

    urls_file: str = ""
    """File with Apprise URLs, one a line (mail, Matrix, Telegram, ntfy …); they hold secrets and never stand in this file."""
    webhook: Annotated[str, Field(json_schema_extra=SECRET)] = ""
    """URL that every alert is posted to as JSON, signed with webhook_key_file."""
    webhook_key_file: str = ""
    """File with the key of the webhook's HMAC-SHA-256 signature."""
    cooldown_s: Annotated[float, Field(ge=0)] = 3600
    """The same alert about the same thing is told again only after so many seconds."""
    stuck_s: Annotated[float, Field(gt=0)] = 1800
    """A job that has not moved for so long is told as stuck."""
    off: Words = ()
    """Names of built-in alerts that are not told."""
    rules: dict[str, AlertRule] = {}
    """Rules of your own, by a name of your own."""


class ThermalConfig(Section):
    """Training pauses between two steps while the machine is too hot."""

    gpu_c: Annotated[float, Field(ge=0)] = 88
    """Pause above this GPU temperature in degrees Celsius; 0 means never."""
    gpu_resume_c: Annotated[float, Field(ge=0)] = 78
    """Go on below this GPU temperature."""
    cpu_c: Annotated[float, Field(ge=0)] = 0
    """Pause above this CPU temperature; 0 means never."""
    cpu_resume_c: Annotated[float, Field(ge=0)] = 80
    """Go on below this CPU temperature."""

    @model_validator(mode="after")
    def _resume_is_below(self) -> "ThermalConfig":
        for part, high, low in (("gpu", self.gpu_c, self.gpu_resume_c), ("cpu", self.cpu_c, self.cpu_resume_c)):
            if high and low >= high:
                raise ValueError(f"{part}_resume_c must be below {part}_c")
        return self


class InboxConfig(Section):
    """Who may drop what."""

    users: dict[str, str] = {}
    """{"alice": "alice"}: drops of a persona are taken only from files that this user of the machine owns."""
    quota_mb: Annotated[int, Field(ge=0)] = 0
    """Most bytes of drops of one persona that wait or were accepted in the last 24 hours, in MiB; 0 means no bound."""
    watch: Literal["auto", "poll"] = "auto"
    """How new files are noticed: by the system's events where they work, or by looking every few seconds."""
