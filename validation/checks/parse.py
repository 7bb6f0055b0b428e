"""F05, F06, J: bytes that are not JSON, and JSON that parsers disagree about. What a line looks like instead: looks.py."""

import json
import re
from collections import Counter
from typing import Any

from validation.checks.registry import Broken, Check, Marks, Need, Value, entered
from validation.findings import Problem, Severity, shown

MAX_DEPTH = 64
LEAST_INTEGER, LARGEST_INTEGER = -(1 << 63), (1 << 64) - 1
_LONGEST_INTEGER = 400  # digits; Python refuses to parse 4,301, and a double ends at 309
_SAFE_DIGITS = 18  # any integer of so many digits fits
DUPLICATE_HINT = "parsers keep the last one in silence: keep the one that is meant"
DUPLICATE_WHY = "which of the two the model learns is chance"
DEPTH_HINT = "flatten the metadata: rows need three levels"
DEPTH_WHY = "parsers give up on such rows, each at another depth"
BIGINT_HINT = "write ids and other large numbers as texts"
BIGINT_WHY = "many readers round such a number or refuse the file"


# --- the forgiving parser: Python's own, with hooks that note what it would pass over


def forgiving(text: str) -> tuple[Any, Marks]:
    """The value of a JSON text and the marks of what a strict parser refuses in it.

    Raises json.JSONDecodeError, RecursionError.
    """
    marks = Marks()

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            marks.duplicates += sorted(key for key, count in Counter(key for key, _ in items).items() if count > 1)
        return found

    def real(digits: str) -> float:
        value = float(digits)
        if value in (float("inf"), float("-inf")):
            marks.nonfinite.append(digits)
        return value

    def integer(digits: str) -> int:
        value = int(digits[:_LONGEST_INTEGER])
        if len(digits) > _SAFE_DIGITS and not LEAST_INTEGER <= value <= LARGEST_INTEGER:
            marks.big_integer = marks.big_integer or digits
        return value

    def constant(word: str) -> float:
        marks.nonfinite.append(word)
        return float(word)

    value = json.loads(text, object_pairs_hook=pairs, parse_float=real, parse_int=integer, parse_constant=constant)
    marks.surrogate = "\\ud" in text.lower() and _has_surrogate(value)
    marks.depth = depth_of(value)
    return value, marks


def _has_surrogate(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def depth_of(value: Any) -> int:
    """How deep objects and lists are nested, without recursion."""
    deepest, rest = 0, [(value, 1)]
    while rest:
        inner, depth = rest.pop()
        if isinstance(inner, dict | list):
            deepest = max(deepest, depth)
            rest.extend((child, depth + 1) for child in (inner.values() if isinstance(inner, dict) else inner) if isinstance(child, dict | list))
    return deepest


# --- lines that are not JSON; the first that answers names the cause


@entered(
    Check(
        "F06",
        "file.nul",
        Severity.ERROR,
        Need.BROKEN,
        "the program or the disk failed while it was written: export the file again",
        why="the text that stood there is lost",
        rank=0,
    )
)
def nul_bytes(broken: Broken) -> Problem | None:
    """Zero bytes, which a crash leaves behind."""
    raw = broken.line.raw
    place = raw.find(b"\x00")
    if place < 0:
        return None
    is_rest = place == 0 and raw.count(0) == 1  # of the newline before
    if is_rest or (len(raw) > 8 and 0.4 < raw.count(0) / len(raw) < 0.6 and b"\x00\x00" not in raw):
        hint = "a part of the file is UTF-16: write every part as UTF-8 before they are joined"
        return Problem(message=f"every second byte from offset {broken.line.offset + place:,} of the file on is NUL", kind="utf16", hint=hint)
    return Problem(message=f"{raw.count(0):,} NUL bytes, the first at offset {broken.line.offset + place:,} of the file")


@entered(
    Check(
        "F05",
        "file.utf8",
        Severity.ERROR,
        Need.BROKEN,
        "is the file Latin-1 or Windows-1252? `iconv -f WINDOWS-1252 -t UTF-8` converts a whole file; the command converts only what is not UTF-8",
        why="a guess at the encoding would teach the model broken letters",
        rank=1,
    )
)
def not_utf8(broken: Broken) -> Problem | None:
    """A byte that is not UTF-8."""
    raw = broken.line.raw
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        bad = raw[error.start]
        place = f"at offset {broken.line.offset + error.start:,} of the file (byte {error.start + 1:,} of its line)"
        message = f"byte 0x{bad:02x} {place} is not UTF-8"
        if bad == 0xED and raw[error.start + 1 : error.start + 2] >= b"\xa0":
            hint = "an emoji was written as two halves (CESU-8, as old Java and MySQL do): export it as UTF-8"
            return Problem(message=message, kind="cesu8", hint=hint)
        if error.reason == "unexpected end of data":
            hint = "a letter was cut in half: the export or the copy ended too early, or a text was cut at a number of bytes"
            return Problem(message=message, kind="cut", hint=hint)
        if _foreign_letters(raw[error.start :]):
            hint = "the file is in another encoding, not in UTF-8 (`file -i` guesses which): convert it with iconv"
            return Problem(message=message, kind="foreign", hint=hint)
        return Problem(message=message, fix="lorad fix {file} -o {out} --repair encoding")
    return None


_HIGH_RUN = re.compile(rb"[\x80-\xff]{6}")


def _foreign_letters(raw: bytes) -> bool:
    """Whether whole words are outside ASCII: Cyrillic, Greek, Chinese, Japanese; a Western text has single letters so."""
    return _HIGH_RUN.search(raw[:4096]) is not None


# A string without its end takes the rest of the line: trying again behind each of its quotes would take minutes on 4 MiB.
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]')


