"""Does this box compute what the training box measured? Asked before a release is served.

`probe.jsonl` holds a few prompts with greedy tokens and their log-probabilities, of the base and of the adapter, as the
training box computed them. The same forwards are made here. How far this box is off on the base shows how different
its arithmetic is; the adapter may be off three times that, plus a floor.

A weak adapter lies within that allowance even where the engine leaves it out. So what it changes is compared too: adapter minus
base on the tokens that both say, there and here, as far as that stands out of the noise.
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
LEAST_SHARE = 0.5  # of the measured change that must be found here: between applied (1) and left out (0)
ERRORS = 6.0  # standard errors that the measured change must be worth: an adapter that is applied falls below the half in 1 of 700 at most


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

    Raises IntegrityError PROBE_DAMAGED; AdapterError PROBE_FAILED or ADAPTER_NOT_APPLIED, with the numbers.
    """
    lines = read_probe(folder)
    base = [engine.logprobs((), line.prompt_ids, line.base.ids) for line in lines]
    adapter = [engine.logprobs(only(release), line.prompt_ids, line.adapter.ids) for line in lines]
    here = [(plain, adapted) for plain, adapted in zip(base, adapter, strict=True) if plain is not None and adapted is not None]
    if len(here) < len(lines):
        return  # an engine without a model has no numbers to compare
    if any(line.made_up for line in lines):
        raise _damaged(folder, "its numbers are made up")
    off_base = [mine - theirs for line, (plain, _) in zip(lines, here, strict=True) for mine, theirs in zip(plain, line.base.logprobs, strict=True)]
    off_adapter = [mine - theirs for line, (_, adapted) in zip(lines, here, strict=True) for mine, theirs in zip(adapted, line.adapter.logprobs, strict=True)]
    d_base, d_adapter = (sum(map(abs, off)) / len(off) for off in (off_base, off_adapter))
    allowed = FACTOR * d_base + FLOOR
    if not (math.isfinite(d_base) and d_adapter <= allowed):  # NaN compares false
        raise AdapterError(
            f"release {release[:12]} answers differently here: {d_adapter:.4f} nats a token from the training box, allowed {allowed:.4f}"
            f" (the base is {d_base:.4f} off)",
            hint="compare torch, transformers and peft on both boxes; the release before it stays",
            code="PROBE_FAILED",
        )
    share = _share(_changes(lines, here), off_base)
    if share is not None and share < LEAST_SHARE:
        raise AdapterError(
            f"release {release[:12]} changes {share:.0%} here of what it changed on the training box: this engine does not apply it",
            hint="try another serving.engine; the release before it stays",
            code="ADAPTER_NOT_APPLIED",
        )


def _changes(lines: Sequence[ProbeLine], here: Sequence[tuple[Sequence[float], Sequence[float]]]) -> list[tuple[float, float]]:
    """Adapter minus base (nats), on the training box and here, of each token before which both had said the same, and of which both tell."""
    found = []
    for line, (plain, adapted) in zip(lines, here, strict=True):
        for place, (one, other) in enumerate(zip(line.base.ids, line.adapter.ids, strict=False)):
            if one != other:
                break
            found.append((line.adapter.logprobs[place] - line.base.logprobs[place], adapted[place] - plain[place]))
    return found


def _share(changes: Sequence[tuple[float, float]], off_base: Sequence[float]) -> float | None:
    """Which share of the adapter's change is found here (least squares through 0); None where it is not measurable.

    A token of base or adapter is off by s, the root mean square of `off_base`; then the share's standard error is
    sqrt(2) s / |change|, with the length of the change over all tokens.
    """
    power = sum(there * there for there, _ in changes)
    if not changes or math.sqrt(power / len(changes)) < FLOOR:
        return None
    noise = math.sqrt(2 * sum(off * off for off in off_base) / len(off_base))
    return sum(there * mine for there, mine in changes) / power if math.sqrt(power) >= ERRORS * noise else None


def _damaged(folder: Path, why: str) -> IntegrityError:
    return IntegrityError(f"{folder / PROBE}: {why}", hint="score and pack the checkpoint again", code="PROBE_DAMAGED")
