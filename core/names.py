"""Names of adapters and identifiers of jobs, drops and runs."""

import re
from datetime import UTC, datetime, timedelta

from core.errors import UsageError

DEFAULT_ADAPTER = "default/main"
DEFAULT_HOME = "var"  # beside the config
DEFAULT_BASE = "smollm2-135m-instruct"
SENTENCE_MODEL = "all-minilm-l6-v2"  # with which the gate's deepest level compares meanings
PART = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
SHARED = "shared"  # persona of adapters that are imported and belong to nobody's drops
RESERVED = frozenset({"rejected", SHARED, "base"})
RESERVED_ENDINGS = (".jsonl", ".json", ".drop", ".part")


def is_part(name: str) -> bool:
    """Whether `name` may be a persona or a domain."""
    return bool(PART.fullmatch(name)) and name not in RESERVED and not name.endswith(RESERVED_ENDINGS)


def parse_adapter(text: str, *, shared: bool = False) -> str:
    """`persona` or `persona/domain` as the full adapter name. With `shared`, the reserved persona of adapters that no drop
    may train (`shared/tone`) is one too. Raises UsageError."""
    parts = text.split("/")
    if len(parts) == 1:
        parts.append("main")
    fit = parts[1:] if shared and parts[0] == SHARED else parts
    if len(parts) != 2 or not all(is_part(part) for part in fit):
        raise UsageError(
            f"adapter name {text!r} is not persona/domain",
            hint="use two names of a-z, 0-9, '.', '_', '-' (64 at most, not rejected, shared or base), for example support/tone",
            code="ADAPTER_NAME",
        )
    return "/".join(parts)


def stamp(now: datetime, suffix: str) -> str:
    """A time-sortable identifier body: UTC to the millisecond plus a random suffix made by the caller."""
    return f"{now:%Y%m%d-%H%M%S}-{now.microsecond // 1000:03d}-{suffix}"


def stamp_after(newest: str, now: datetime, suffix: str) -> str:
    """The same, but never at or before the identifier `newest`: names keep their order where several are made in a
    millisecond, and where the clock was set back."""
    try:
        day, time_of_day, milliseconds = newest.split("-")[1:4]
        least = datetime.strptime(f"{day}{time_of_day}{milliseconds}+0000", "%Y%m%d%H%M%S%f%z") + timedelta(milliseconds=1)
    except ValueError:
        return stamp(now, suffix)
    return stamp(max(now.astimezone(UTC), least), suffix)
