"""`lorad models recommend`: which base fits this device, its memory and the data. The table of bases is `cli/bases.json`; no network."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import click

from cli.prospect import Counter, device_here, read_file
from cli.setting import Asked, target_of
from core.config import Config
from core.estimate import Expected, Ran, Wanted, estimate_memory_mb, expect, shape_of, tokens_of_steps, weights_of
from core.splits import held_out_groups

TABLE = Path(__file__).with_name("bases.json")
NIGHT_S = 8 * 3600.0  # a training should be done by the morning
SHARE_OF_MEMORY = 0.85  # of all of it: the estimate is right to about a third, and other programs live there too
GOOD_ENOUGH = 0.7  # a base on the fast layout is taken before one up to so much larger on the general one
BANDWIDTH = {"cpu": 15e9, "gpu": 500e9}  # bytes a second from memory, guesses for a small CPU and a middling card
SLOWEST_TOKEN_S = 0.12  # of an answer: slower than a person reads; each token reads every weight once
ASSUMED_ROWS, ASSUMED_TOKENS, ASSUMED_LONGEST = 1_000, 300, 600
MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What is to be trained on."""

    source: str
    train_rows: int
    tokens: int  # of them
    longest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The device."""

    name: str  # cpu, or the GPU's
    total_mb: int
    free_mb: int
    cores: int
    has_bf16: bool

    @property
    def is_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.name != "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One base on this device. `why_not` is empty where nothing speaks against it."""

    name: str
    source: str
    licence: str
    terms: str  # what its licence asks for; empty for a free one
    context: int
    parameters_m: float
    memory_mb: int
    seconds: float
    low_s: float
    high_s: float
    time_is_guess: bool
    token_ms: float  # of an answer, were it served on this device; a guess
    fast_layout: bool
    is_here: bool
    why_not: str


@cache
def table() -> list[dict[str, Any]]:
    """The known bases, as the file lists them."""
    bases: list[dict[str, Any]] = json.loads(TABLE.read_text())["bases"]
    return bases


def options(config: Config, room: Room, data: Data, ran: Sequence[Ran], here: frozenset[str]) -> list[Option]:
    """Every known base with what a training of `data` would take, the smallest first. `here`: bases that are ready in models_dir."""
    found = [_option(entry, (config, room, data), ran, str(entry.get("pull", "")) in here) for entry in table()]
    return sorted(found, key=lambda option: option.parameters_m)


def _option(entry: dict[str, Any], asked: tuple[Config, Room, Data], ran: Sequence[Ran], is_here: bool) -> Option:
    config, room, data = asked
    bytes_a_weight = 2 if room.is_gpu or room.has_bf16 else 4
    shape = shape_of(entry["shape"], int(entry["parameters_m"] * 1e6) * bytes_a_weight)
    assert shape is not None, "the table describes every base"
    needs = estimate_memory_mb(shape, config, gpu=room.is_gpu, longest=data.longest)
    expected = _time(config, room, data, weights_of(shape), ran, str(entry.get("pull", "")))
    token_s = shape.weights_bytes / BANDWIDTH["gpu" if room.is_gpu else "cpu"]
    terms = str(entry.get("terms", ""))
    why_not = ""
    if needs > room.total_mb * SHARE_OF_MEMORY:
        why_not = f"needs about {needs:,} MB; {SHARE_OF_MEMORY:.0%} of {room.total_mb:,} may be used"
    elif data.longest > entry["context"]:
        why_not = f"reads {entry['context']:,} tokens; the longest row has {data.longest:,}"
    elif token_s > SLOWEST_TOKEN_S:
        why_not = f"answers too slowly here: about {1 / token_s:.1f} tokens a second"
    elif expected.seconds > NIGHT_S:
        why_not = "a training takes longer than a night"
    elif not entry["free"]:
        why_not = f"licence: {terms}"
    return Option(
        name=entry["name"],
        source=entry["source"],
        licence=entry["licence"],
        terms=terms,
        context=entry["context"],
        parameters_m=entry["parameters_m"],
        memory_mb=needs,
        seconds=round(expected.seconds, 1),
        low_s=round(expected.low_s, 1),
        high_s=round(expected.high_s, 1),
        time_is_guess=expected.is_guess,
        token_ms=round(1000 * token_s, 1),
        fast_layout=entry["path"] == "flat",
        is_here=is_here,
        why_not=why_not,
    )


def _time(config: Config, room: Room, data: Data, weights: int, ran: Sequence[Ran], pull: str) -> Expected:
    from trainer.plan import Plan

    rows = max(1, data.train_rows)
    tokens = tokens_of_steps(data.tokens, rows, Plan.of(config, rows).total_rows)
    known = next((run.base_sha256 for run in reversed(ran) if pull and run.base == pull), "")
    wanted = Wanted(backend="peft", base_sha256=known, device=room.name, tokens=tokens, weights=weights, cores=room.cores, has_bf16=room.has_bf16)
    return expect(ran, wanted)


def choose(found: Sequence[Option]) -> Option | None:
    """The largest that nothing speaks against; one on the fast layout before a little larger one that is not. None: none fits."""
    fit = [option for option in found if not option.why_not]
    if not fit:
        return None
    largest = max(fit, key=lambda option: option.parameters_m)
    fast = max((option for option in fit if option.fast_layout), key=lambda option: option.parameters_m, default=None)
    return fast if fast is not None and fast.parameters_m >= GOOD_ENOUGH * largest.parameters_m else largest


