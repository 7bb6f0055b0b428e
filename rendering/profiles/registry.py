"""Profiles by name: those that lorad ships, and a project's own.

One's own is a Python file that the config names, with a class PROFILE derived from DataProfile. It runs with the rights of
whoever starts lorad: only the config can name such a file, a drop cannot.
"""

import difflib
import sys
from collections.abc import Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import MappingProxyType

from core.config import Config
from core.errors import ConfigError
from core.recipe import ProfileConfig
from rendering.profiles.emoji_think import EmojiThink
from rendering.profiles.persona import Persona
from rendering.profiles.plain import Plain
from rendering.profiles.profile import DataProfile
from rendering.profiles.regime3 import Regime3
from store.seals import hash_file

PROFILES: Mapping[str, type[DataProfile]] = MappingProxyType({kind.name: kind for kind in (Plain, EmojiThink, Regime3, Persona)})
HELP = "see docs/howto/profiles.md"


def profile_of(config: ProfileConfig, own: Mapping[str, str]) -> DataProfile:
    """The profile that the config asks for; `own` are the config's files by name.

    Raises ConfigError: an unknown name (with the nearest known one), options that do not fit, a file that does not run.
    """
    if config.name in own:
        return load_file(config.name, Path(own[config.name]))(config.options)
    if config.name not in PROFILES:
        known = [*PROFILES, *own]
        near = difflib.get_close_matches(config.name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        raise ConfigError(f"profile.name: unknown profile {config.name!r}", hint=hint, code="PROFILE_UNKNOWN")
    return PROFILES[config.name](config.options)


def check_profiles(config: Config) -> None:
    """Raises ConfigError where the config names a profile, options or a file that is wrong; each file is run once."""
    for name, path in config.profiles.items():
        load_file(name, Path(path))
    profile_of(config.profile, config.profiles)


def load_file(name: str, path: Path) -> type[DataProfile]:
    """The class PROFILE of a file, which runs. Raises ConfigError."""
    if name in PROFILES:
        raise ConfigError(f"profiles.{name}: {name!r} is a profile of lorad's own", hint=f"give yours another name, such as 'my_{name}'", code="PROFILE_NAME")
    path = path.absolute()
    if path.suffix != ".py" or not path.is_file():
        why = "is not there" if path.suffix == ".py" else f"ends in {path.suffix!r}"
        raise _wrong(path, why, "a profile is a .py file; a path in the config's `profiles` is relative to the folder of the config")
    digest = hash_file(path)
    kind = _run(path, f"lorad_own_profile_{digest[:16]}")
    if kind.name != name:
        raise _wrong(path, f"holds the profile {kind.name!r}, and the config calls it {name!r}", "write the same name in both places")
    kind.sha256 = digest
    return kind


def _run(path: Path, module_name: str) -> type[DataProfile]:
    found = spec_from_file_location(module_name, path)
    assert found is not None, "a .py file has a loader"
    assert found.loader is not None
    module = module_from_spec(found)
    sys.modules[module_name] = module  # classes look their annotations up there
    try:
        found.loader.exec_module(module)
    except Exception as error:  # whatever a person's own file raises is a fault of that file
        del sys.modules[module_name]
        raise _wrong(path, f"does not run: {type(error).__name__}: {error}", "try it with: python FILE") from None
    kind = getattr(module, "PROFILE", None)
    if not (isinstance(kind, type) and issubclass(kind, DataProfile)):
        raise _wrong(path, "has no class `PROFILE` derived from rendering.profiles.DataProfile", HELP)
    for attribute, wanted in (("name", str), ("version", int), ("adds", str)):
        if not isinstance(getattr(kind, attribute, None), wanted):
            raise _wrong(path, f"has a PROFILE without {attribute!r}", f"give it {attribute} = …; {HELP}")
    return kind


def _wrong(path: Path, what: str, hint: str) -> ConfigError:
    return ConfigError(f"{path} {what}", hint=hint, code="PROFILE_FILE")
