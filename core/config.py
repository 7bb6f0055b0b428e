"""The one config schema. Strict: an unknown key is an error that names the nearest known key."""

import difflib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, get_origin

from pydantic import Field, ValidationError, field_validator, model_validator

from core.deployment import DeployConfig, ServingConfig
from core.errors import ConfigError
from core.evaluation import RankingConfig
from core.learning import AutoGenerateConfig, CriteriaConfig, FeedbackConfig, SkillConfig, TriggerConfig, known_names
from core.names import DEFAULT_BASE, DEFAULT_HOME
from core.recipe import DistributedConfig, LoraConfig, ProfileConfig, Stages, TrainingConfig
from core.sections import (
    IDENTITY,
    RESTART,
    RESTART_BOTH,
    SIDECAR,
    AlertsConfig,
    InboxConfig,
    RetentionConfig,
    ScheduleConfig,
    Section,
    ThermalConfig,
    ValidationConfig,
    Words,
)
from core.urgency import moment_of, priority_of

ORIGINS = ("default", "config.json", "sidecar", "command line")


class Config(Section):
    """Everything that config.json may say."""

    home: Annotated[str, Field(json_schema_extra=RESTART_BOTH)] = DEFAULT_HOME
    """Folder of lorad's state; a relative path starts at the config's folder."""
    models_dir: Annotated[str, Field(json_schema_extra=RESTART_BOTH)] = ""
    """Folder of base models; empty means lorad/models in the user's cache."""
    model_name: Annotated[str, Field(json_schema_extra=RESTART_BOTH)] = DEFAULT_BASE
    """Base model by name."""
    model_path: Annotated[str, Field(json_schema_extra=RESTART_BOTH)] = ""
    """Base model as a local Hugging Face folder; wins over model_name."""
    backend: Annotated[Literal["auto", "unsloth", "peft", "mlx", "stub"], Field(json_schema_extra=RESTART_BOTH)] = "auto"
    """Which trainer runs."""
    allow_stub: bool = False
    """Whether results of the stub backend may be promoted."""
    schema_id: Annotated[str, Field(json_schema_extra=IDENTITY)] = "chat_sft_v1"
    """Schema of the rows where the sidecar names none."""
    columns: Annotated[Words, Field(json_schema_extra=SIDECAR)] = ()
    """Extra columns of the rows that are passed through and never looked at."""
    specs: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    """Your own schemas: {"id": "specs/mine.json"}; a relative path starts at the config's folder."""
    objective: Annotated[Literal["auto", "sft", "dpo", "kto", "orpo"], Field(json_schema_extra=IDENTITY)] = "auto"
    """What is optimised. auto: by the schema of the rows (preference: dpo, unpaired: kto, else sft)."""
    method: Annotated[Literal["auto", "lora", "qlora", "full"], Field(json_schema_extra=SIDECAR)] = "auto"
    """What is trained: an adapter, an adapter on a 4-bit base (nf4, double quantisation), or every weight. auto: lora, qlora where a GPU is too small."""
    batch_size: Annotated[int, Field(ge=1, le=65_536, json_schema_extra=SIDECAR)] = 16
    """Effective batch: rows behind one optimizer step."""
    learning_rate: Annotated[float, Field(gt=0, lt=1, json_schema_extra=SIDECAR)] = 2e-4
    """Peak learning rate. Unset: 2e-4, 1e-4 from an incumbent, 5e-5 for a small drop of corrections."""
    max_length: Annotated[int, Field(ge=8, le=1_048_576, json_schema_extra=IDENTITY)] = 2048
    """Longest row in tokens, capped by the base's own limit; longer rows are left out and counted."""
    slots: Annotated[int, Field(ge=1, le=16, json_schema_extra=RESTART)] = 1
    """Jobs that train at once, where the devices and their memory allow it: each slot is a GPU, or the CPU."""
    lora: LoraConfig = LoraConfig()
    training: TrainingConfig = TrainingConfig()
    profile: ProfileConfig = ProfileConfig()
    profiles: dict[str, str] = {}  # noqa: RUF012
    """Your own profiles: {"name": "profiles/mine.py"}; a relative path starts at the config's folder."""
    stages: Stages = ()
    """Stages of a training, one after another; none: one stage over all rows."""
    distributed: DistributedConfig = DistributedConfig()
    validation: ValidationConfig = ValidationConfig()
    ranking: RankingConfig = RankingConfig()
    deploy: DeployConfig = DeployConfig()
    serving: ServingConfig = ServingConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    retention: RetentionConfig = RetentionConfig()
    alerts: AlertsConfig = AlertsConfig()
    thermal: ThermalConfig = ThermalConfig()
    inbox: InboxConfig = InboxConfig()
    feedback: FeedbackConfig = FeedbackConfig()
    triggers: dict[str, TriggerConfig] = {}  # noqa: RUF012
    """When pending signals become a drop, by a name of your own; none: with 500 rows, or after a week."""
    criteria: CriteriaConfig = CriteriaConfig()
    auto_generate: AutoGenerateConfig = AutoGenerateConfig()
    skills: dict[str, SkillConfig] = {}  # noqa: RUF012
    """Teachers of skills: {"syllo": {"url": "http://127.0.0.1:8080"}}."""

    @field_validator("skills", "triggers")
    @classmethod
    def _names(cls, value: dict[str, object]) -> dict[str, object]:
        return known_names(value)

    @model_validator(mode="after")
    def _machines_fit(self) -> "Config":
        spread = self.distributed
        if self.slots > 1 and (spread.processes > 1 or spread.ray_address):
            key, value = ("distributed.processes", spread.processes) if spread.processes > 1 else ("distributed.ray_address", spread.ray_address)
            raise ValueError(f"slots = {self.slots} and {key} = {value!r}: a training that takes all GPUs leaves no other slot one; set slots to 1")
        if spread.ray_address and not self.training.network:
            raise ValueError(f"distributed.ray_address = {spread.ray_address!r} needs training.network = true: trainer and workers have to reach one another")
        return self