# ---------------------------------------------------------------- what is here


def room_here(config: Config) -> Room:
    """The first GPU, or the CPU."""
    from daemon.devices import sensors_here
    from store.engines import cpu_has_bf16

    sensors = sensors_here()
    cards, name = sensors.gpus(), device_here()
    seen = cards[0] if cards else sensors.cpu()
    cores = config.training.threads or os.cpu_count() or 1
    return Room(name=name, total_mb=(seen.total_bytes or 0) // MIB, free_mb=(seen.free_bytes or 0) // MIB, cores=cores, has_bf16=cpu_has_bf16())


def data_of(file: Path | None, config: str | None) -> Data:
    """The file's rows, or what is assumed without one. Tokens are counted with the config's base, or guessed."""
    if file is None:
        source = f"assumed: {ASSUMED_ROWS:,} train rows of {ASSUMED_TOKENS} tokens (name yours with --data)"
        return Data(source=source, train_rows=ASSUMED_ROWS, tokens=ASSUMED_ROWS * ASSUMED_TOKENS, longest=ASSUMED_LONGEST)
    target = target_of(file, Asked(config=config))
    rows = read_file(target, Counter(target.validator.setting.around.base))
    count = len(rows.keys)
    train = max(0, count - 2 * held_out_groups(count))
    tokens = sum(rows.tokens) * train // count if count else 0
    return Data(source=f"{file}: {count:,} rows, {train:,} of them to train on", train_rows=train, tokens=tokens, longest=max(rows.tokens, default=0))


def recommend(file: Path | None, config: str | None) -> dict[str, Any]:
    """Everything that is printed, as plain values. Raises LoradError."""
    from core.config import resolve
    from core.errors import ConfigError
    from store.bases import models_dir
    from store.config import ConfigLoader
    from store.paths import Home
    from store.seals import is_sealed
    from store.series import remembered

    try:
        made = ConfigLoader(config).load().config
        ran = remembered(Home(Path(made.home)))
    except ConfigError as error:
        if config is not None or error.code != "CONFIG_MISSING":
            raise
        made, ran = resolve({}).config, []
        config = None
    room, data = room_here(made), data_of(file, config)
    folder = models_dir(made)
    here = frozenset(path.name for path in folder.iterdir() if is_sealed(path)) if folder.is_dir() else frozenset()
    found = options(made, room, data, ran, here)
    best = choose(found)
    return {
        "device": asdict(room),
        "data": asdict(data),
        "recommended": best.name if best else None,
        "reason": _reason(best, found),
        "todo": _todo(best),
        "measured": [run.base for run in ran[-1:] if run.device == room.name],
        "options": [asdict(option) for option in found],
    }


def _reason(best: Option | None, found: Sequence[Option]) -> str:
    if best is None:
        return f"none of {len(found)} known bases fits: the smallest, {found[0].name}, {found[0].why_not}"
    larger = [option for option in found if option.parameters_m > best.parameters_m]
    why = "it is the largest that is known here"
    if larger:
        why = f"the next larger one, {larger[0].name}: {larger[0].why_not or 'trains on the slower general layout'}"
    return f"the largest with a free licence that fits memory, trains within a night and answers at reading speed; {why}"


def _todo(best: Option | None) -> str:
    if best is None:
        return "shorten rows, set a smaller max_length or training.micro_batch, or use a device with more memory"
    if best.is_here:
        return "it is ready in models_dir"
    if any(entry["name"] == best.name and entry.get("pull") for entry in table()):
        return "lorad models pull"
    return f"put its Hugging Face folder ({best.source}) on this machine, set model_path to it, then lorad models pull"


def as_text(told: dict[str, Any]) -> str:
    """A line for each base, then the choice and why."""
    from cli.plantext import duration

    device = told["device"]
    cores = f"{device['cores']} cores {'with' if device['has_bf16'] else 'without'} bf16" if device["name"] == "cpu" else device["name"]
    lines = [f"device  {cores}, {device['total_mb']:,} MB of memory, {device['free_mb']:,} free", f"data    {told['data']['source']}", ""]
    for option in told["options"]:
        mark = "*" if option["name"] == told["recommended"] else " "
        guess = "guess" if option["time_is_guess"] else "learned"
        time = f"{duration(option['seconds'])} ({guess})"
        words = f"{option['parameters_m']:>8,.0f} M  {option['memory_mb']:>7,} MB  {time:<20} {option['licence']}"
        lines.append(f"{mark} {option['name']:<26} {words}" + (f"  [{option['why_not']}]" if option["why_not"] else ""))
    best = click.style(told["recommended"] or "none", bold=True)
    lines += ["", f"recommended: {best}: {told['reason']}", f"  what to do: {told['todo']}"]
    scaled = f"times are scaled from runs of {told['measured'][0]} here" if told["measured"] else "times are guesses: no training has ended here yet"
    lines.append(f"  memory is estimated by arithmetic; {scaled}; how fast answers come is a guess, and counts where the same device serves")
    return "\n".join([*lines, "  licences and sizes are those that their makers publish: read the licence before you use it"])
