"""Child processes that own the tensors on the training box: train, score, and the conversion of bases.

`python -m trainer <run folder>` carries out the spec in that folder. Importing this package loads no torch.

>>> from trainer import ConfigLoader
>>> config = ConfigLoader("config.json").load().config
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.config import Config as TrainerConfig
    from rendering.profiles import DataProfile
    from store.config import ConfigLoader
    from trainer.engine import TrainerEngine

__all__ = ["ConfigLoader", "DataProfile", "TrainerConfig", "TrainerEngine"]

_HOMES = {
    "ConfigLoader": ("store.config", "ConfigLoader"),
    "DataProfile": ("rendering.profiles", "DataProfile"),
    "TrainerConfig": ("core.config", "Config"),
    "TrainerEngine": ("trainer.engine", "TrainerEngine"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
