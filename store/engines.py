"""What this installation and this machine can run, found without importing any of it; trainer and serving follow the same rules."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from core.config import Config

NEEDED = ("torch", "transformers", "peft", "safetensors")
CPU_FLAGS = Path("/proc/cpuinfo")
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})

# Threads that spin at a barrier burn the time slice that the thread they wait for would need. Measured on 2 cores with
# one busy neighbour: 29 tokens/s spinning, 300 to 500 sleeping; alone, sleeping costs about a fifth (515 to 640 against 800).
PATIENT = {"OMP_WAIT_POLICY": "passive"}


@dataclass(frozen=True, slots=True)
class Backend:
    """The chosen backend and the reason, for status, doctor and the run's record."""

    name: str
    why: str


def choose_backend(config: Config) -> Backend:
    """`config.backend`, or what `auto` resolves to here."""
    if config.backend != "auto":
        return Backend(config.backend, "named in config.json")
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        return Backend("stub", f"{', '.join(missing)} not installed (pip install 'lorad[cpu]'): dry runs only, promoted only where allow_stub says so")
    return Backend("peft", "torch, transformers and peft are installed")


def cpu_has_bf16(flags: Path = CPU_FLAGS) -> bool:
    """Whether this CPU multiplies bf16 matrices itself; emulated, bf16 is slower than fp32."""
    try:
        return bool(BF16_FLAGS.intersection(flags.read_text().split()))
    except OSError:
        return False


def let_threads_sleep() -> None:
    """Call before the first import of torch. Sets environment variables of this process that are not set yet."""
    for key, value in PATIENT.items():
        os.environ.setdefault(key, value)