JOB_KEYS: dict[str, type] = {  # sidecar keys that are not config
    "priority": int,
    "not_before": str,
    "notes": str,
    "again": bool,
    "source": str,
    "lineage": dict,  # of rows that a program made: what they were made of; kept with the drop, never interpreted
}


def leaves(model: type[Section] = Config, prefix: str = "", marks: Mapping[str, Any] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every dotted key of the schema with its marks and those of its section, for example ("lora.r", {"sidecar": True})."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        extra = field.json_schema_extra
        own = {**(marks or {}), **(extra if isinstance(extra, dict) else {})}
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from leaves(kind, f"{prefix}{name}.", own)
        else:
            yield f"{prefix}{name}", own


@cache
def _mappings() -> frozenset[str]:
    """The dotted keys whose values are mappings: what stands below them are names, not keys."""
    own = {key for key, kind in JOB_KEYS.items() if kind is dict}
    return frozenset(own.union(key for key, kind in _kinds() if get_origin(kind) is dict))


def _kinds(model: type[Section] = Config, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from _kinds(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", kind


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as dotted keys; lists, and mappings that are a key's own value, are leaves."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value and f"{prefix}{key}" not in _mappings():
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as a nested mapping. Raises ConfigError where a key is both a value and a section."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
            if not isinstance(branch, dict):
                raise ConfigError(f"{key!r} is set below a plain value", hint="write it once", code="CONFIG_CONFLICT")
        branch[last] = value
    return tree


def nearest(key: str, known: list[str]) -> str:
    """`did you mean 'x'?`, or an empty text where nothing is near. What is far longer than any name is compared with none: that takes seconds."""
    if len(key) > 2 * max(map(len, known), default=0):
        return ""
    by_last = {name.rsplit(".", 1)[-1]: name for name in known}
    close = difflib.get_close_matches(key, known, 1, 0.6)
    close = close or [by_last[name] for name in difflib.get_close_matches(key.rsplit(".", 1)[-1], list(by_last), 1, 0.7)]
    return f"did you mean {close[0]!r}?" if close else ""


def _reject_unknown(flat: Mapping[str, Any], known: list[str], where: str) -> None:
    sections = {name.rsplit(".", 1)[0] for name in known if "." in name}
    for key in flat:
        if key in known or (key in sections and flat[key] == {}):
            continue
        if key in sections:
            raise ConfigError(f"{key!r} in {where} is a section, not a value {flat[key]!r}", hint=f'write {{"{key}": {{…}}}}', code="CONFIG_TYPE")
        hint = nearest(key, known) or "`lorad init` writes a config with every key"
        raise ConfigError(f"unknown key {key!r} in {where}", hint=hint, code="CONFIG_UNKNOWN_KEY")


class Resolved:
    """A config with the origin of each value."""

    def __init__(self, config: Config, origins: Mapping[str, str], warnings: tuple[str, ...] = ()) -> None:
        self.config = config
        self.origins = dict(origins)
        self.warnings = warnings

    def record(self) -> dict[str, Any]:
        """What is frozen with a job: {"values": nested, "origins": flat}."""
        return {"values": self.config.model_dump(mode="json"), "origins": self.origins}


def resolve(layers: Mapping[str, Mapping[str, Any]]) -> Resolved:
    """Merge layers by precedence: default < config.json < sidecar < command line.

    Args: layers: origin (one of ORIGINS) -> nested or dotted mapping.
    Raises ConfigError: unknown key (with the nearest known key), wrong type or range, all named by key and origin.
    """
    known = [key for key, _ in leaves()]
    flat: dict[str, Any] = {}
    origins = dict.fromkeys(known, "default")
    for origin in ORIGINS:
        if layer := layers.get(origin):
            values = flatten(nest(flatten(layer)))
            _reject_unknown(values, known, origin)
            values = {key: value for key, value in values.items() if key in known}
            flat |= values
            origins |= dict.fromkeys(values, origin)
    try:
        config = Config.model_validate(nest(flat))
    except ValidationError as error:
        raise _explain(error, origins) from None
    return Resolved(config, origins, _warnings(config, origins))


def _warnings(config: Config, origins: Mapping[str, str]) -> tuple[str, ...]:
    if config.model_path and origins["model_name"] != "default":
        return (f"model_path {config.model_path!r} wins over model_name {config.model_name!r}: both name a base model",)
    return ()


def _explain(error: ValidationError, origins: Mapping[str, str]) -> ConfigError:
    lines = []
    secret = {key for key, marks in leaves() if marks.get("secret")}
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        shown = "" if isinstance(problem["input"], dict) or key in secret else f" = {problem['input']!r}"
        where = f"{key}{shown} ({origins.get(key, 'config.json')}): " if key else ""  # what several keys together are wrong in names them itself
        lines.append(f"{where}{problem['msg'].removeprefix('Value error, ')}")
    return ConfigError("; ".join(lines), hint="correct the value; docs/user-guide.md lists every key with its meaning", code="CONFIG_VALUE")


def sidecar_layer(sidecar: Mapping[str, Any], where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a sidecar into config values (dotted) and job keys. Raises ConfigError on a key that a sidecar may not set."""
    flat = _translated(sidecar, where)
    allowed = [key for key, marks in leaves() if marks.get("sidecar")]
    everything = [key for key, _ in leaves()]
    for key in flat:
        if key in everything and key not in allowed:
            raise ConfigError(
                f"{where} may not set {key!r}", hint="set it in config.json: whoever may drop a file may not choose it", code="SIDECAR_FORBIDDEN_KEY"
            )
    aliases = {"level": "validation.level"}
    flat = {aliases.get(key, key): value for key, value in flat.items()}
    _reject_unknown(flat, [*allowed, *JOB_KEYS, *aliases], where)
    job = {key: value for key, value in flat.items() if key in JOB_KEYS}
    if "priority" in job:
        job["priority"] = priority_of(job["priority"], where)
    if "not_before" in job:
        job["not_before"] = moment_of(job["not_before"], where).isoformat()
    for key, value in job.items():
        if type(value) is not JOB_KEYS[key]:
            raise ConfigError(f"{where}: {key} = {value!r} is not a {JOB_KEYS[key].__name__}", hint="correct the sidecar", code="CONFIG_TYPE")
    return {key: value for key, value in flat.items() if key not in job}, job


def _translated(sidecar: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The sidecar in lorad's own keys, dotted. Raises ConfigError also on what only a config file may hold unread."""
    from core.aliases import translate  # which reads the schema above

    found = translate(sidecar, where, (*JOB_KEYS, "level"))
    if lost := [became.alias for became in found.became if became.is_lost]:
        raise ConfigError(f"unknown key {lost[0]!r} in {where}", hint="take it out", code="CONFIG_UNKNOWN_KEY")
    return flatten(found.layer)


def merge_for_reload(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The layer of config.json that a running daemon can take over, and the keys that wait: key -> what is to be restarted.

    Args: before: the layer in force. after: the layer that was read anew. Raises ConfigError as `resolve` does.
    """
    held = {key: str(marks["restart"]) for key, marks in leaves() if "restart" in marks}
    old, new = _values(before), _values(after)
    waiting = {key: what for key, what in held.items() if old[key] != new[key]}
    flat = flatten(nest(flatten(after)))
    in_force = flatten(nest(flatten(before)))
    for key in waiting:
        flat.pop(key, None)
        if key in in_force:
            flat[key] = in_force[key]
    return nest(flat), waiting


def changed_keys(before: Config, after: Config) -> tuple[str, ...]:
    """The dotted keys whose values differ."""
    old, new = (flatten(config.model_dump(mode="json")) for config in (before, after))
    return tuple(key for key in sorted({*old, *new}) if old.get(key) != new.get(key))


def _values(layer: Mapping[str, Any]) -> dict[str, Any]:
    return flatten(resolve({"config.json": layer}).config.model_dump(mode="json"))


def identity_of(config: Config) -> dict[str, Any]:
    """The values that are part of a drop's identity."""
    values = flatten(config.model_dump(mode="json"))
    return {key: values[key] for key, marks in leaves() if marks.get("identity")}
