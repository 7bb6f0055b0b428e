"""What of a log may leave the machine: lines of lorad's own that cannot quote a row. Pure.

A row's text lies in the inbox and the drops alone. The message of an exception that lorad did not raise may quote what it
failed on, so of such a one only its class is kept; of a traceback the places in lorad's own code.
"""

import re
from collections.abc import Iterable

OWN = ("cli", "core", "daemon", "deploy", "ranking", "rendering", "store", "trainer", "validation")
MOST_LINES = 8
MOST_CHARACTERS = 240

_LOGGED = re.compile(rf"\S+ \S+ (?P<level>INFO|WARNING|ERROR|CRITICAL) (?P<name>(?:{'|'.join(OWN)})[\w.]*|__main__): (?P<message>.*)")
_FRAME = re.compile(rf'  File ".*?(?P<file>(?:{"|".join(OWN)})/[\w/]+\.py)", line (?P<line>\d+), in (?P<function>[\w<>.]+)')
_RAISED = re.compile(r"(?P<kind>(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Stopped|Warning))(?::.*)?")
_QUOTES = re.compile(r"[A-Z]\w*(?:Error|Exception)\b.*", re.DOTALL)


def shareable(lines: Iterable[str], most: int = MOST_LINES) -> tuple[str, ...]:
    """The newest lines that may be shown outside, oldest first, at most so many."""
    kept = [text for line in lines if (text := _kept(line))]
    return tuple(text[:MOST_CHARACTERS] for text in kept[-most:])


def without_quotes(reason: str) -> str:
    """A failure's reason without the message of an exception that is not lorad's own: that may quote a row."""
    found = _RAISED.match(reason)
    return f"{found['kind']}; its message stands in the log" if found and ":" in reason else reason


def _kept(line: str) -> str:
    if (found := _LOGGED.fullmatch(line)) is not None:
        message = found["message"]
        foreign = _QUOTES.search(message)
        return f"{found['level']} {found['name']}: " + (message if foreign is None else message[: foreign.start()] + foreign[0].split(":")[0])
    if (found := _FRAME.match(line)) is not None:
        return f"at {found['file']}:{found['line']} in {found['function']}"
    if (found := _RAISED.fullmatch(line)) is not None:
        return found["kind"]
    return ""
