"""The stages of a training: which rows each takes, its steps, its own rate, and how its adapter layer joins the others. No tensors.

Steps count from 1 over all stages, so that checkpoints, resume points and progress need no second number. A stage with a
layer adds ranks of its own to the adapter: on top of the earlier layers, which stay as they are while it learns; or beside
them, on the base alone, and joined with them at its end. Layers lie one after another along the rank, so that the adapter
is one plain LoRA at every moment: A = [A1; A2], B = [B1, B2], and the scale is one for all.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.config import Config
from core.errors import ChildError
from core.exits import ChildExit
from core.recipe import StageConfig
from rendering.rows import Row
from trainer.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage: `rows` are places in the list of train rows; `ranks` are those that it trains, start and end."""

    name: str
    rows: Sequence[int] = field(repr=False)
    plan: Plan
    layer: str = ""
    beside: bool = False
    ranks: tuple[int, int]
    min_gain: float = 0.0
    patience: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedPlan:
    """The steps of all stages, one after another; it answers what `Plan` answers."""

    stages: tuple[Stage, ...]

    @property
    def total_steps(self) -> int:
        """Optimizer steps of all stages."""
        return sum(stage.plan.total_steps for stage in self.stages)

    @property
    def rank(self) -> int:
        """Rank of the whole adapter at the end."""
        return self.stages[-1].ranks[1]

    @property
    def checkpoint_steps(self) -> frozenset[int]:
        """Those of each stage; the last step of each is one."""
        return frozenset(before + step for before, stage in self.placed for step in stage.plan.checkpoint_steps)

    def stage_of(self, step: int) -> tuple[Stage, int]:
        """The stage of a step, and the steps before that stage."""
        before, stage = next(placed for placed in reversed(self.placed) if placed[0] < step)
        return stage, before

    def rate(self, step: int) -> float:
        """Learning rate of a step, by its stage."""
        stage, before = self.stage_of(step)
        return stage.plan.rate(step - before)

    def rows(self, step: int) -> list[int]:
        """Places of the rows of a step."""
        stage, before = self.stage_of(step)
        return [stage.rows[place] for place in stage.plan.rows(step - before)]

    @property
    def placed(self) -> list[tuple[int, Stage]]:
        """Each stage behind the number of steps before it."""
        before, found = 0, []
        for stage in self.stages:
            found.append((before, stage))
            before += stage.plan.total_steps
        return found


def staged_plan(config: Config, rows: Sequence[Row]) -> StagedPlan:
    """The plan of a training over `rows`; without stages in the config it is one stage over all of them, and no row is looked at.

    Raises ChildError BAD_DATA where a stage gets no row, BAD_SPEC where its layers cannot be one plain LoRA that the servers load.
    """
    if not config.stages:
        alone = Stage(name="all", rows=range(len(rows)), plan=Plan.of(config, len(rows)), ranks=(0, config.lora.r), patience=config.training.patience)
        return StagedPlan(stages=(alone,))
    left, made, rank = list(range(len(rows))), [], 0
    for stage in config.stages:
        mine = _taken(stage, left, rows, config.training.seed)
        taken = set(mine)
        left = [place for place in left if place not in taken]
        first, rank = (rank, rank + (stage.r or config.lora.r)) if stage.layer else (0, config.lora.r)
        made.append(_stage(stage, config, mine, (first, rank)))
    plan = StagedPlan(stages=tuple(made))
    if any(stage.layer for stage in plan.stages):
        _require_one_lora(config, plan.rank)
    return plan


def _require_one_lora(config: Config, rank: int) -> None:
    if config.method == "full" or config.lora.use_dora:
        what = "method full, which trains every weight" if config.method == "full" else "lora.use_dora, whose magnitudes belong to the whole adapter"
        raise ChildError(
            f"layers are ranks of one plain LoRA, and this training has {what}",
            hint="take the layers out of the stages, or train a plain LoRA",
            code="LAYERS_UNFIT",
            exit_code=ChildExit.BAD_SPEC,
        )
    if rank > config.serving.max_rank:
        raise ChildError(
            f"the layers of the stages have {rank} ranks together, and the servers load up to serving.max_rank = {config.serving.max_rank}",
            hint="give the layers smaller ranks (r of each stage)",
            code="LAYERS_TOO_LARGE",
            exit_code=ChildExit.BAD_SPEC,
        )


def _stage(stage: StageConfig, config: Config, mine: Sequence[int], ranks: tuple[int, int]) -> Stage:
    training = config.training.model_copy(update={"epochs": stage.epochs} if stage.epochs else {})
    own = config.model_copy(update={"training": training} | ({"learning_rate": stage.learning_rate} if stage.learning_rate else {}))
    return Stage(
        name=stage.name,
        rows=mine,
        plan=Plan.of(own, len(mine)),
        layer=stage.layer or "",
        beside=stage.beside,
        ranks=ranks,
        min_gain=stage.min_gain,
        patience=stage.patience or config.training.patience,
    )


def _taken(stage: StageConfig, left: Sequence[int], rows: Sequence[Row], seed: int) -> list[int]:
    """Of the places in `left` those that the stage takes; which ones a share takes follows from the seed and the row's place in its drop."""
    fitting = [place for place in left if _fits(rows[place].metadata, stage.where)]
    if stage.share:
        count = max(1, round(stage.share * len(fitting)))
        drawn = sorted(fitting, key=lambda place: hashlib.sha256(f"{seed}/{stage.name}/{rows[place].drop}/{rows[place].line}".encode()).digest())
        fitting = sorted(drawn[:count])
    if not fitting:
        raise ChildError(
            f"stage {stage.name!r} gets no row: {len(left)} rows were left, and none has metadata {dict(stage.where)}",
            hint="correct `where`, or the shares of the stages before it",
            code="STAGE_EMPTY",
            exit_code=ChildExit.BAD_DATA,
        )
    return fitting


def _fits(metadata: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    return all(metadata.get(key) in (wanted if isinstance(wanted, list) else [wanted]) for key, wanted in where.items())
