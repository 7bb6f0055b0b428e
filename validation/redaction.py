"""Takes secrets and personal data out of texts: each becomes a mark of its kind, all else stays as it was.

What is taken out is exactly what the checks D07 and D08 find, so a redacted text is clean to them.
"""

import json
import re
from typing import Any

import msgspec

from validation.checks import personal, secrets
from validation.patterns import OWN_KEYS, Span, inner_json

_STRING = re.compile(r'(?P<string>"(?:[^"\\]|\\.)*+")(?P<colon>\s*+:)?')
_MOST_ROUNDS = 4  # what is taken out may uncover a neighbour


def redact(text: str, key: str = "") -> tuple[str, list[str]]:
    """The text with marks such as [REDACTED:github-token] and [EMAIL], and the kinds of what was taken out, in order.

    Args: key: the JSON key that the text stands under, where there is one: it may tell what a bare value is. A text that
    is itself a JSON object or list, as tool arguments are, is also redacted inside its strings.
    """
    before = f"{key} = " if key and key not in OWN_KEYS else ""
    whole, kinds = before + text, list[str]()
    for _ in range(_MOST_ROUNDS):
        spans = [span for span in _spans(whole) if span.start >= len(before)]
        if not spans:
            break
        for span in reversed(spans):
            whole = whole[: span.start] + mark(span.kind) + whole[span.end :]
        kinds += [span.kind for span in spans]
    text = whole[len(before) :]
    if inner_json(text) is not None:
        text, found = _inside(text)
        kinds += found
    return text, kinds


def _inside(text: str) -> tuple[str, list[str]]:
    """A JSON text with its strings redacted one by one; numbers, blanks and order stay as they were written."""
    parts, kinds, key, end = [], list[str](), "", 0
    for literal in _STRING.finditer(text):
        if literal["colon"]:
            key = msgspec.json.decode(literal["string"])
            continue
        value, found = redact(msgspec.json.decode(literal["string"]), key)
        if found:
            parts += [text[end : literal.start()], json.dumps(value, ensure_ascii=False)]
            end = literal.end()
            kinds += found
    return "".join([*parts, text[end:]]), kinds


def redact_value(value: Any, key: str = "") -> tuple[Any, list[str]]:
    """A JSON value with every string in it redacted, and the kinds of what was taken out. Keys of objects stay."""
    if isinstance(value, str):
        return redact(value, key)
    kinds: list[str] = []
    if isinstance(value, dict):
        changed: Any = {}
        for name, inner in value.items():
            changed[name], found = redact_value(inner, name)
            kinds += found
        return changed, kinds
    if isinstance(value, list):
        changed = []
        for inner in value:
            item, found = redact_value(inner, key)
            changed.append(item)
            kinds += found
        return changed, kinds
    return value, kinds


def mark(kind: str) -> str:
    """What stands in the place of a value: [EMAIL] for personal data, [REDACTED:aws-key] for a secret."""
    return f"[{kind}]" if kind.isupper() else f"[REDACTED:{kind}]"


def _spans(text: str) -> list[Span]:
    """Secrets, and the personal data that no secret overlaps, in order."""
    secret, person = secrets.compiled().in_text(text), personal.compiled().in_text(text)
    kept = [span for span in person if all(span.end <= other.start or other.end <= span.start for other in secret)]
    return sorted(secret + kept, key=lambda span: span.start)
