"""Settles the values that nobody set, by the size and kind of the data and by what the machine holds. Pure.

A value that a person set stays as it is, except where it cannot work (rows longer than the base can read, a rank that the
servers refuse): then it is capped, and a warning says so. Theory: with the scale alpha / r, alpha 32 keeps the best
learning rate nearly free of the rank; that rate is about ten times the one of full fine-tuning; a preference objective
wants a tenth of it; and too few steps teach nothing, whatever the rate.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from core.config import Config, flatten, nest
from core.devices import MIB, BaseShape, training_bytes

Kind = Literal["", "style", "preference", "memory", "knowledge", "skill", "corrections"]
DEFAULT = "default"  # the origin of a value that nobody set
SETTLED = "settled"  # the origin of one that was scaled here

SMALL_RANK, RANK, LARGE_RANK = 8, 16, 32
MANY_ROWS = {"knowledge": 1_000, "skill": 1_000}  # from so many rows on their rank is the large one
MANY_ROWS_OF_ANY_KIND = 5_000
FEW_ROWS, PLENTY_OF_ROWS = 1_000, 50_000  # 3 epochs below the first, 1 above the second, else 2
TINY_CORRECTIONS = 200  # rows
RATE, RATE_ON_INCUMBENT, RATE_OF_CORRECTIONS = 2e-4, 1e-4, 5e-5
FULL_SHARE = 0.1  # of the rate of an adapter: what full fine-tuning takes
PREFERENCE_SHARE = {"dpo": 0.1, "kto": 0.1, "orpo": 0.25}  # of the rate of sft
AIM_STEPS, LEAST_STEPS = 100, 50
LEAST_BATCH = 4
MEMORY_SHARE = 0.9  # of a GPU's memory that an estimate may fill
RSLORA_FROM = 64

TRIAL_FACTORS = (1 / 3, 1.0, 3.0)  # of the settled rate: what auto_rate tries
TRIAL_SHARE, LEAST_TRIAL_STEPS, MOST_TRIAL_STEPS = 0.1, 5, 20  # of the whole training

LIMITS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")  # as families call it
KIND_OF_PROFILE: Mapping[str, Kind] = {"emoji_think": "style", "persona": "style", "regime3": "skill"}
CORRECTIONS = "correction_v1"

SHOWN = ("backend", "model_name", "model_path", "schema_id", "objective", "method", "batch_size", "learning_rate", "max_length")
SHOWN_SECTIONS = ("lora.", "training.", "profile.", "distributed.")
WHY = {
    "lora.dropout": "0: the fast path, and short trainings do not overfit by its want",
    "lora.targets": "all linear layers: attention alone learns less, even with as many weights",
    "lora.use_rslora": "off: it changes the size of each step; meant for ranks over 64",
    "lora.use_dora": "off: many servers refuse it",
    "training.scheduler": "cosine to 0 after the warm-up",
    "training.warmup_ratio": "5 % of the steps, at least 5 steps",
    "training.weight_decay": "0: an adapter is small",
    "training.micro_batch": "0: found by memory; the effective batch stays",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """What is known of the data, the base and the machine when values are settled."""

    num_rows: int  # of the train split, those left out not counted
    kind: Kind = ""  # empty: not known
    objective: str = "sft"  # sft, dpo, kto or orpo: what most of the rows are learnt by
    num_dev: int | None = None  # None: not known
    num_tokens: int = 0  # of these rows
    longest: int = 0  # tokens of the longest of them
    from_incumbent: bool = False
    start_rank: int = 0  # of the adapter that it goes on from; 0: none, or not known
    start_alpha: int = 0
    model_max_length: int = 0  # tokens that the base reads at most; 0: not known
    shape: BaseShape | None = None  # of the base with bf16 weights
    device: str = "cpu"  # cpu, cuda, mlx or stub
    device_memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Where a value comes from and why it is what it is."""

    value: Any
    origin: str  # default, config.json, sidecar, command line, or settled
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The config that a training goes by, each value's reason, and what a person should know."""

    config: Config
    reasons: Mapping[str, Reason]
    warnings: tuple[str, ...] = ()

    def record(self) -> dict[str, dict[str, Any]]:
        """Dotted key -> {"value", "origin", "why"}, as settings.json holds it."""
        return {key: {"value": reason.value, "origin": reason.origin, "why": reason.why} for key, reason in self.reasons.items()}


