"""Reads config.json. The schema is `core.config`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.config import Config, Resolved, TargetConfig, resolve
from core.errors import ConfigError
from core.jsonc import loads
from store.paths import Home

ENVIRONMENT = "LORAD_CONFIG"
DEFAULT = "config.json"


def config_path(given: str | None) -> Path:
    """`--config`, else LORAD_CONFIG, else ./config.json."""
    return Path(given or os.environ.get(ENVIRONMENT) or DEFAULT).absolute()


def read_layer(path: Path) -> dict[str, Any]:
    """The mapping in a config file. Raises ConfigError: missing, unreadable, not JSON, not a mapping."""
    try:
        tree = loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no config at {str(path)!r}", hint="run `lorad init`, or name one with --config", code="CONFIG_MISSING") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {str(path)!r} cannot be read: {error}", hint="check its permissions and encoding", code="CONFIG_UNREADABLE") from None
    except ValueError as error:
        raise ConfigError(f"config {str(path)!r} is not JSON: {error}", hint="// comments are allowed, trailing commas are not", code="CONFIG_SYNTAX") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"config {str(path)!r} holds a {type(tree).__name__}, not an object", hint='start it with "{"', code="CONFIG_SYNTAX")
    return tree


def home_of(path: Path) -> Home:
    """Home by the config alone, without checking the other keys: what `lorad status` needs in a blink."""
    home = read_layer(path).get("home", Config.model_fields["home"].default)
    return Home(path.parent / str(home))


class ConfigLoader:
    """Loads a config file and resolves paths against its folder.

    >>> resolved = ConfigLoader("config.json").load({"learning_rate": 1e-4})
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = config_path(str(path) if path is not None else None)

    def load(self, command_line: Mapping[str, Any] | None = None, sidecar: Mapping[str, Any] | None = None) -> Resolved:
        """The resolved config; relative paths start at the config's folder. Raises ConfigError. Reads one file."""
        resolved = resolve({"config.json": read_layer(self.path), "sidecar": sidecar or {}, "command line": command_line or {}})
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
        return config.model_copy(
            update={
                "home": home,
                "models_dir": place(config.models_dir),
                "model_path": place(config.model_path),
                "serving": serving,
                "deploy": config.deploy.model_copy(update={"targets": targets}),
            }
        )
