"""When and how urgently a job wants to run, as a sidecar or a person writes it. Pure."""

from datetime import UTC, datetime

from core.errors import ConfigError

PRIORITIES = {"high": 10, "normal": 0, "low": -10}
MOST = 1000
WORDS = f"high, normal, low or a whole number from {-MOST} to {MOST}"


def priority_of(value: object, where: str) -> int:
    """A priority as a number: higher runs first. Raises ConfigError."""
    if isinstance(value, str) and value.strip().lower() in PRIORITIES:
        return PRIORITIES[value.strip().lower()]
    try:
        number = int(value) if isinstance(value, int | str) and not isinstance(value, bool) else None
    except ValueError:
        number = None
    return number if number is not None and abs(number) <= MOST else _refuse(value, where)


def _refuse(value: object, where: str) -> int:
    raise ConfigError(f"{where}: priority = {value!r} is no priority", hint=f"write {WORDS}", code="CONFIG_TYPE")


def moment_of(value: object, where: str) -> datetime:
    """A date and time with its zone, in UTC. Raises ConfigError, also where the zone is missing: nobody could know which was meant."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        inside = moment is None or moment.tzinfo is None or 1 < moment.year < 9999  # at either end no other zone can show it
    except ValueError:
        moment, inside = None, True
    if not inside:
        raise ConfigError(f"{where}: not_before = {value!r} lies at the end of the calendar", hint="write a year from 2 to 9998", code="CONFIG_VALUE")
    if moment is None or moment.tzinfo is None:
        missing = "has no zone" if moment is not None else "is no date and time"
        raise ConfigError(f"{where}: not_before = {value!r} {missing}", hint='write it like "2026-03-01T22:00+01:00"', code="CONFIG_TYPE")
    return moment.astimezone(UTC)
