"""Does this box compute what the training box measured? Asked before a release is served.

`probe.jsonl` holds a few prompts with greedy tokens and their log-probabilities, of the base and of the adapter, as the
training box computed them. The same forwards are made here. How far this box is off on the base shows how different
its arithmetic is; the adapter may be off three times that, plus a floor.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import IntegrityError
from serving.engines.port import AdapterError, Engine, only
from store.codec import parse

PROBE = "probe.jsonl"
FACTOR = 3.0
FLOOR = 0.02  # nats


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Greedy tokens of one model and the log-probability of each (nats)."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeLine:
    """One prompt of the probe. `made_up`: no model computed it."""

    prompt: str
    prompt_ids: tuple[int, ...]
    base: Side
    adapter: Side
    made_up: bool = False


def read_probe(folder: Path) -> list[ProbeLine]:
    """The probe of a release. Raises IntegrityError PROBE_DAMAGED."""
    try:
        lines = [parse(ProbeLine, line) for line in (folder / PROBE).read_bytes().splitlines()]
    except (OSError, ValueError) as error:
        raise _damaged(folder, str(error)) from None
    if not lines:
        raise _damaged(folder, "it is empty")
    for number, line in enumerate(lines, 1):
        for side in (line.base, line.adapter):
            if not side.ids or len(side.ids) != len(side.logprobs) or not line.prompt_ids or not all(map(math.isfinite, side.logprobs)):
                raise _damaged(folder, f"line {number} has {len(side.ids)} tokens and {len(side.logprobs)} finite numbers")
    return lines


def probe(engine: Engine, release: str, folder: Path) -> None:
    """Compare a loaded release with its probe; returns where it passes. Waits for its turns on the engine's thread.

    Raises IntegrityError PROBE_DAMAGED; AdapterError PROBE_FAILED with the numbers.
    """
    lines = read_probe(folder)
    d_base = _distance(engine, None, [(line.prompt_ids, line.base) for line in lines])
    d_adapter = _distance(engine, release, [(line.prompt_ids, line.adapter) for line in lines])
    if d_base is None or d_adapter is None:
        return  # an engine without a model has no numbers to compare
    if any(line.made_up for line in lines):
        raise _damaged(folder, "its numbers are made up")
    allowed = FACTOR * d_base + FLOOR
    if not (math.isfinite(d_base) and d_adapter <= allowed):  # NaN compares false
        raise AdapterError(
            f"release {release[:12]} answers differently here: {d_adapter:.4f} nats a token from the training box, allowed {allowed:.4f}"
            f" (the base is {d_base:.4f} off)",
            hint="compare torch, transformers and peft on both boxes; the release before it stays",
            code="PROBE_FAILED",
        )


def _distance(engine: Engine, release: str | None, sides: Sequence[tuple[Sequence[int], Side]]) -> float | None:
    """Mean absolute difference a token, in nats."""
    total, count = 0.0, 0
    for prompt_ids, side in sides:
        here = engine.logprobs(only(release), prompt_ids, side.ids)
        if here is None:
            return None
        total += sum(abs(mine - theirs) for mine, theirs in zip(here, side.logprobs, strict=True))
        count += len(here)
    return total / count


def _damaged(folder: Path, why: str) -> IntegrityError:
    return IntegrityError(f"{folder / PROBE}: {why}", hint="score and pack the checkpoint again", code="PROBE_DAMAGED")
