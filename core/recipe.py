"""The sections of the config schema that say what is trained and how. Each field's docstring is its help text.

A value that nobody set is a starting point: `core.hyperparameters` settles it by the size and kind of the data, and the
run's record says what it became and why.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from core.sections import IDENTITY, SIDECAR, Count, Section, Share, Words

StartFrom = Literal["auto", "base", "incumbent"]
Switch = Literal["auto", "on", "off"]
Layer = Literal["preference", "memory", "knowledge", "skill"]


class LoraConfig(Section):
    """The adapter's shape."""

    r: Annotated[int, Field(ge=1, le=512, json_schema_extra=SIDECAR)] = 16
    """Rank. Unset: 8 for style and preference, 16, or 32 for knowledge and skill with many rows."""
    alpha: Annotated[int, Field(ge=1, le=65_536, json_schema_extra=SIDECAR)] = 32
    """Scale: the adapter's output is multiplied by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1, json_schema_extra=SIDECAR)] = 0.0
    """Dropout on the adapter's input."""
    targets: Annotated[str, Field(json_schema_extra=SIDECAR)] = "all-linear"
    """Which linear layers get an adapter: all-linear, or names joined by commas."""
    use_rslora: Annotated[bool, Field(json_schema_extra=SIDECAR)] = False
    """Scale by alpha / sqrt(r) instead; meant for ranks over 64."""
    use_dora: Annotated[bool, Field(json_schema_extra=SIDECAR)] = False
    """Learn magnitude and direction apart (DoRA). Slower, and many serving engines refuse it."""


class TrainingConfig(Section):
    """How long and how training runs."""

    epochs: Annotated[float, Field(gt=0, le=10_000, json_schema_extra=SIDECAR)] = 2.0
    """Passes over the train split. Unset: 3 under 1,000 rows, 1 over 50,000, else 2."""
    max_steps: Annotated[int, Field(ge=0, le=1_000_000_000, json_schema_extra=SIDECAR)] = 0
    """Upper bound of optimizer steps; 0 means none."""
    micro_batch: Annotated[int, Field(ge=0, le=65_536, json_schema_extra=SIDECAR)] = 0
    """Most rows in one forward pass; 0 lets the trainer find it by memory. The effective batch stays batch_size."""
    packing: Annotated[bool, Field(json_schema_extra=SIDECAR)] = True
    """Rows lie one after another without padding, none seen by another; false puts one row into each place of a padded batch."""
    last_turn_only: Annotated[bool, Field(json_schema_extra=IDENTITY)] = False
    """Learn only the last assistant turn of each conversation."""
    corrections: Annotated[Literal["sft", "preference"], Field(json_schema_extra=IDENTITY)] = "sft"
    """Learn a correction as the right answer, or as the better one of a pair."""
    beta: Annotated[float, Field(gt=0, le=100, json_schema_extra=SIDECAR)] = 0.1
    """How strongly dpo, kto and orpo hold on to the reference (orpo: weight of the odds ratio)."""
    warmup_ratio: Annotated[Share, Field(json_schema_extra=SIDECAR)] = 0.05
    """Share of the steps over which the learning rate rises."""
    warmup_steps: Annotated[int, Field(ge=0, json_schema_extra=SIDECAR)] = 0
    """Steps over which the learning rate rises; 0 goes by warmup_ratio."""
    scheduler: Annotated[Literal["cosine", "linear", "constant"], Field(json_schema_extra=SIDECAR)] = "cosine"
    """Curve of the learning rate after the warm-up; cosine and linear end at 0."""
    optimizer: Annotated[Literal["auto", "adamw", "adamw_8bit"], Field(json_schema_extra=SIDECAR)] = "auto"
    """AdamW, or bitsandbytes' AdamW with 8-bit moments. auto: adamw_8bit on a GPU where bitsandbytes is installed."""
    weight_decay: Annotated[float, Field(ge=0, json_schema_extra=SIDECAR)] = 0.0
    """AdamW weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0, json_schema_extra=SIDECAR)] = 1.0
    """Gradients are clipped to this norm."""
    checkpoints: Annotated[int, Field(ge=1, le=20, json_schema_extra=SIDECAR)] = 3
    """Checkpoints kept for ranking, evenly spaced; the last step is always one."""
    patience: Annotated[int, Field(ge=0, le=20, json_schema_extra=SIDECAR)] = 0
    """Checkpoints in a row without a better dev loss after which training ends early; 0: never."""
    seed: Annotated[int, Field(ge=0, json_schema_extra=SIDECAR)] = 0
    """Seed of the row order and of the adapter's first values."""
    start: Annotated[StartFrom, Field()] = "auto"
    """From the base on all history, or from the incumbent adapter on the new rows and a replay of older ones. auto: by size."""
    replay_share: Annotated[Share, Field(json_schema_extra=SIDECAR)] = 0.05
    """Rows of earlier drops that a training from the incumbent repeats, as a share of its rows."""
    auto_rate: bool = False
    """Try three learning rates for a few steps and take the one with the best dev loss."""
    gradient_checkpointing: Switch = "auto"
    """Compute activations a second time instead of keeping them. auto: only where memory asks for it."""
    compile: Switch = "auto"
    """Compile the element-wise parts. auto: where a compiler is at hand and the training is long enough to gain."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of trainer children; 0 means all cores, or one fewer while serving runs on this machine."""
    warm: bool = True
    """Keep a trainer with its libraries loaded, so that a job begins within seconds."""
    boards: Words = ("tensorboard",)
    """Where the curves also go: tensorboard (files in the run folder), wandb, mlflow."""
    max_attempts: Count = 3
    """Crashes of a child after which its job fails (or, in ranking, is held)."""
    hang_factor: Annotated[float, Field(gt=1)] = 20.0
    """A child that is silent for so many times its median step is taken to hang (never under hang_s)."""
    hang_s: Annotated[float, Field(gt=0)] = 300.0
    """Least silence, in seconds, that is taken for a hang; before the first step, while it loads, twice this."""
    network: bool = False
    """Whether trainer children may reach the network; they need none."""
    max_overlong_share: Annotated[Share, Field(json_schema_extra=SIDECAR)] = 0.05
    """Share of rows over max_length above which the job fails instead of leaving them out."""

    @model_validator(mode="after")
    def _known_boards(self) -> "TrainingConfig":
        if strange := [name for name in self.boards if name not in ("tensorboard", "wandb", "mlflow")]:
            raise ValueError(f"unknown board {strange[0]!r}; known are tensorboard, wandb, mlflow")
        return self


