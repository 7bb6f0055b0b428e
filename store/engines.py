"""What this installation and this machine can run, found without importing any of it; trainer and serving follow the same rules."""

import os
import platform
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from core.config import Config

NEEDED = ("torch", "transformers", "peft", "safetensors")
GPU_FILES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # the NVIDIA driver's own, and its stand-in under WSL
VISIBLE = "CUDA_VISIBLE_DEVICES"
CPU_FLAGS = Path("/proc/cpuinfo")
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})

# Threads that spin at a barrier burn the time slice that the thread they wait for would need. Measured on 2 cores with
# one busy neighbour: 29 tokens/s spinning, 300 to 500 sleeping. A training changes between both (trainer.backends.patience).
PATIENT = {"OMP_WAIT_POLICY": "passive"}


@dataclass(frozen=True, slots=True)
class Backend:
    """The chosen backend and the reason, for status, doctor and the run's record."""

    name: str
    why: str


def choose_backend(config: Config) -> Backend:
    """`config.backend`, or what `auto` resolves to here: Unsloth on CUDA, PEFT on CUDA, MLX on Apple silicon, PEFT on the CPU, the stub."""
    if config.backend != "auto":
        return Backend(config.backend, "named in config.json")
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        return Backend("stub", f"{', '.join(missing)} not installed (pip install 'lorad[cpu]'): dry runs only, promoted only where allow_stub says so")
    if has_cuda():
        if find_spec("unsloth") is not None:
            return Backend("unsloth", "a CUDA GPU is here and unsloth is installed")
        return Backend("peft", "a CUDA GPU is here; torch, transformers and peft are installed, unsloth is not")
    if is_apple() and find_spec("mlx") is not None and find_spec("mlx_lm") is not None:
        return Backend("mlx", "this is Apple silicon and mlx is installed")
    return Backend("peft", "torch, transformers and peft are installed; no GPU is here, the CPU trains")


def has_cuda() -> bool:
    """Whether an NVIDIA driver is here and lets this process see a GPU; found without importing torch."""
    return os.environ.get(VISIBLE, "all").strip() not in ("", "-1") and any(path.exists() for path in GPU_FILES)


def is_apple() -> bool:
    """Whether this is a Mac with Apple's own processor."""
    return sys.platform == "darwin" and platform.machine() == "arm64"


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
