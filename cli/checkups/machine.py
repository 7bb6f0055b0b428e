"""The machine: memory, GPU and driver, clock, versions of what is installed, programs on PATH."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import core
from cli.checkups.registry import Findings, Visit, check, note, ok, problem

MIB = 1 << 20
LEAST_PYTHON = (3, 11)
LAST_YEAR = 2100  # a clock beyond it is wrong
TOLERATED = timedelta(minutes=5)  # that a file may come from the future: two machines' clocks
NEEDED = {"cpu": ("torch", "transformers", "peft", "safetensors"), "gate": ("ftfy", "tokie", "rensa"), "alerts": ("apprise",)}
PATIENCE_S = 1.5  # for a program that is asked something


def asked(*words: str) -> str:
    """What a program answers on one line; empty where it is not there, fails or takes too long."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@check()
def memory(visit: Visit) -> Findings:
    """Memory and cores, against what a training takes by estimate."""
    from daemon.devices import sensors_here
    from store.engines import cpu_has_bf16

    seen = sensors_here().cpu()
    total, free = (seen.total_bytes or 0) // MIB, (seen.free_bytes or 0) // MIB
    words = f"{total:,} MB of memory, {free:,} free; {os.cpu_count()} cores, {'with' if cpu_has_bf16() else 'without'} bf16 instructions"
    needs = _needs_mb(visit)
    if needs and needs > total and not sensors_here().gpus():
        todo = "choose a smaller base (`lorad models recommend`), a smaller training.micro_batch or max_length"
        yield problem("MEMORY_SHORT", f"{words}; a training takes about {needs:,} MB at its peak (estimated)", todo)
    elif needs and needs > free and not sensors_here().gpus():
        yield note("MEMORY_TIGHT", f"{words}; a training takes about {needs:,} MB at its peak (estimated)", "close other programs while it trains")
    else:
        yield ok("MEMORY", words)


def _needs_mb(visit: Visit) -> int | None:
    from core.estimate import estimate_memory_mb, shape_of
    from store.bases import described_base
    from store.engines import choose_backend

    if visit.config is None or choose_backend(visit.config).name == "stub":
        return None
    shape = shape_of(*described_base(visit.config))
    return estimate_memory_mb(shape, visit.config, gpu=False) if shape else None


@check()
def gpu(visit: Visit) -> Findings:
    """GPUs, their driver, and whether the installed torch can use them."""
    from daemon.devices import sensors_here

    cards = sensors_here().gpus()
    if not cards:
        yield ok("GPU_NONE", "no GPU is seen: training runs on the CPU")
        return
    driver = _driver()
    torch = installed("torch")
    for card in cards:
        room = f"{(card.free_bytes or 0) // MIB:,} of {(card.total_bytes or 0) // MIB:,} MB free" if card.total_bytes else "memory not told"
        heat = f", {card.celsius:.0f} °C" if card.celsius is not None else ""
        yield ok("GPU", f"{card.name}: {room}{heat}" + (f", driver {driver}" if driver else ""))
        for holder in card.holders:
            yield note("GPU_SHARED", f"{card.name} is also used by pid {holder.pid} ({holder.name or 'unknown'}) with {holder.bytes // MIB:,} MB")
    if "+cpu" in torch:
        yield problem("GPU_UNUSED", f"torch {torch} is built for the CPU: the GPU is not used", "install a CUDA build of torch into lorad's environment")


def _driver() -> str:
    try:
        import pynvml

        pynvml.nvmlInit()
        told = pynvml.nvmlSystemGetDriverVersion()
    except Exception:  # an answer of the driver's own library, or none: a version less
        return ""
    return told.decode() if isinstance(told, bytes) else str(told)


@check()
def clock(visit: Visit) -> Findings:
    """Whether the time of day can be true."""
    installed_at = datetime.fromtimestamp(Path(core.__file__).stat().st_mtime, UTC)
    todo = "set the clock (timedatectl set-ntp true); job ids and schedules go by it"
    if visit.now.year > LAST_YEAR or visit.now < installed_at - timedelta(days=1):
        yield problem("CLOCK_WRONG", f"it is {visit.now:%Y-%m-%d %H:%M}Z by this machine, which cannot be: lorad was installed {installed_at:%Y-%m-%d}", todo)
        return
    last = _last_entry(visit)
    if last is not None and last > visit.now + TOLERATED:
        yield problem("CLOCK_BACK", f"the journal's last entry is of {last:%Y-%m-%d %H:%M}Z, after now: the clock was set back", todo)
        return
    synchronised = asked("timedatectl", "show", "--property=NTPSynchronized", "--value") if shutil.which("timedatectl") else ""
    if synchronised == "no":
        yield note("CLOCK_UNSYNCHRONISED", f"{visit.now:%Y-%m-%d %H:%M:%S}Z; the time is not synchronised", "timedatectl set-ntp true")
    else:
        yield ok("CLOCK", f"{visit.now:%Y-%m-%d %H:%M:%S}Z" + (", synchronised" if synchronised == "yes" else ""))


def _last_entry(visit: Visit) -> datetime | None:
    """When the newest line of the journal was written, by itself."""
    if visit.home is None:
        return None
    try:
        with open(visit.home.journal, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - 4096))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return None
    for line in reversed(lines):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return datetime.fromisoformat(json.loads(line)["at"])
    return None


def installed(name: str) -> str:
    """The version of an installed distribution; empty where it is missing. Imports nothing of it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


@check()
def versions(visit: Visit) -> Findings:
    """Python, lorad, and what its extras need."""
    from store.paths import FORMAT

    python = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < LEAST_PYTHON:
        yield problem("PYTHON_OLD", f"Python {python}; lorad needs {'.'.join(map(str, LEAST_PYTHON))} or newer", "install a newer Python")
    known = {name: installed(name) for name in ("torch", "transformers", "peft")}
    have = ", ".join(f"{name} {found}" for name, found in known.items() if found)
    yield ok("VERSIONS", f"lorad {installed('lorad') or 'of a checkout'}, home format {FORMAT}, Python {python}" + (f", {have}" if have else ""))
    yield from _missing(visit)


def _missing(visit: Visit) -> Findings:
    config = visit.config
    wanted = {"cpu": config is None or config.backend != "stub", "gate": True, "alerts": bool(config and config.alerts.urls_file)}
    for extra, names in NEEDED.items():
        missing = [name for name in names if not installed(name)]
        if not missing or not wanted[extra]:
            continue
        text = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed (extra {extra})"
        todo = f"pip install 'lorad[{extra}]'"
        needed = extra == "alerts" or (extra == "cpu" and config is not None and config.backend == "peft")
        yield problem("EXTRA_MISSING", text, todo) if needed else note("EXTRA_MISSING", text, todo)
    broken = [line for line in requires("lorad") or () if "extra ==" not in line and not installed(_name(line))] if installed("lorad") else []
    if broken:
        yield problem("PACKAGE_MISSING", f"not installed: {', '.join(map(_name, broken))}", "pip install --force-reinstall lorad")


def _name(requirement: str) -> str:
    return next(iter(requirement.replace(">", " ").replace("<", " ").replace("=", " ").replace(";", " ").replace("[", " ").replace("!", " ").split()), "")


@check()
def programs(visit: Visit) -> Findings:
    """Programs that lorad starts."""
    if shutil.which("rsync") is None:
        yield problem("RSYNC_MISSING", "rsync is not on PATH: no release can be shipped", "apt-get install rsync")
    else:
        line = asked("rsync", "--version").splitlines()
        yield ok("RSYNC", " ".join(line[0].split()[:3]) if line else "rsync is on PATH")