class ProfileConfig(Section):
    """How rows are changed before they are learnt."""

    name: Annotated[str, Field(json_schema_extra=IDENTITY)] = "plain"
    """Name of the profile: plain, emoji_think, regime3, persona, or one of `profiles`."""
    options: Annotated[dict[str, Any], Field(json_schema_extra=IDENTITY)] = {}  # noqa: RUF012 - pydantic copies it
    """What the profile asks for, such as {"name": "Ada", "voice": "dry, exact"} of persona."""


class StageConfig(Section):
    """One stage of a training."""

    name: str
    """What it is called in the run's record."""
    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the rows that its filter lets pass and no earlier stage took; 0: all that are left."""
    where: dict[str, Any] = {}  # noqa: RUF012
    """Rows whose `metadata` has these values (a list: one of them)."""
    learning_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Peak learning rate; 0: that of the config."""
    epochs: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    """Passes; 0: those of the config."""
    layer: Layer | None = None
    """Train an adapter layer of this name of its own; without one the stages train one adapter after another."""
    beside: bool = False
    """Whether its layer starts beside the earlier ones (on the base alone) rather than on top of them."""
    r: Annotated[int, Field(ge=0, le=512)] = 0
    """Rank of its layer; 0: that of the config."""
    min_gain: float = 0.0
    """Success: how far the dev loss (nats per token) must fall against its start; less ends the training with what was reached."""
    patience: Annotated[int, Field(ge=0, le=20)] = 0
    """As training.patience, for this stage."""

    @model_validator(mode="after")
    def _only_layers_have_ranks(self) -> "StageConfig":
        if not self.layer and (self.r or self.beside):
            raise ValueError(f"stage {self.name!r} has r or beside and no layer; give it one: preference, memory, knowledge or skill")
        return self


class DistributedConfig(Section):
    """More than one GPU, more than one machine."""

    processes: Annotated[int, Field(ge=0, le=1024)] = 0
    """Trainer processes on this machine; 0: one for each GPU of the slot, and one where there is none."""
    shard_base: Switch = "auto"
    """Whether the base is split over the processes (FSDP2). auto: where it does not fit one GPU."""
    ray_address: str = ""
    """Address of a Ray cluster that runs the workers; empty: this machine alone."""
    workers: Count = 1
    """Ray workers."""


def _of_one_kind(stages: tuple[StageConfig, ...]) -> tuple[StageConfig, ...]:
    bare, layered = ([stage.name for stage in stages if bool(stage.layer) is kind] for kind in (False, True))
    if bare and layered:
        raise ValueError(f"stage {bare[0]!r} has no layer while {layered[0]!r} has one; give every stage a layer, or none")
    names = [stage.name for stage in stages]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise ValueError(f"two stages are called {twice!r}")
    return stages


Stages = Annotated[tuple[StageConfig, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value), AfterValidator(_of_one_kind)]
