"""Settles the config of a training by its rows, its base and its device, and writes down what each value became and why.

`settings.json` in the run folder is that record: a person reads it through `lorad jobs show`, the report through
`store.runs.read_settings`.
"""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.config import Config
from core.errors import LoradError
from core.estimate import shape_of
from core.hyperparameters import SETTLED, DataFacts, Settled, kind_of, limit_of, settle
from core.tasks import TrainTask
from rendering.rows import Row
from store.bases import weights_folder
from store.durable import replace_file
from store.engines import choose_backend
from store.runs import SETTINGS, read_settings
from trainer.run import RunFolder

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a training runs on: cpu, cuda, mlx or stub, and the bytes of a GPU's own memory."""

    name: str = "cpu"
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """The rows of a training as they were read: those of the train split that are kept, and their tokens."""

    rows: Sequence[Row]
    num_dev: int
    lengths: Sequence[int] = ()  # tokens of each row; empty where nothing was tokenised


def settle_training(task: TrainTask, config: Config, encoded: Encoded, device: Device, run: RunFolder) -> Config:
    """The config that the training goes by. Writes settings.json into `run`, and warnings to the log."""
    asked = config.model_copy(update={"max_length": task.settings.get("max_length", config.max_length)})
    data = facts_of(task, config, encoded, device)
    settled = settle(asked, task.origins, data)
    for warning in settled.warnings:
        run.warn(warning)
    write_settings(run.root, settled, data, _backend(task, config), run.profile)
    return settled.config


def facts_of(task: TrainTask, config: Config, encoded: Encoded, device: Device) -> DataFacts:
    """What is known of rows, base and device. Reads the base's config.json."""
    described = described_model(task.base)
    objective = objective_of(config, encoded.rows)
    rank, alpha = shape_of_adapter(task.start)
    return DataFacts(
        num_rows=len(encoded.rows),
        kind=kind_of(config, {row.schema_id for row in encoded.rows}, objective),
        objective=objective,
        num_dev=encoded.num_dev,
        num_tokens=sum(encoded.lengths),
        longest=max(encoded.lengths, default=0),
        from_incumbent=bool(task.start),
        start_rank=rank,
        start_alpha=alpha,
        model_max_length=limit_of(described),
        shape=shape_of(described, weights_bytes(task.base)) if described else None,
        device=device.name,
        device_memory_bytes=device.memory_bytes,
    )


def objective_of(config: Config, rows: Sequence[Row]) -> str:
    """What most of the rows are learnt by."""
    if config.objective != "auto":
        return config.objective
    return max((count, name) for name, count in Counter(row.objective for row in rows).items())[1] if rows else "sft"


def described_model(base: str) -> dict[str, Any]:
    """The Hugging Face config of a sealed base; empty where there is none or it cannot be read."""
    if not base:
        return {}
    try:
        described = json.loads((weights_folder(Path(base)) / "config.json").read_bytes())
    except (LoradError, OSError, ValueError):
        return {}
    return described if isinstance(described, dict) else {}


def flat_rope(described: Mapping[str, Any]) -> dict[str, Any]:
    """The rope of a Hugging Face config as every reader before transformers 5 knows it: rope_theta and rope_scaling at the top.

    Those readers (mlx-lm's llama among them) pass over rope_parameters without a word and turn with a theta of 10,000.
    """
    rope = described.get("rope_parameters")
    if not isinstance(rope, Mapping) or "rope_theta" not in rope:
        return {}
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    is_plain = scaling.get("rope_type", "default") == "default"
    return {"rope_theta": rope["rope_theta"]} | ({} if is_plain else {"rope_scaling": scaling})


def shape_of_adapter(folder: str | None) -> tuple[int, int]:
    """(rank, alpha) of an adapter in PEFT layout; zeros where there is none or it does not say."""
    if not folder:
        return 0, 0
    try:
        told = json.loads(Path(folder, "adapter_config.json").read_bytes())
        return int(told["r"]), int(told["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0


def weights_bytes(base: str) -> int:
    """Bytes of the weights of a sealed base as they lie on the disk."""
    try:
        return sum(path.stat().st_size for path in weights_folder(Path(base)).glob("*.safetensors"))
    except (LoradError, OSError):
        return 0


def write_settings(folder: Path, settled: Settled, data: DataFacts, backend: Mapping[str, str], profile: Mapping[str, Any]) -> None:
    """Write settings.json: `values` {key: {value, origin, why}}, `warnings`, `data`, `backend` and `profile`. Whole or not at all."""
    tree = {"values": settled.record(), "warnings": list(settled.warnings), "data": asdict(data), "backend": dict(backend), "profile": dict(profile)}
    replace_file(folder / SETTINGS, json.dumps(tree, indent=1, ensure_ascii=False) + "\n")


def note_rate(folder: Path, rate: float, why: str) -> None:
    """Put the learning rate that was found by trial into settings.json."""
    tree = read_settings(folder)
    tree["values"]["learning_rate"] = {"value": rate, "origin": SETTLED, "why": why}
    replace_file(folder / SETTINGS, json.dumps(tree, indent=1, ensure_ascii=False) + "\n")


def _backend(task: TrainTask, config: Config) -> dict[str, str]:
    chosen = choose_backend(config)
    return {"name": task.backend, "why": chosen.why if chosen.name == task.backend else "the job was made for it"}
