"""What a training is going to take: memory, disk, time, and how sure that is. Pure.

Memory and disk follow from the shape of the base and the config (`core.devices`, `core.needs`). Time is learned: every
finished training of this machine leaves a `Ran`, and the next estimate is tokens / (tokens per s) of those like it, with
an interval from their spread. Without any, the speed is guessed from the arithmetic of the base, and said to be a guess.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import mean, median, stdev
from typing import Any

from core.config import Config
from core.devices import MIB, BaseShape, training_bytes
from core.needs import adapter_bytes, training_needs

LIKE = 20  # so many of the newest runs that are like the one to come are looked at
CONFIDENCE = 0.9
STUDENT = (6.31, 2.92, 2.35, 2.13, 2.02, 1.94, 1.89, 1.86, 1.83)  # Student's t, 90 % two-sided, 1 to 9 degrees of freedom; then 1.8
LEAST_SPREAD = 0.10  # of the interval to either side, in logarithms: two runs alike prove no more
SPREAD_OF_ONE = math.log(2)  # one earlier run alone
SPREAD_OF_OTHER_BASE = math.log(3)  # scaled from runs of another base on the same device
SPREAD_OF_GUESS = math.log(5)  # no run at all
FLOPS_PER_WEIGHT = 4  # of a token: forward, and backward through frozen weights, two each
CORE_FLOPS = {True: 110e9, False: 30e9}
"""Of one core, with bf16 instructions and without. Measured with the 135M base on 2 cores: 800 tokens/s alone is 215e9 a core,
400 beside a busy neighbour is 110e9; without bf16 it is a guess."""
GPU_FLOPS = 30e12  # a guess between a small card and a large one
LOAD_S = 12.0  # python, torch and a small base, before the first step; a guess until a run was measured


# ---------------------------------------------------------------- memory and disk


def shape_of(described: Mapping[str, Any], weights_bytes: int) -> BaseShape | None:
    """The shape of a base by its Hugging Face config; None where that does not say. Nested text configs are looked into."""
    inner = described.get("text_config")
    told = inner if isinstance(inner, Mapping) else described
    names = {"hidden": "hidden_size", "layers": "num_hidden_layers", "intermediate": "intermediate_size", "vocabulary": "vocab_size"}
    try:
        return BaseShape(weights_bytes=weights_bytes, **{name: int(told[key]) for name, key in names.items()})
    except (KeyError, TypeError, ValueError):
        return None


def estimate_memory_mb(shape: BaseShape, config: Config, *, gpu: bool, longest: int = 0) -> int:
    """MiB that one training takes at its peak, by estimate; the config is the job's own (micro_batch, max_length, lora.r).

    Args: longest: tokens of the longest row, where that is known; else max_length counts.
    """
    known = config.model_copy(update={"max_length": min(longest, config.max_length)}) if longest else config
    return math.ceil(training_bytes(shape, known, gpu=gpu) / MIB)


def estimate_disk_bytes(described: Mapping[str, Any], config: Config, rows_bytes: int = 0) -> int:
    """Bytes that one job writes, by estimate: checkpoints, resume points, the rows' compressed copy. 0 adapters for an unknown shape."""
    return training_needs(adapter_bytes(described, config.lora.r), config.training.checkpoints) + rows_bytes


def weights_of(shape: BaseShape) -> int:
    """Weights that every token is multiplied with: the linear layers of all blocks, and the head. Roughly: attention is counted as if square."""
    return shape.layers * (4 * shape.hidden**2 + 3 * shape.hidden * shape.intermediate) + shape.hidden * shape.vocabulary


# ---------------------------------------------------------------- time


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One finished training: a line of series/runs.jsonl. Measured values, and what had been expected before it ended."""

    at: datetime
    job: str
    backend: str
    base: str
    base_sha256: str
    device: str  # cpu, or the name of the GPU
    weights: int = 0  # that every token is multiplied with; 0: unknown
    rows: int
    tokens: int  # of this run, repeats over epochs counted
    steps: int
    seconds: float  # of the steps alone
    other_s: float  # loading, dev losses, checkpoints
    memory_mb: int  # most that it held: of the GPU where it ran on one, else of the machine
    expected_s: float | None = None
    expected_low_s: float | None = None
    expected_high_s: float | None = None
    expected_memory_mb: int | None = None

    @property
    def tokens_per_s(self) -> float:
        """Tokens of the steps per second of the steps; 0 where no time was measured."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def whole_s(self) -> float:
        """Seconds of the whole run: its steps, and loading, dev losses and checkpoints."""
        return self.seconds + self.other_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A training to come, as far as its time depends on it."""

    backend: str
    base_sha256: str
    device: str
    tokens: int
    weights: int = 0
    cores: int = 1
    has_bf16: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Seconds of a training, with the interval that holds 9 of 10 (of a guess: that is hoped to)."""

    seconds: float
    low_s: float
    high_s: float
    other_s: float  # of them: loading, dev losses, checkpoints
    tokens_per_s: float
    runs: int  # earlier runs that it is learned from
    is_guess: bool
    basis: str  # what it rests on, in words


