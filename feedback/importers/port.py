"""What an importer gives: one judged answer of another system, and the readings that several formats share. Pure.

An importer is a module with `matches(records)`, whether these records are of its format, and `judged(records, wish)`, which
yields for each answer a `Judged`, or as a text why that record says nothing.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from core.signals import SignalKind

Record = Mapping[str, Any]
NOTHING_ASKED = "has no question before its answer"
NOT_JUDGED = "nobody judged it"
NO_TEXT = "has no answer in words"
UP = frozenset({"1", "1.0", "true", "up", "thumbsup", "like", "liked", "good", "positive", "yes", "correct"})
DOWN = frozenset({"-1", "-1.0", "0", "0.0", "false", "down", "thumbsdown", "dislike", "disliked", "bad", "negative", "no", "incorrect"})
MILLISECONDS = 1e11  # a time in seconds as large lies in the year 5138


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How to read: `score` is the name of the score that judges an answer; empty: those that are named like feedback."""

    score: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One answer: what was asked, what was said, what is right; and who judged, by the other system's names."""

    kind: SignalKind
    asked: tuple[Record, ...]
    answer: str = ""
    right: str = ""
    user: str = ""
    at: datetime | None = None
    reference: str = ""
    context: str = ""
    is_proposal: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)


class Importer(Protocol):
    """A format."""

    NAME: str

    def matches(self, record: Record) -> bool:
        """Whether a record looks like one of this format."""
        ...

    def judged(self, records: Sequence[Record], wish: Wish) -> Iterator[Judged | str]:
        """One for each answer that the records hold: what it says, or why it says nothing."""
        ...


def verdict_of(rating: object) -> SignalKind | None:
    """What a rating means: 1, true, "up", "thumbs_up" … are good, -1, 0, false, "down" … bad; None for any other."""
    word = str(rating).strip().lower()
    word = word if word in UP | DOWN or word[:1] == "-" else word.replace("-", "").replace("_", "")
    return SignalKind.POSITIVE if word in UP else SignalKind.MISTAKE if word in DOWN else None


def time_of(value: object) -> datetime | None:
    """A time as exports write it: seconds or milliseconds since the epoch, or ISO 8601; without a zone it is UTC."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000 if value > MILLISECONDS else value, UTC)
        if isinstance(value, str) and value:
            found = datetime.fromisoformat(value)
            return found if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None


def parsed(value: Any) -> Any:
    """A value that an export may have written as JSON text; any other text as it is."""
    if isinstance(value, str) and re.match(r"\s*[\[{]", value):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def turns_of(value: Any) -> list[Record]:
    """The messages of a conversation: a list of them, an object with `messages`, or a text, which is a user's turn. None: no turns."""
    value = parsed(value)
    if isinstance(value, str):
        return [{"role": "user", "content": value}] if value.strip() else []
    if isinstance(value, Mapping):
        inner = next((value[key] for key in ("messages", "prompt", "input", "question", "query") if key in value), None)
        return [value] if "role" in value and "content" in value else turns_of(inner) if inner is not None else []
    if isinstance(value, Sequence):
        return [message for message in value if isinstance(message, Mapping) and "role" in message]
    return []


def text_of(value: Any) -> str:
    """The answer in words: a text, a message, a list that ends with one, or a whole chat completion; empty where there is none."""
    value = parsed(value)
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        if isinstance(choices := value.get("choices"), Sequence) and choices:
            return text_of(choices[0])
        inner = next((value[key] for key in ("message", "content", "text", "output", "answer", "completion", "response") if value.get(key)), None)
        return text_of(inner) if inner is not None else ""
    if isinstance(value, Sequence) and value:
        if all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in value):
            return "".join(part["text"] for part in value)
        return text_of(value[-1])
    return ""
