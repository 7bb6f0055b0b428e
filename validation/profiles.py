"""Named sets of limits: a profile changes thresholds of checks, or turns checks off.

In config: `"validation": {"profile": "mine", "profiles": {"mine": {"B02.warn_share": 0.05, "B11": false}}}`.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from core.errors import ConfigError
from validation.checks import CHECKS

DEFAULT = "default"
PROFILES: Mapping[str, Mapping[str, float | bool]] = {DEFAULT: {}}


@dataclass(frozen=True, slots=True)
class Profile:
    """Limits that differ from the defaults, by check and name; and the checks that are off."""

    name: str = DEFAULT
    limits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    off: frozenset[str] = frozenset()


def resolve_profile(name: str, own: Mapping[str, Mapping[str, float | bool]]) -> Profile:
    """The profile of that name: one of `own` (the config's), else one that lorad ships.

    Raises ConfigError for an unknown profile, check or limit, with the nearest known one.
    """
    known = {**PROFILES, **own}
    if name not in known:
        raise ConfigError(f"unknown profile {name!r}", hint=_nearest(name, list(known)), code="PROFILE_UNKNOWN")
    limits: dict[str, dict[str, float]] = {}
    off: set[str] = set()
    every = {check.id for check in CHECKS}
    thresholds = {f"{check.id}.{limit}" for check in CHECKS for limit in check.limits}
    for key, value in known[name].items():
        if key in every and isinstance(value, bool):
            off |= {key} if not value else set()
        elif key in thresholds and not isinstance(value, bool):
            check, limit = key.split(".")
            limits.setdefault(check, {})[limit] = float(value)
        else:
            hint = f"a check is turned off by false, a limit is a number; {_nearest(key, sorted(every | thresholds))}"
            raise ConfigError(f"profile {name!r}: {key!r} = {value!r} is no check and no limit", hint=hint, code="PROFILE_KEY")
    return Profile(name, limits, frozenset(off))


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known[:12])}"
