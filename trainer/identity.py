"""What a training is, in a form that lies in a resume point: so that another one is told from it, and the difference in words."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.config import Config
from core.tasks import TrainTask
from store.bases import read_base
from store.seals import hash_file

WHOLE = ("batch_size", "learning_rate", "max_length", "objective", "method", "lora", "training", "profile", "stages")
NO_MATTER = frozenset(
    f"training.{key}"
    for key in ("threads", "micro_batch", "max_attempts", "hang_factor", "hang_s", "network", "max_overlong_share", "warm", "boards", "start", "auto_rate")
)
"""Keys that change no step, or whose effect is named elsewhere: over-long rows by the rows, the start by its weights, a tried rate by its result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Base, rows and settings that the steps of a training follow from. Equal identities make the same steps."""

    base: str  # SHA-256 of the base's original bytes
    start: str | None  # SHA-256 of the weights that it goes on from
    drops: Mapping[str, str]  # id -> SHA-256
    rows: str  # SHA-256 over drop and line of every row that is trained on, in order
    num_rows: int
    settings: Mapping[str, Any]  # dotted key -> value

    @classmethod
    def of(cls, task: TrainTask, config: Config, rows_sha256: str, num_rows: int) -> "Identity":
        """The identity of a task on its settled config. Reads base.json and the adapter that the task starts from."""
        values = _flat(config.model_dump(mode="json", include=set(WHOLE)))
        return cls(
            base=read_base(Path(task.base)).source_sha256,
            start=_start_sha256(Path(task.start)) if task.start else None,
            drops={source.drop: source.sha256 for source in task.rows},
            rows=rows_sha256,
            num_rows=num_rows,
            settings={key: value for key, value in values if key not in NO_MATTER} | _own_profile(config),
        )


def differences(before: Identity, now: Identity) -> list[str]:
    """What is other now than it was, one clause each, with both values; empty for the same training."""
    found = []
    if before.base != now.base:
        found.append(f"the base was {before.base[:12]} and is {now.base[:12]} (SHA-256)")
    if before.start != now.start:
        found.append("it started from another adapter" if before.start and now.start else "one started from an adapter, the other from the base")
    for drop in [*before.drops, *(drop for drop in now.drops if drop not in before.drops)]:
        old, new = before.drops.get(drop), now.drops.get(drop)
        if old != new:
            found.append(f"drop {drop!r} {'was not there before' if old is None else 'is no longer there' if new is None else 'has other bytes'}")
    if before.rows != now.rows and dict(before.drops) == dict(now.drops):
        found.append(f"other rows of the same drops are trained on ({before.num_rows} before, {now.num_rows} now)")
    for key in [*before.settings, *(key for key in now.settings if key not in before.settings)]:
        old, new = before.settings.get(key), now.settings.get(key)
        if old != new:
            found.append(f"{key} was {old!r} and is {new!r}")
    return found


def names_sha256(names: Iterator[tuple[str, int]]) -> str:
    """One hash over drop and line of rows in order."""
    digest = hashlib.sha256()
    for drop, line in names:
        digest.update(f"{drop}\0{line}\n".encode())
    return digest.hexdigest()


def _flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _own_profile(config: Config) -> dict[str, str]:
    path = config.profiles.get(config.profile.name)
    return {"profile.file": hash_file(Path(path))} if path else {}


def _start_sha256(folder: Path) -> str:
    return "+".join(hash_file(path) for path in sorted(folder.glob("*.safetensors")))
