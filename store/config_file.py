"""Finds and reads config.json as a plain mapping: all that `lorad status` needs, so it must stay light to import."""

import os
import re
from pathlib import Path
from typing import Any

from core.errors import ConfigError
from core.jsonc import loads
from core.names import DEFAULT_HOME
from store.paths import Home

ENVIRONMENT = "LORAD_CONFIG"
DEFAULT = "config.json"
HOME_LINE = re.compile(r'^[^/\n]*"home"\s*:\s*"([^"\\\n]+)"', re.MULTILINE)


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
        raise ConfigError(
            f"config {str(path)!r} is not JSON: {error}",
            hint="// comments and trailing commas are allowed, single quotes and bare words are not",
            code="CONFIG_SYNTAX",
        ) from None
    if not isinstance(tree, dict):
        raise ConfigError(f"config {str(path)!r} holds a {type(tree).__name__}, not an object", hint='start it with "{"', code="CONFIG_SYNTAX")
    return tree


def home_of(path: Path) -> Home:
    """Home by the config alone, without checking the other keys: what `lorad status` needs in a blink."""
    home = read_layer(path).get("home", DEFAULT_HOME)
    return Home((path.parent / os.path.expanduser(str(home))).resolve())


def home_in_force(path: Path) -> Home:
    """`home_of`, also where an edit has broken the file elsewhere: the daemon that runs is to be asked, and it says what is wrong.

    Raises ConfigError where the file does not show its home.
    """
    try:
        return home_of(path)
    except ConfigError as error:
        found = HOME_LINE.search(path.read_text(encoding="utf-8", errors="replace")) if error.code == "CONFIG_SYNTAX" else None
        if found is None:
            raise
        return Home((path.parent / os.path.expanduser(found[1])).resolve())
