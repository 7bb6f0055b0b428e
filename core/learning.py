"""The config of the loop that feeds itself: signals, triggers, iterations, skills."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from core.errors import UsageError
from core.names import is_part, parse_adapter
from core.sections import Count, Section, Share


def _adapter(name: str) -> str:
    try:
        return name if name in ("", "*") else parse_adapter(name)
    except UsageError as error:
        raise ValueError(f"{error.what}; {error.hint}") from None


class FeedbackConfig(Section):
    """Signals, and how they become rows."""

    corrections: Literal["sft", "preference"] = "sft"
    """What a correction becomes: a row that teaches the right answer, or a pair of the right and the wrong one."""
    require_consent: bool = True
    """Whether only signals whose user agreed become rows."""
    human_weight: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Loss weight of rows from people."""
    ai_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Loss weight of rows from peer models."""
    automated_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Loss weight of rows from rules and programs."""
    source_cap: Annotated[int, Field(ge=0)] = 5000
    """Most signals of one source and adapter that count in a day; 0 means no cap."""
    user_cap: Annotated[int, Field(ge=0)] = 200
    """Most signals of one user and adapter that count in a day; 0 means no cap."""
    waiting_cap: Annotated[int, Field(ge=0)] = 100_000
    """Most signals of one adapter that wait over such a cap; what comes then is left out, and told. 0 means no bound."""
    quarantine_share: Share = 0.3
    """Share of a source's rows that fail the gate, above which its signals wait for a person."""
    detect: bool = True
    """Whether corrections are looked for in conversations; what is found is a proposal that a person decides on."""
    peer_url: str = ""
    """OpenAI-compatible endpoint of a peer model that proposes right answers for mistakes; empty means none."""
    peer_model: str = ""
    """Its model name."""
    peer_key_file: str = ""
    """File with its API key."""


class ConditionConfig(Section):
    """One condition of a trigger; exactly one kind of it."""

    rows: Annotated[int, Field(ge=0)] = 0
    """Holds with so many pending rows."""
    after_s: Annotated[float, Field(ge=0)] = 0
    """Holds when the oldest pending row is so many seconds old."""
    cron: str = ""
    """Holds at each time of five cron fields, if there is any pending row."""
    metric: str = ""
    """Holds while this measure of the live release is below the bound: user_satisfaction, or one of the adapter's series."""
    below: float = 0.8
    """Bound of the metric."""
    window_s: Annotated[float, Field(gt=0)] = 86400
    """The metric is taken over so many seconds."""
    changed: str = ""
    """Holds when this file or folder has changed since the trigger fired last."""

    @model_validator(mode="after")
    def _one_kind(self) -> "ConditionConfig":
        if sum(map(bool, (self.rows, self.after_s, self.cron, self.metric, self.changed))) != 1:
            raise ValueError("give one of rows, after_s, cron, metric, changed")
        return self


class TriggerConfig(Section):
    """When pending signals become a drop."""

    adapter: str = "*"
    """persona/domain; "*" means each adapter by itself."""
    any: tuple[ConditionConfig, ...] = ()
    """One of these must hold; none: no such demand."""
    all: tuple[ConditionConfig, ...] = ()
    """Each of these must hold."""
    min_rows: Count = 20
    """Fewest new unique rows; below, it does not fire."""
    cooldown_s: Annotated[float, Field(ge=0)] = 3600
    """Fewest seconds between two firings for one adapter."""
    per_day: Annotated[int, Field(ge=1)] = 4
    """Most firings for one adapter within 24 hours."""

    @field_validator("adapter")
    @classmethod
    def _known(cls, value: str) -> str:
        return _adapter(value)

    @field_validator("any", "all", mode="before")
    @classmethod
    def _tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _asks_for_something(self) -> "TriggerConfig":
        if not self.any and not self.all:
            raise ValueError("give conditions in any or in all; for firing by hand there is `lorad trigger fire`")
        return self


