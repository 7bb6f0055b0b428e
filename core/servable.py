"""What a training leaves that no server would take: said before the job is made, not when its release is packed. Pure."""

from collections.abc import Iterator

from core.config import Config
from core.errors import ConfigError

REFUSE_DORA = ("transformers", "vLLM")
"""Serving engines that refuse DoRA; they all honour rsLoRA (alpha / sqrt(r), read from adapter_config.json)."""


def unserved(config: Config) -> Iterator[tuple[str, str]]:
    """(key and value, why no server takes it) of what a job is asked to train."""
    if config.method == "full":
        yield "method = 'full'", "it trains every weight, and a release is an adapter: no server swaps a whole model in beside running requests"
    if config.lora.use_dora:
        yield "lora.use_dora = true", f"the serving engines {' and '.join(REFUSE_DORA)} refuse such adapters"
    if (rank := sum(stage.r or config.lora.r for stage in config.stages if stage.layer)) > config.serving.max_rank:
        yield f"stages with {rank} ranks together", f"the servers load up to serving.max_rank = {config.serving.max_rank}; give the layers smaller ranks (r)"


def require_servable(config: Config) -> None:
    """Raises ConfigError METHOD_NOT_SERVED for a job whose release no server would load."""
    if found := [f"{key} cannot be served: {why}" for key, why in unserved(config)]:
        hint = "leave it out; `lorad train FILE --set … --out DIR` trains it in the foreground, outside of releases"
        raise ConfigError("; ".join(found), hint=hint, code="METHOD_NOT_SERVED")


def layout_of(backend: str) -> str:
    """The layout of what a backend trains, by the name of the backend that made it first: unsloth and mlx write PEFT's too."""
    return "stub" if backend == "stub" else "peft"
