"""The one config schema. Strict: an unknown key is an error that names the nearest known key.

Each field's docstring is its help text. A field marked SIDECAR may be set by whoever drops a file; a field marked
IDENTITY changes rows, row weights or objective, so that the same bytes under another value are another drop.
"""

import difflib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from core.errors import ConfigError, UsageError
from core.names import DEFAULT_BASE, DEFAULT_HOME, is_part, parse_adapter

SIDECAR = {"sidecar": True}
IDENTITY = {"sidecar": True, "identity": True}
ORIGINS = ("default", "config.json", "sidecar", "command line")
PUBLIC_HINT = "set serving.api_keys_file to a file with one key a line, or serve on 127.0.0.1"

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Words = Annotated[tuple[str, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]
LevelName = Literal["quick", "standard", "deep"]


class Section(BaseModel):
    """Base of all sections: no unknown keys, no silent coercion of text to numbers, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, strict=True)


class LoraConfig(Section):
    """The adapter's shape."""

    r: Annotated[int, Field(ge=1, le=512, json_schema_extra=SIDECAR)] = 16
    """Rank."""
    alpha: Annotated[int, Field(ge=1, json_schema_extra=SIDECAR)] = 32
    """Scale: the adapter's output is multiplied by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1, json_schema_extra=SIDECAR)] = 0.0
    """Dropout on the adapter's input."""
    targets: Annotated[str, Field(json_schema_extra=SIDECAR)] = "all-linear"
    """Which linear layers get an adapter: all-linear, or names joined by commas."""


class TrainingConfig(Section):
    """How long and how training runs."""

    epochs: Annotated[float, Field(gt=0, json_schema_extra=SIDECAR)] = 2.0
    """Passes over the train split."""
    max_steps: Annotated[int, Field(ge=0, json_schema_extra=SIDECAR)] = 0
    """Upper bound of optimizer steps; 0 means none."""
    micro_batch: Annotated[int, Field(ge=0, json_schema_extra=SIDECAR)] = 0
    """Rows in one forward pass; 0 lets the trainer choose by tokens. The effective batch stays batch_size."""
    warmup_ratio: Annotated[Share, Field(json_schema_extra=SIDECAR)] = 0.05
    """Share of the steps over which the learning rate rises."""
    weight_decay: Annotated[float, Field(ge=0, json_schema_extra=SIDECAR)] = 0.0
    """AdamW weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0, json_schema_extra=SIDECAR)] = 1.0
    """Gradients are clipped to this norm."""
    checkpoints: Annotated[int, Field(ge=1, le=20, json_schema_extra=SIDECAR)] = 3
    """Checkpoints kept for ranking, evenly spaced; the last step is always one."""
    seed: Annotated[int, Field(ge=0, json_schema_extra=SIDECAR)] = 0
    """Seed of the row order and of the adapter's first values."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of trainer children; 0 means all cores."""
    max_attempts: Count = 3
    """Crashes of a child after which its job fails (or, in ranking, is held)."""
    max_overlong_share: Annotated[Share, Field(json_schema_extra=SIDECAR)] = 0.05
    """Share of rows over max_length above which the job fails instead of leaving them out."""


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


class RankingConfig(Section):
    """What counts as better."""

    resamples: Annotated[int, Field(ge=100)] = 10_000
    """Bootstrap resamples."""
    margin: Annotated[float, Field(ge=0)] = 0.02
    """How much worse (nats per token) a candidate may be on earlier drops' rows and still count as not worse."""
    min_gate_groups: Count = 30
    """Fewer gate groups of this drop than this are too weak to judge by: the job is held."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the resamples."""


class TargetConfig(Section):
    """One inference box."""

    name: str
    """Name of the target: a folder under targets/."""
    kind: Literal["local"] = "local"
    """How it is reached."""
    path: str = ""
    """Folder on the box that serving owns; a relative path starts at the config's folder."""
    canary: bool = False
    """Whether this target is asked first."""

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not is_part(value):
            raise ValueError("use a-z, 0-9, '.', '_', '-'")
        return value


class DeployConfig(Section):
    """Where releases go."""

    targets: tuple[TargetConfig, ...] = ()
    """Inference boxes; empty means one local target at serving.home."""

    @field_validator("targets", mode="before")
    @classmethod
    def _tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value


class ServingConfig(Section):
    """The serving process."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8765
    """Port to listen on."""
    home: str = ""
    """Folder that serving owns; empty means <home>/serving."""
    trust: str = ""
    """Folder with release.pub, the public key that releases and wishes are signed with; empty means <home>/keys."""
    api_keys_file: str = ""
    """File with one API key a line; needed to listen on a public address."""
    max_new_tokens: Count = 256
    """Tokens of an answer where the request names no limit."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads; 0 means all cores."""

    @model_validator(mode="after")
    def _public_needs_keys(self) -> "ServingConfig":
        if self.host not in ("127.0.0.1", "::1", "localhost") and not self.api_keys_file:
            raise ValueError(f"host {self.host!r} is a public address and no API keys are set; {PUBLIC_HINT}")
        return self


class Config(Section):
    """Everything that config.json may say."""

    home: str = DEFAULT_HOME
    """Folder of lorad's state; a relative path starts at the config's folder."""
    models_dir: str = ""
    """Folder of base models; empty means lorad/models in the user's cache."""
    model_name: str = DEFAULT_BASE
    """Base model by name."""
    model_path: str = ""
    """Base model as a local Hugging Face folder; wins over model_name."""
    backend: Literal["auto", "peft", "stub"] = "auto"
    """Which trainer runs."""
    allow_stub: bool = False
    """Whether results of the stub backend may be promoted."""
    schema_id: Annotated[str, Field(json_schema_extra=IDENTITY)] = "chat_sft_v1"
    """Schema of the rows where the sidecar names none."""
    columns: Annotated[Words, Field(json_schema_extra=SIDECAR)] = ()
    """Extra columns of the rows that are passed through and never looked at."""
    specs: dict[str, str] = {}
    """Your own schemas: {"id": "specs/mine.json"}; a relative path starts at the config's folder."""
    objective: Annotated[Literal["auto", "sft"], Field(json_schema_extra=IDENTITY)] = "auto"
    """What is optimised."""
    method: Annotated[Literal["auto", "lora"], Field(json_schema_extra=SIDECAR)] = "auto"
    """What is trained."""
    batch_size: Annotated[int, Field(ge=1, json_schema_extra=SIDECAR)] = 16
    """Effective batch: rows behind one optimizer step."""
    learning_rate: Annotated[float, Field(gt=0, lt=1, json_schema_extra=SIDECAR)] = 2e-4
    """Peak learning rate."""
    max_length: Annotated[int, Field(ge=8, json_schema_extra=IDENTITY)] = 1024
    """Longest row in tokens; longer rows are left out and counted."""
    slots: Annotated[int, Field(ge=1, le=1)] = 1
    """Jobs that train at once."""
    lora: LoraConfig = LoraConfig()
    training: TrainingConfig = TrainingConfig()
    validation: ValidationConfig = ValidationConfig()
    ranking: RankingConfig = RankingConfig()
    deploy: DeployConfig = DeployConfig()
    serving: ServingConfig = ServingConfig()


JOB_KEYS: dict[str, type] = {"priority": int, "notes": str, "again": bool, "source": str}  # sidecar keys that are not config


def leaves(model: type[Section] = Config, prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every dotted key of the schema with its marks, for example ("lora.r", {"sidecar": True})."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from leaves(kind, f"{prefix}{name}.")
        else:
            extra = field.json_schema_extra
            yield f"{prefix}{name}", dict(extra) if isinstance(extra, dict) else {}


@cache
def _mappings() -> frozenset[str]:
    """The dotted keys whose values are mappings: what stands below them are names, not keys."""
    return frozenset(key for key, kind in _kinds() if get_origin(kind) is dict)


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
    """`did you mean 'x'?`, or an empty text where nothing is near."""
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
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        shown = "" if isinstance(problem["input"], dict) else f" = {problem['input']!r}"
        lines.append(f"{key}{shown} ({origins.get(key, 'config.json')}): {problem['msg'].removeprefix('Value error, ')}")
    return ConfigError("; ".join(lines), hint="correct the value; docs/user-guide.md lists every key with its meaning", code="CONFIG_VALUE")


def sidecar_layer(sidecar: Mapping[str, Any], where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a sidecar into config values (dotted) and job keys. Raises ConfigError on a key that a sidecar may not set."""
    flat = flatten(sidecar)
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
    for key, value in job.items():
        if type(value) is not JOB_KEYS[key]:
            raise ConfigError(f"{where}: {key} = {value!r} is not a {JOB_KEYS[key].__name__}", hint="correct the sidecar", code="CONFIG_TYPE")
    return {key: value for key, value in flat.items() if key not in job}, job


def identity_of(config: Config) -> dict[str, Any]:
    """The values that are part of a drop's identity."""
    values = flatten(config.model_dump(mode="json"))
    return {key: values[key] for key, marks in leaves() if marks.get("identity")}