@dataclass(slots=True)
class _Settling:
    """The values while they are settled, one rule after another."""

    values: dict[str, Any]
    origins: Mapping[str, str]
    data: DataFacts
    reasons: dict[str, Reason] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def config(self) -> Config:
        return Config.model_validate(nest(self.values))

    def is_open(self, key: str) -> bool:
        """Whether nobody set it. A key without an origin belongs to a task of an older lorad, and stays."""
        return self.origins.get(key) == DEFAULT

    def is_set(self, key: str) -> bool:
        return self.origins.get(key, DEFAULT) != DEFAULT

    def put(self, key: str, value: Any, why: str) -> None:
        self.values[key] = value
        self.reasons[key] = Reason(value=value, origin=SETTLED, why=why)


def settle(config: Config, origins: Mapping[str, str], data: DataFacts) -> Settled:
    """The config with every open value settled, the reason of each value, and warnings.

    Args: origins: dotted key -> where its value comes from, as `core.config.Resolved` has it; only keys of origin
    "default" are scaled. The same arguments give the same answer, so that a resumed training settles alike.
    """
    work = _Settling(flatten(config.model_dump(mode="json")), origins, data)
    for rule in RULES:
        rule(work)
    warnings = [*work.warnings, *_without_effect(work)]
    return Settled(config=work.config, reasons=_reasons(work), warnings=tuple(warnings))


def kind_of(config: Config, schemas: Collection[str], objective: str) -> Kind:
    """Of which kind the data is, as far as layers, the schemas of its rows, objective and profile tell; empty: nothing tells."""
    layers = {stage.layer for stage in config.stages}
    if len(layers) == 1 and (layer := layers.pop()):
        return layer
    if set(schemas) == {CORRECTIONS}:
        return "corrections"
    return "preference" if objective in ("dpo", "kto", "orpo") else KIND_OF_PROFILE.get(config.profile.name, "")


def limit_of(described: Mapping[str, Any]) -> int:
    """Tokens that a model reads at most, by its Hugging Face config (that of its text tower, if it has one); 0: it does not say."""
    inner = described.get("text_config")
    told = inner if isinstance(inner, Mapping) else described
    return next((told[key] for key in LIMITS if isinstance(told.get(key), int) and told[key] > 0), 0)


def capped_length(max_length: int, model_max_length: int) -> int:
    """The longest row that is read: what was asked for, and no more than the base can read (0: not known). Training and scoring share it."""
    return min(max_length, model_max_length) if model_max_length else max_length


def steps_of(num_rows: int, epochs: float, batch_size: int, max_steps: int = 0) -> int:
    """Optimizer steps of so many rows, at least 1."""
    steps = math.ceil(max(1, math.ceil(round(num_rows * epochs, 6))) / batch_size)
    return min(steps, max_steps) if max_steps else steps


def trial_steps(config: Config, num_rows: int) -> int:
    """Steps of each trial of auto_rate: a tenth of the training, 5 to 20, never more than all."""
    steps = steps_of(num_rows, config.training.epochs, config.batch_size, config.training.max_steps)
    return min(steps, max(LEAST_TRIAL_STEPS, min(MOST_TRIAL_STEPS, round(TRIAL_SHARE * steps))))


# ---------------------------------------------------------------- the rules, in the order in which they build on one another


def _length(work: _Settling) -> None:
    asked, limit = work.values["max_length"], work.data.model_max_length
    if (found := capped_length(asked, limit)) < asked:
        work.put("max_length", found, f"the base reads at most {limit:,} tokens")
        if work.is_set("max_length"):
            work.warnings.append(f"max_length {asked:,} is more than the base reads: {limit:,} tokens count")


def _objective(work: _Settling) -> None:
    if work.values["objective"] == "auto":  # it stays so: a job may hold rows of several kinds
        work.put("objective", "auto", f"each row by its schema; here {work.data.objective}")