@entered(Check("J08", "json.depth", Severity.ERROR, Need.BROKEN, DEPTH_HINT, why=DEPTH_WHY, rank=2))
def too_deep_to_parse(broken: Broken) -> Problem | None:
    """Nesting that parsers give up on."""
    depth = deepest = 0
    for token in _BRACKETS.finditer(broken.text or ""):
        depth += 1 if token[0] in "[{" else -1 if token[0] in "]}" else 0
        deepest = max(deepest, depth)
    return Problem(message=f"a row is nested {deepest:,} levels deep; the limit is {MAX_DEPTH}") if deepest > MAX_DEPTH else None


@entered(
    Check(
        "J07",
        "json.control",
        Severity.ERROR,
        Need.BROKEN,
        r"write them as \n, \t, \u0000 inside strings; a JSON library does that by itself",
        why="a strict reader refuses the row, a lenient one changes its text",
        rank=3,
    )
)
def raw_control_character(broken: Broken) -> Problem | None:
    """A raw tab or another control character inside a string."""
    if not broken.error.startswith("Invalid control character"):
        return None
    letter = (broken.text or "")[broken.position : broken.position + 1]
    return Problem(message=f"a string holds the raw control character {shown(letter)} at character {broken.position + 1:,}")


_NOT_FINITE = re.compile(r"[-+]?(?:nan|inf(?:inity)?)\b", re.IGNORECASE)


@entered(
    Check(
        "J04",
        "json.nonfinite",
        Severity.ERROR,
        Need.BROKEN,
        "no such number exists in JSON: write null or leave the key out",
        why="readers refuse the row, or read another number",
        rank=4,
    )
)
def not_finite_by_another_name(broken: Broken) -> Problem | None:
    """`nan` and `inf` as C and Python print them."""
    found = _NOT_FINITE.match((broken.text or "")[broken.position : broken.position + 12])
    return Problem(message=f"a number is {shown(found[0])}") if found and broken.error.startswith("Expecting value") else None


# --- lines that are JSON, and what parsers pass over in silence


@entered(
    Check(
        "J02",
        "json.not_object",
        Severity.ERROR,
        Need.VALUE,
        "every line must be one JSON object",
        why="a row without keys does not say what is asked and what is to be learnt",
        rank=0,
    )
)
def not_an_object(value: Value) -> Problem | None:
    """A list, a string, a number."""
    plain = value.plain
    if isinstance(plain, dict):
        return None
    if isinstance(plain, list):
        message = f"the row is a list of {len(plain):,} values"
        if plain and all(isinstance(one, dict) and ("role" in one or "from" in one) for one in plain):
            hint = 'a row is an object: write {"messages": […]} around its turns'
            return Problem(message=message, kind="turns", hint=hint, fix="jq -c '{messages: .}' {file} > {out}")
        fix = f"lorad fix {{file}} -o {{out}} --schema {value.spec.id}" if plain and isinstance(plain[0], dict) else ""
        return Problem(message=message, kind="list", hint="take the array apart: one object a line", fix=fix)
    told = shown(plain) if isinstance(plain, str) else shown(json.dumps(plain))[1:-1]
    return Problem(message=f"the row is no object: {told}")


@entered(
    Check(
        "J04",
        "json.nonfinite",
        Severity.ERROR,
        Need.VALUE,
        "no such number exists in JSON: write null or leave the key out",
        why="readers refuse the row, or read another number",
        rank=1,
    )
)
def not_finite(value: Value) -> Problem | None:
    """NaN, Infinity, or a number that no float can hold."""
    return Problem(message=f"a number is {shown(value.marks.nonfinite[0])}") if value.marks.nonfinite else None


@entered(
    Check(
        "J06",
        "json.surrogate",
        Severity.ERROR,
        Need.VALUE,
        "an emoji was cut in half when it was written: export the row again",
        why="half a character is no text: it cannot be written as UTF-8",
        rank=2,
    )
)
def lone_surrogate(value: Value) -> Problem | None:
    r"""Half of a pair such as `\ud83d`, which stands for no character."""
    return Problem(message="a string holds half of a surrogate pair") if value.marks.surrogate else None


@entered(Check("J05", "json.duplicate_key", Severity.ERROR, Need.VALUE, DUPLICATE_HINT, why=DUPLICATE_WHY, rank=3))
def duplicate_key(value: Value) -> Problem | None:
    """One key twice in one object."""
    return twice(value.marks)


@entered(Check("J08", "json.depth", Severity.ERROR, Need.VALUE, DEPTH_HINT, why=DEPTH_WHY, rank=4))
def too_deep(value: Value) -> Problem | None:
    """Nesting beyond reason in a row that is not of the spec."""
    return deep(value.marks.depth)


@entered(Check("J09", "json.bigint", Severity.WARNING, Need.VALUE, BIGINT_HINT, why=BIGINT_WHY, rank=5))
def large_integer(value: Value) -> Problem | None:
    """An integer that 64 bit do not hold, in a row that is not of the spec."""
    return big(value.marks.big_integer) if value.marks.big_integer else None


def twice(marks: Marks) -> Problem | None:
    """J05."""
    return Problem(message=f"the key {shown(marks.duplicates[0])} stands twice in one object") if marks.duplicates else None


def deep(depth: int) -> Problem | None:
    """J08."""
    return Problem(message=f"a row is nested {depth:,} levels deep; the limit is {MAX_DEPTH}") if depth > MAX_DEPTH else None


def big(digits: str, path: str = "") -> Problem:
    """J09."""
    return Problem(message=f"the integer {shown(digits)[1:-1]} does not fit into 64 bit", path=path)
