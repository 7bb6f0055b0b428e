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
YAML = (".yaml", ".yml")
EXPONENT = re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$")  # 2e-4: text in YAML 1.1, a number to people
HOME_LINE = re.compile(r'^[^/\n]*"home"\s*:\s*"([^"\\\n]+)"', re.MULTILINE)


def config_path(given: str | None) -> Path:
    """`--config`, else LORAD_CONFIG, else ./config.json."""
    return Path(given or os.environ.get(ENVIRONMENT) or DEFAULT).absolute()


def read_layer(path: Path) -> dict[str, Any]:
    """The mapping in a config file, YAML by its suffix, else JSON. Raises ConfigError: missing, unreadable, neither of them, not a mapping."""
    is_yaml = path.suffix in YAML
    try:
        text = path.read_text(encoding="utf-8")
        tree = _yaml(text) if is_yaml else loads(text)
    except FileNotFoundError:
        raise ConfigError(f"no config at {str(path)!r}", hint="run `lorad init`, or name one with --config", code="CONFIG_MISSING") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {str(path)!r} cannot be read: {error}", hint="check its permissions and encoding", code="CONFIG_UNREADABLE") from None
    except ValueError as error:
        kind = "YAML" if is_yaml else "JSON"
        hint = (
            "indent with blanks, and quote text with a colon in it"
            if is_yaml
            else "// comments and trailing commas are allowed, single quotes and bare words are not"
        )
        raise ConfigError(f"config {str(path)!r} is not {kind}: {error}", hint=hint, code="CONFIG_SYNTAX") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"config {str(path)!r} holds a {type(tree).__name__}, not an object", hint='start it with "{"', code="CONFIG_SYNTAX")
    return tree


def _yaml(text: str) -> object:
    """YAML as people write it: 2e-4 is a number, a key that stands twice is an error. Raises ValueError."""
    try:
        import yaml
    except ModuleNotFoundError:
        raise ValueError("PyYAML is not installed (pip install pyyaml); write the config as JSON") from None

    class Loader(yaml.SafeLoader):
        """SafeLoader, stricter and with YAML 1.2's numbers."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
            """As SafeLoader. Raises ConstructorError on a key that stands twice."""
            keys = [key.value for key, _ in node.value]
            for key, _ in node.value:
                if key.value != "<<" and keys.count(key.value) > 1:
                    raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} stands twice", key.start_mark)
            return dict(super().construct_mapping(node, deep))

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+.0123456789"))
    try:
        return yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error)) from None


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
        home = Home((path.parent / os.path.expanduser(found[1] if found else DEFAULT_HOME)).resolve())
        if error.code != "CONFIG_SYNTAX" or not (found or home.config_in_force.exists()):
            raise
        return home
