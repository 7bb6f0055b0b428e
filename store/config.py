"""Loads config.json into the schema of `core.config`."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.aliases import Became, translate
from core.config import Config, Resolved, changed_keys, merge_for_reload, resolve
from core.deployment import TargetConfig
from core.learning import ConditionConfig, TriggerConfig
from store.bases import is_hub_id
from store.config_file import DEFAULT, config_path, read_layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Reread:
    """What config.json says now, as far as a running daemon can take it over."""

    resolved: Resolved
    changed: tuple[str, ...]  # keys with another value than the one in force
    waiting: Mapping[str, str]  # keys that keep the value in force -> what is to be restarted for the new one
    layer: Mapping[str, Any]


class ConfigLoader:
    """Loads a config file and resolves paths against its folder.

    >>> resolved = ConfigLoader("config.json").load({"learning_rate": 1e-4})

    Args: path: the file; without one that of LORAD_CONFIG, else `./config.json`.
    Returns: of `load`, the config with absolute paths, where each value comes from, and warnings.
    Raises: ConfigError: the file is missing or no JSON, a key is unknown (with the nearest one), a value is of another type or out of range.
    Side effects: reads the environment and the file, once; `reread` reads it again. Writes nothing.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = config_path(str(path) if path is not None else None)
        self.became: tuple[Became, ...] = ()
        """What the keys of other tools in the file became; known once it was read."""
        self._layer: dict[str, Any] | None = None  # read once: a later edit waits for a reload

    @classmethod
    def without_file(cls) -> "ConfigLoader":
        """A loader of the defaults, for commands that need no config; relative paths start at the current folder."""
        loader = cls(DEFAULT)
        loader._layer = {}
        return loader

    def load(self, command_line: Mapping[str, Any] | None = None, sidecar: Mapping[str, Any] | None = None) -> Resolved:
        """The resolved config; relative paths start at the config's folder. Raises ConfigError. Reads the file once."""
        if self._layer is None:
            self._layer = self._read()
        resolved = resolve({"config.json": self._layer, "sidecar": sidecar or {}, "command line": command_line or {}})
        lost = tuple(found.words for found in self.became if found.is_lost)
        return Resolved(self._absolute(resolved.config), resolved.origins, (*resolved.warnings, *lost))

    def _read(self) -> dict[str, Any]:
        """The file in lorad's own keys. Raises ConfigError."""
        found = translate(read_layer(self.path), self.path.name)
        self.became = found.became
        return found.layer

    def reread(self) -> Reread:
        """Read the file again. Nothing follows it until `adopt`. Raises ConfigError: what was read before stays in force."""
        before = self.load().config
        assert self._layer is not None
        layer, waiting = merge_for_reload(self._layer, self._read())
        resolved = resolve({"config.json": layer})
        after = Resolved(self._absolute(resolved.config), resolved.origins, resolved.warnings)
        return Reread(resolved=after, changed=changed_keys(before, after.config), waiting=waiting, layer=layer)

    def adopt(self, reread: Reread) -> None:
        """From now on `load` goes by what was read again."""
        self._layer = dict(reread.layer)

    def _absolute(self, config: Config) -> Config:
        def place(path: str) -> str:
            return str((self.path.parent / os.path.expanduser(path)).resolve()) if path else ""

        def base(path: str) -> str:
            return path if is_hub_id(path) and not (self.path.parent / path).exists() else place(path)

        home = place(config.home)
        serving = config.serving.model_copy(
            update={
                "home": place(config.serving.home) or f"{home}/serving",
                "trust": place(config.serving.trust) or f"{home}/keys",
                "filters": {name: one.model_copy(update={"classifier": place(one.classifier)}) for name, one in config.serving.filters.items()},
                "tls_cert": place(config.serving.tls_cert),
                "tls_key": place(config.serving.tls_key),
                "grpc": config.serving.grpc.model_copy(update={name: place(getattr(config.serving.grpc, name)) for name in ("cert", "key", "client_ca")}),
            }
        )
        targets = config.deploy.targets or (TargetConfig(name="local", path=serving.home),)
        targets = tuple(_target_placed(target, place) for target in targets)
        validation = config.validation.model_copy(update={"references": tuple(place(path) for path in config.validation.references)})
        alerts = config.alerts.model_copy(update={"urls_file": place(config.alerts.urls_file), "webhook_key_file": place(config.alerts.webhook_key_file)})
        triggers = {name: _trigger_placed(trigger, place) for name, trigger in config.triggers.items()}
        judge = config.ranking.judge.model_copy(update={"key_file": place(config.ranking.judge.key_file)})
        feedback = config.feedback.model_copy(update={"peer_key_file": place(config.feedback.peer_key_file)})
        return config.model_copy(
            update={
                "home": home,
                "feedback": feedback,
                "ranking": config.ranking.model_copy(update={"judge": judge}),
                "models_dir": place(config.models_dir),
                "model_path": base(config.model_path),
                "specs": {id: place(path) for id, path in config.specs.items()},
                "profiles": {name: place(path) for name, path in config.profiles.items()},
                "validation": validation,
                "serving": serving,
                "alerts": alerts,
                "triggers": triggers,
                "deploy": config.deploy.model_copy(update={"targets": targets, "encryption_key": place(config.deploy.encryption_key)}),
            }
        )


def _trigger_placed(trigger: TriggerConfig, place: Callable[[str], str]) -> TriggerConfig:
    """A trigger with the paths that it watches made absolute."""

    def placed(conditions: tuple[ConditionConfig, ...]) -> tuple[ConditionConfig, ...]:
        return tuple(one.model_copy(update={"changed": place(one.changed)}) for one in conditions)

    return trigger.model_copy(update={"any": placed(trigger.any), "all": placed(trigger.all)})


def _target_placed(target: TargetConfig, place: Callable[[str], str]) -> TargetConfig:
    """A target with its paths of this machine made absolute; the path of an ssh target is one of the far box."""
    paths = {"key": place(target.key), "read_key": place(target.read_key)}
    if target.kind == "local":
        paths["path"] = place(target.path)
    return target.model_copy(update=paths)