DEFAULT_TRIGGERS = {"enough": TriggerConfig(any=(ConditionConfig(rows=500), ConditionConfig(after_s=168 * 3600)))}


class CriteriaConfig(Section):
    """What an iteration is measured by. Bounds that depend on hardware only warn on a machine without a GPU."""

    max_missing_values: Annotated[int, Field(ge=0)] = 0
    """Most missing values in a drop."""
    max_token_error_share: Share = 0.001
    """Most of the rows that may not be tokenised."""
    max_gradient_norm: Annotated[float, Field(ge=0)] = 100
    """Largest gradient norm of a training; 0 means no bound."""
    patience: Annotated[int, Field(ge=0)] = 3
    """Most checkpoints of a training after the best one; more only warns, as the best one is taken. 0 means no bound."""
    primary_metric: str = ""
    """Metric of the verdict that must reach min_primary; empty means none."""
    min_primary: float = 0.75
    """Least value of the primary metric."""
    max_perplexity: Annotated[float, Field(ge=0)] = 0
    """Largest perplexity of the candidate on the gate split, 30 for example; 0 means no bound: what is usual hangs on the texts."""
    max_latency_ms: Annotated[float, Field(ge=0)] = 200
    """Most milliseconds to the first token in a rehearsal; 0 means no bound."""
    max_error_share: Share = 0.01
    """Most of the answers of a rehearsal that may fail."""
    min_requests_s: Annotated[float, Field(ge=0)] = 50
    """Fewest answers a second in a rehearsal; 0 means no bound."""
    max_use_share: Share = 0.8
    """Most use of CPU, GPU and memory of the serving box."""
    hardware: Literal["auto", "warns", "holds"] = "auto"
    """What a missed bound of latency, answers a second or use does; auto holds where the serving box has a GPU, else it warns."""


class SkillConfig(Section):
    """A teacher of one skill."""

    url: str
    """Where its HTTP service listens, for example http://127.0.0.1:8080."""
    adapter: str = ""
    """Adapter that learns it; empty means skills/<name>."""
    level: Annotated[int, Field(ge=1)] = 1
    """Level to begin at."""
    up_share: Share = 0.8
    """Accuracy over up_evaluations that moves a level up."""
    up_evaluations: Count = 3
    """Evaluations in a row that it is taken over."""
    down_share: Share = 0.3
    """Accuracy over down_evaluations below which it moves a level down."""
    down_evaluations: Count = 3
    """Evaluations in a row that it is taken over."""

    @field_validator("url")
    @classmethod
    def _http(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("a teacher is reached by http:// or https://")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _has_room_between(self) -> "SkillConfig":
        if self.down_share >= self.up_share:
            raise ValueError(f"down_share = {self.down_share:g} must be below up_share = {self.up_share:g}, or the level moves to and fro")
        return self

    @field_validator("adapter")
    @classmethod
    def _known(cls, value: str) -> str:
        return _adapter(value)


class AutoGenerateConfig(Section):
    """Rows of the skills, made when there is little to train."""

    enabled: bool = False
    """Whether teachers are asked for rows by themselves."""
    count: Count = 500
    """Rows of one drop."""
    cooldown_s: Annotated[float, Field(ge=0)] = 3600
    """Fewest seconds between two drops of one skill."""
    threshold: Annotated[int, Field(ge=0)] = 1
    """Rows are made while fewer jobs than this wait."""
    share: Share = 1.0
    """Share of the rows at the current level; the others are of the levels below, against forgetting."""
    evaluate_rows: Count = 100
    """Unseen rows that each evaluation of the live release is scored on."""


def known_names(value: dict[str, object]) -> dict[str, object]:
    """The mapping, where every name of it may be a part of a path. Raises ValueError."""
    for name in value:
        if not is_part(name):
            raise ValueError(f"{name!r}: use a-z, 0-9, '.', '_', '-'")
    return value
