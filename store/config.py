"""Loads config.json into the schema of `core.config`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.config import Config, Resolved, resolve
from core.sections import TargetConfig
from store.config_file import config_path, read_layer


class ConfigLoader:
    """Loads a config file and resolves paths against its folder.

    >>> resolved = ConfigLoader("config.json").load({"learning_rate": 1e-4})
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = config_path(str(path) if path is not None else None)
        self._layer: dict[str, Any] | None = None  # read once: a later edit waits for a restart

    def load(self, command_line: Mapping[str, Any] | None = None, sidecar: Mapping[str, Any] | None = None) -> Resolved:
        """The resolved config; relative paths start at the config's folder. Raises ConfigError. Reads the file once."""
        if self._layer is None:
            self._layer = read_layer(self.path)
        resolved = resolve({"config.json": self._layer, "sidecar": sidecar or {}, "command line": command_line or {}})
        return Resolved(self._absolute(resolved.config), resolved.origins, resolved.warnings)

    def _absolute(self, config: Config) -> Config:
        def place(path: str) -> str:
            return str((self.path.parent / os.path.expanduser(path)).resolve()) if path else ""

        home = place(config.home)
        serving = config.serving.model_copy(
            update={
                "home": place(config.serving.home) or f"{home}/serving",
                "trust": place(config.serving.trust) or f"{home}/keys",
                "api_keys_file": place(config.serving.api_keys_file),
            }
        )
        targets = config.deploy.targets or (TargetConfig(name="local", path=serving.home),)
        targets = tuple(target.model_copy(update={"path": place(target.path)}) for target in targets)
        validation = config.validation.model_copy(update={"references": tuple(place(path) for path in config.validation.references)})
        return config.model_copy(
            update={
                "home": home,
                "models_dir": place(config.models_dir),
                "model_path": place(config.model_path),
                "specs": {id: place(path) for id, path in config.specs.items()},
                "validation": validation,
                "serving": serving,
                "deploy": config.deploy.model_copy(update={"targets": targets}),
            }
        )
