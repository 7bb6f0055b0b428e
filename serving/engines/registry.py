"""Engines by name. The implementation is imported only when it is chosen: the stub needs no torch."""

import logging
from collections.abc import Callable
from pathlib import Path

from core.config import Config
from serving.engines.port import Engine
from store.bases import base_folder
from store.engines import choose_backend, let_threads_sleep

log = logging.getLogger(__name__)


def _transformers(config: Config) -> Engine:
    let_threads_sleep()
    from serving.engines.transformers_peft import TransformersEngine

    key_file = config.deploy.encryption_key
    return TransformersEngine(base_folder(config), threads=config.serving.threads, max_new_tokens=config.serving.max_new_tokens, key_file=key_file)


def _stub(config: Config) -> Engine:
    from serving.engines.stub import StubEngine

    name = Path(config.model_path).name if config.model_path else config.model_name
    return StubEngine(name, max_new_tokens=config.serving.max_new_tokens, key_file=config.deploy.encryption_key)


ENGINES: dict[str, Callable[[Config], Engine]] = {"transformers": _transformers, "stub": _stub}
BACKENDS = {"unsloth": "transformers", "peft": "transformers", "mlx": "transformers", "stub": "stub"}


def engine_name(config: Config) -> str:
    """Which engine serves this config. `auto` takes the real one where its packages are installed, and logs why not."""
    backend = choose_backend(config)
    if config.backend == "auto" and backend.name == "stub":
        log.warning("backend auto fell to the stub engine: %s", backend.why)
    return BACKENDS[backend.name]


def make_engine(config: Config) -> Engine:
    """The engine of this config, with its base not loaded yet. Raises BaseMissingError."""
    return ENGINES[engine_name(config)](config)