def _rank(work: _Settling) -> None:
    if work.data.start_rank:
        _keep_shape(work, "lora.r", work.data.start_rank)
        return
    if work.is_open("lora.r"):
        work.put("lora.r", *rank_for(work.data.kind, work.data.num_rows))
    rank, most = work.values["lora.r"], work.values["serving.max_rank"]
    layers = [stage["r"] for stage in work.values["stages"] if stage["layer"]]
    if shared := layers.count(0):  # layers that take this rank; the servers load the sum of all
        most = max(1, (most - sum(layers)) // shared)
    if rank > most:
        work.put("lora.r", most, f"the servers load ranks up to serving.max_rank = {work.values['serving.max_rank']}")
        if work.is_set("lora.r"):
            work.warnings.append(f"lora.r {rank} is more than serving.max_rank = {work.values['serving.max_rank']} allows: {most} counts")


def _keep_shape(work: _Settling, key: str, value: int) -> None:
    """An adapter that is trained on keeps its shape, whatever was asked for."""
    if work.is_set(key) and work.values[key] != value:
        work.warnings.append(f"{key} {work.values[key]} has no effect: the adapter that it goes on from has {value}")
    work.put(key, value, "that of the adapter that it goes on from")


def rank_for(kind: Kind, num_rows: int) -> tuple[int, str]:
    """(rank, why) for data of a kind and a size."""
    if kind in ("style", "preference"):
        return SMALL_RANK, f"{kind} needs few directions"
    if num_rows >= (many := MANY_ROWS.get(kind, MANY_ROWS_OF_ANY_KIND)):
        return LARGE_RANK, f"{num_rows:,} rows{f' of {kind}' if kind else ''}: from {many:,} on there is more to hold"
    return RANK, f"{num_rows:,} rows{f' of {kind}' if kind else ''} fit well into it"


def _alpha(work: _Settling) -> None:
    if work.data.start_alpha:
        _keep_shape(work, "lora.alpha", work.data.start_alpha)
    elif work.is_open("lora.alpha"):
        layers = [stage["r"] or work.values["lora.r"] for stage in work.values["stages"] if stage["layer"]]
        rank = sum(layers) or work.values["lora.r"]  # layers are one adapter with one scale
        why = "twice the rank" if rank < RANK else "32 from rank 16 on: with the scale alpha / r the best learning rate stays"
        work.put("lora.alpha", alpha_for(rank), why)


def alpha_for(rank: int) -> int:
    """Twice the rank up to rank 16, then 32."""
    return min(2 * rank, 2 * RANK)


def _epochs(work: _Settling) -> None:
    if work.is_open("training.epochs"):
        rows = work.data.num_rows
        epochs = 3.0 if rows < FEW_ROWS else 1.0 if rows > PLENTY_OF_ROWS else 2.0
        bound = f"under {FEW_ROWS:,}" if rows < FEW_ROWS else f"over {PLENTY_OF_ROWS:,}" if rows > PLENTY_OF_ROWS else f"{FEW_ROWS:,} to {PLENTY_OF_ROWS:,}"
        work.put("training.epochs", epochs, f"{rows:,} rows: {epochs:g} for {bound}")


def _batch(work: _Settling) -> None:
    """A smaller batch where the rows would make too few steps to learn from."""
    if not work.is_open("batch_size") or work.values["training.max_steps"]:  # so few steps were asked for
        return
    asked = batch = work.values["batch_size"]
    while batch // 2 >= LEAST_BATCH and steps_of(work.data.num_rows, work.values["training.epochs"], batch) < AIM_STEPS:
        batch //= 2
    if batch < asked:
        work.put("batch_size", batch, f"{asked} rows a step would make fewer than {AIM_STEPS} steps")


def _method(work: _Settling) -> None:
    if work.values["method"] == "auto":
        work.put("method", *method_for(work.config, work.data))


def method_for(config: Config, data: DataFacts) -> tuple[str, str]:
    """(method, why): qlora on a GPU where a bf16 base and its activations do not fit by estimate, else lora."""
    if data.device != "cuda":
        return "lora", f"on {data.device} the base stays as it is"
    if data.shape is None or not data.device_memory_bytes:
        return "lora", "neither the size of the base nor the GPU's memory is known"
    need, have = training_bytes(data.shape, config, gpu=True), int(data.device_memory_bytes * MEMORY_SHARE)
    words = f"about {need // MIB:,} MiB with the base in bf16, {have // MIB:,} MiB of the GPU may be filled"
    return ("qlora", f"{words}: nf4 with double quantisation") if need > have else ("lora", f"{words}: it fits")


def _rate(work: _Settling) -> None:
    if work.is_open("learning_rate"):
        work.put("learning_rate", *rate_for(work.config, work.data))


def rate_for(config: Config, data: DataFacts) -> tuple[float, str]:
    """(peak learning rate, why) of a settled method."""
    rate, why = RATE, "a new adapter"
    if data.from_incumbent:
        rate, why = RATE_ON_INCUMBENT, "on from an adapter that already knows something"
    if data.kind == "corrections" and data.num_rows < TINY_CORRECTIONS:
        rate, why = RATE_OF_CORRECTIONS, f"{data.num_rows:,} corrections: a few rows must not overwrite the rest"
    if share := PREFERENCE_SHARE.get(data.objective):
        rate, why = rate * share, f"{why}; {data.objective} takes {share:g} of the rate of sft"
    if config.method == "full":
        rate, why = rate * FULL_SHARE, f"{why}; every weight moves: {FULL_SHARE:g} of an adapter's rate"
    return float(f"{rate:.6g}"), why


RULES: tuple[Callable[[_Settling], None], ...] = (_length, _objective, _rank, _alpha, _epochs, _batch, _method, _rate)


# ---------------------------------------------------------------- what a person should know


def _without_effect(work: _Settling) -> Iterator[str]:
    """What was asked for and changes nothing, or works against itself."""
    config, data = work.config, work.data
    yield from _too_few_steps(config, data)
    if data.objective == "sft" and work.is_set("training.beta"):
        yield "training.beta has no effect with objective sft"
    if work.is_set("training.warmup_ratio") and config.training.warmup_steps:
        yield f"training.warmup_ratio has no effect: training.warmup_steps = {config.training.warmup_steps} counts"
    if work.is_set("training.micro_batch") and config.training.micro_batch >= config.batch_size:
        yield f"training.micro_batch {config.training.micro_batch} has no effect: the effective batch is {config.batch_size}"
    if work.is_set("training.replay_share") and not data.from_incumbent:
        yield "training.replay_share has no effect: the training starts from the base, on all history"
    if work.is_set("training.corrections") and config.training.corrections == "preference" and data.kind != "corrections":
        yield "training.corrections has no effect: no row is a correction"
    if config.training.auto_rate and data.num_dev == 0:
        yield "training.auto_rate has no effect: there is no dev row to compare the rates by"
    if config.training.patience and (data.num_dev == 0 or config.training.patience >= config.training.checkpoints):
        reason = "there is no dev row" if data.num_dev == 0 else f"there are {config.training.checkpoints} checkpoints"
        yield f"training.patience {config.training.patience} has no effect: {reason}"
    for stage in config.stages:
        if (stage.min_gain or stage.patience) and data.num_dev == 0:
            yield f"stage {stage.name!r}: min_gain and patience have no effect: there is no dev row"
        elif stage.patience >= config.training.checkpoints:
            yield f"stage {stage.name!r}: patience {stage.patience} has no effect: there are {config.training.checkpoints} checkpoints"
    yield from _about_lora(work, config)


def _too_few_steps(config: Config, data: DataFacts) -> Iterator[str]:
    training = config.training
    steps = steps_of(data.num_rows, training.epochs, config.batch_size, training.max_steps)
    if steps < LEAST_STEPS:
        more = "drop more rows, raise training.epochs or lower batch_size"
        yield f"{steps} steps are few (aim at {AIM_STEPS} or more): rate and warm-up hardly matter so soon; {more}"


def _about_lora(work: _Settling, config: Config) -> Iterator[str]:
    if config.method == "full":
        for key in sorted(work.origins):
            if key.startswith("lora.") and work.is_set(key):
                yield f"{key} has no effect with method full"
        return
    if config.lora.use_dora:
        yield "lora.use_dora: vLLM and other servers refuse DoRA adapters; training is slower"
    if config.lora.use_rslora and config.lora.r <= RSLORA_FROM:
        scale = math.sqrt(config.lora.r)
        advice = f"lower learning_rate, or leave it to ranks over {RSLORA_FROM}"
        yield f"lora.use_rslora at rank {config.lora.r} makes each step {scale:.3g} times as large: {advice}"


def _reasons(work: _Settling) -> dict[str, Reason]:
    """Of every value that a training goes by, in the order of the schema."""
    found = {}
    for key, value in work.values.items():
        if key not in SHOWN and not key.startswith(SHOWN_SECTIONS):
            continue
        origin = work.origins.get(key, "")
        why = WHY.get(key, "lorad's default") if origin == DEFAULT else f"set by {origin}" if origin else "as the job froze it"
        found[key] = work.reasons.get(key) or Reason(value=value, origin=origin or "frozen", why=why)
    return found