def expect(ran: Sequence[Ran], wanted: Wanted) -> Expected:
    """How long a training takes, learned from the earlier ones (`ran`, oldest first) of the same base on the same device.

    Runs of another base on the device are scaled by their weights; without any the speed is guessed.
    """
    here = [run for run in ran if (run.backend, run.device) == (wanted.backend, wanted.device) and run.tokens_per_s > 0]
    like = [run for run in here if run.base_sha256 == wanted.base_sha256][-LIKE:]
    if like:
        rate, spread = _rate([math.log(run.tokens_per_s) for run in like])
        basis = f"learned from {len(like)} earlier {'run' if len(like) == 1 else 'runs'} of this base on this machine"
        return _expected(wanted.tokens, rate, spread, (median(run.other_s for run in like), len(like), basis))
    scaled = [math.log(run.tokens_per_s * run.weights / wanted.weights) for run in here if run.weights and wanted.weights][-LIKE:]
    if scaled:
        rate, spread = _rate(scaled)
        basis = f"a guess, scaled by size from {len(scaled)} earlier {'run' if len(scaled) == 1 else 'runs'} of another base on this machine"
        other_s = median(run.other_s for run in here[-LIKE:])
        return _expected(wanted.tokens, rate, max(spread, SPREAD_OF_OTHER_BASE), (other_s, 0, basis))
    return _guess(wanted)


def _rate(logs: Sequence[float]) -> tuple[float, float]:
    """Tokens per second, and half the width of the interval of one more run, in logarithms."""
    count = len(logs)
    if count == 1:
        return math.exp(logs[0]), SPREAD_OF_ONE
    student = STUDENT[count - 2] if count - 2 < len(STUDENT) else 1.8
    spread = student * stdev(logs) * math.sqrt(1 + 1 / count)
    return math.exp(mean(logs)), min(max(spread, LEAST_SPREAD), SPREAD_OF_GUESS)


def _guess(wanted: Wanted) -> Expected:
    if wanted.backend == "stub":
        basis = "a guess: the stub backend trains nothing, its steps take 20 ms"
        return _expected(wanted.tokens, 10_000.0, SPREAD_OF_GUESS, (1.0, 0, basis))
    is_cpu = wanted.device == "cpu"
    flops = CORE_FLOPS[wanted.has_bf16] * wanted.cores if is_cpu else GPU_FLOPS
    from_what = f"{wanted.cores} CPU cores {'with' if wanted.has_bf16 else 'without'} bf16" if is_cpu else wanted.device
    basis = f"a guess from the size of the base and {from_what}: no training has ended on this machine yet"
    rate = flops / (FLOPS_PER_WEIGHT * wanted.weights) if wanted.weights else 1_000.0
    return _expected(wanted.tokens, rate, SPREAD_OF_GUESS, (LOAD_S, 0, basis))


def _expected(tokens: int, rate: float, spread: float, rest: tuple[float, int, str]) -> Expected:
    other_s, runs, basis = rest
    seconds = tokens / rate
    return Expected(
        seconds=other_s + seconds,
        low_s=other_s / 2 + seconds / math.exp(spread),  # loading from a warm page cache takes half as long
        high_s=2 * other_s + seconds * math.exp(spread),
        other_s=other_s,
        tokens_per_s=rate,
        runs=runs,
        is_guess=runs == 0,
        basis=basis,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """How far the last estimates were off."""

    runs: int
    median_off: float  # |real / expected - 1|, the middle one
    inside: int  # how many ended within their interval
    memory_off: float | None = None  # of the memory, signed: 0.2 is 20 % more than expected


def record_of(ran: Sequence[Ran], last: int = 10) -> Record | None:
    """How far the newest estimates were off; None where no run had one that was learned."""
    judged = [run for run in ran if run.expected_s][-last:]
    if not judged:
        return None
    off = [abs(run.whole_s / run.expected_s - 1) for run in judged if run.expected_s]
    inside = sum((run.expected_low_s or 0) <= run.whole_s <= (run.expected_high_s or math.inf) for run in judged)
    memory = [run.memory_mb / run.expected_memory_mb - 1 for run in judged if run.expected_memory_mb and run.memory_mb]
    return Record(runs=len(judged), median_off=median(off), inside=inside, memory_off=median(memory) if memory else None)


def tokens_of_steps(tokens_of_rows: int, num_rows: int, total_rows: int) -> int:
    """Tokens that a training reads: `total_rows` rows (repeats counted, see trainer.plan) of `num_rows` with so many tokens together."""
    return round(tokens_of_rows * total_rows / num_rows) if num_rows else 0
