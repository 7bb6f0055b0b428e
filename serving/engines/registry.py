"""Engines by name. The implementation is imported only when it is chosen: the stub needs no torch."""

import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from core.config import Config
from core.errors import BaseMissingError
from core.hyperparameters import limit_of
from serving.engines.port import Engine
from store.bases import base_folder, described_base, gguf_of
from store.encryption import ADAPTER_GGUF, is_encrypted
from store.engines import choose_backend, has_cuda, let_threads_sleep
from store.paths import Box
from store.wire import read_active

log = logging.getLogger(__name__)


def _transformers(config: Config) -> Engine:
    let_threads_sleep()
    from serving.engines.transformers_peft import TorchSettings, TransformersEngine

    serving = config.serving
    settings = TorchSettings(
        threads=serving.threads,
        max_new_tokens=serving.max_new_tokens,
        streams=serving.streams,
        prefix_mb=serving.prefix_mb,
        quantization=serving.quantization,
        device_map=serving.device_map,
    )
    return TransformersEngine(base_folder(config), settings, key_file=config.deploy.encryption_key)


def _llamacpp(config: Config) -> Engine:
    from serving.engines.llamacpp import LlamaCppEngine, LlamaOptions

    serving = config.serving
    options = LlamaOptions(
        threads=serving.threads,
        streams=serving.streams,
        max_new_tokens=serving.max_new_tokens,
        key_file=config.deploy.encryption_key,
        forms=Box(Path(serving.home)).forms,
    )
    return LlamaCppEngine(base_folder(config), options)


def _vllm(config: Config) -> Engine:
    from serving.engines.vllm import VllmEngine
    from serving.engines.vllm_process import VllmSettings

    serving, folder = config.serving, base_folder(config)
    settings = VllmSettings(
        max_new_tokens=serving.max_new_tokens,
        context_tokens=limit_of(described_base(config)[0]),
        streams=serving.streams,
        max_rank=serving.max_rank,
        tensor_parallel=serving.tensor_parallel,
        cuda_graphs=serving.cuda_graphs,
        quantization=serving.quantization,
    )
    return VllmEngine(folder, settings)


def _stub(config: Config) -> Engine:
    from serving.engines.stub import StubEngine

    name = Path(config.model_path).name if config.model_path else config.model_name
    return StubEngine(name, max_new_tokens=config.serving.max_new_tokens, key_file=config.deploy.encryption_key)


ENGINES: dict[str, Callable[[Config], Engine]] = {"llamacpp": _llamacpp, "transformers": _transformers, "vllm": _vllm, "stub": _stub}
BACKENDS = {"unsloth": "transformers", "peft": "transformers", "mlx": "transformers", "stub": "stub"}


def engine_name(config: Config) -> str:
    """Which engine serves this config. `auto` takes the real one where its packages are installed, and logs why not."""
    if config.serving.engine != "auto":
        return config.serving.engine
    if config.backend != "stub" and not has_cuda() and _takes_llamacpp(config):
        return "llamacpp"
    if config.backend != "stub" and has_cuda() and find_spec("vllm") is not None:
        return "vllm"
    backend = choose_backend(config)
    if config.backend == "auto" and backend.name == "stub":
        log.warning("backend auto fell to the stub engine: %s", backend.why)
    return BACKENDS[backend.name]


def _takes_llamacpp(config: Config) -> bool:
    """Whether llama.cpp can answer here: its wheel, a GGUF file of the base, and the GGUF form of every release that is live."""
    try:
        if find_spec("xllamacpp") is None or gguf_of(base_folder(config)) is None:
            return False
    except BaseMissingError:
        return False
    box = Box(Path(config.serving.home))
    active = read_active(box.active)
    live = {state.release for state in active.aliases.values() if state.release} if active else set()
    for folder in (folder for release in live for folder in box.releases.glob(f"*/*/v*-{release[:12]}")):
        if not (folder / ADAPTER_GGUF).is_file() and not is_encrypted(folder, ADAPTER_GGUF):
            log.warning("%s has no %s: transformers serves until a release that has one is live", folder.name, ADAPTER_GGUF)
            return False
    return True


def make_engine(config: Config) -> Engine:
    """The engine of this config, with its base not loaded yet. Raises BaseMissingError."""
    return ENGINES[engine_name(config)](config)
