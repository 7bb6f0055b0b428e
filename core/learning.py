"""The config of what lorad makes examples of by itself: skills and their teachers."""

from pydantic import field_validator

from core.errors import UsageError
from core.names import is_part, parse_adapter
from core.sections import Section


def _adapter(name: str) -> str:
    try:
        return name if name in ("", "*") else parse_adapter(name)
    except UsageError as error:
        raise ValueError(f"{error.what}; {error.hint}") from None


class SkillConfig(Section):
    """A teacher of one skill."""

    url: str
    """Where its HTTP service listens, for example http://127.0.0.1:8080."""
    adapter: str = ""
    """Adapter that learns it; empty means skills/<name>."""

    @field_validator("url")
    @classmethod
    def _http(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("a teacher is reached by http:// or https://")
        return value.rstrip("/")

    @field_validator("adapter")
    @classmethod
    def _known(cls, value: str) -> str:
        return _adapter(value)


def known_names(value: dict[str, object]) -> dict[str, object]:
    """The mapping, where every name of it may be a part of a path. Raises ValueError."""
    for name in value:
        if not is_part(name):
            raise ValueError(f"{name!r}: use a-z, 0-9, '.', '_', '-'")
    return value
