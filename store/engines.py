"""Which backend this installation can run, found without importing any of it."""

from dataclasses import dataclass
from importlib.util import find_spec

from core.config import Config

NEEDED = ("torch", "transformers", "peft", "safetensors")


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
        return Backend("stub", f"{', '.join(missing)} not installed (pip install 'lorad[cpu]'): dry runs only, nothing is promoted")
    return Backend("peft", "torch, transformers and peft are installed")
