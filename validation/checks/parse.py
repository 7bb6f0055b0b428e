"""F05, F06, J: bytes that are not JSON, and JSON that parsers disagree about."""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rendering.rowtypes import ChatRow
from validation.case import Case
from validation.checks.registry import Broken, Check, Marks, Need, Value, entered
from validation.findings import Problem, Severity, shown

MAX_DEPTH = 64
_LONGEST_INTEGER = 400  # digits; Python refuses to parse 4,301, and a double ends at 309
_DUPLICATE_HINT = "parsers keep the last one in silence: keep the one that is meant"


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
        return int(digits[:_LONGEST_INTEGER])

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


@entered(Check("F05", "file.utf8", Severity.ERROR, Need.BROKEN, "the file is Latin-1 or Windows-1252? Convert it to UTF-8", rank=1))
def not_utf8(broken: Broken) -> Problem | None:
    """A byte that is not UTF-8."""
    raw = broken.line.raw
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        bad = raw[error.start]
        message = f"byte 0x{bad:02x} at offset {broken.line.offset + error.start:,} of the file (byte {error.start + 1:,} of its line) is not UTF-8"
        return Problem(message=message, fix="iconv -f WINDOWS-1252 -t UTF-8 {file} > {out}")
    return None


@entered(Check("F06", "file.nul", Severity.ERROR, Need.BROKEN, "the program or the disk failed while it was written: export the file again", rank=0))
def nul_bytes(broken: Broken) -> Problem | None:
    """Zero bytes, which a crash leaves behind."""
    place = broken.line.raw.find(b"\x00")
    if place < 0:
        return None
    return Problem(message=f"{broken.line.raw.count(0):,} NUL bytes, the first at offset {broken.line.offset + place:,} of the file")


# A string without its end takes the rest of the line: trying again behind each of its quotes would take minutes on 4 MiB.
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]')


@entered(Check("J08", "json.depth", Severity.ERROR, Need.BROKEN, "flatten the metadata: rows need three levels", rank=2))
def too_deep_to_parse(broken: Broken) -> Problem | None:
    """Nesting that parsers give up on."""
    depth = deepest = 0
    for token in _BRACKETS.finditer(broken.text or ""):
        depth += 1 if token[0] in "[{" else -1 if token[0] in "]}" else 0
        deepest = max(deepest, depth)
    return Problem(message=f"a row is nested {deepest:,} levels deep; the limit is {MAX_DEPTH}") if deepest > MAX_DEPTH else None


@entered(Check("J07", "json.control", Severity.ERROR, Need.BROKEN, r"write them as \n, \t, \u0000 inside strings; a JSON library does that by itself", rank=3))
def raw_control_character(broken: Broken) -> Problem | None:
    """A raw tab or another control character inside a string."""
    if not broken.error.startswith("Invalid control character"):
        return None
    letter = (broken.text or "")[broken.position : broken.position + 1]
    return Problem(message=f"a string holds the raw control character {shown(letter)} at character {broken.position + 1:,}")


@entered(Check("J03", "json.two_values", Severity.ERROR, Need.BROKEN, "a newline is missing between two rows", rank=4))
def two_values(broken: Broken) -> Problem | None:
    """A second object behind the first."""
    if not broken.error.startswith("Extra data") or _at(broken) not in ("{", "["):
        return None
    return Problem(message=f"a second value begins at character {broken.position + 1:,} of the line", fix=_ONE_A_LINE)


@entered(Check("J01", "json.parse", Severity.ERROR, Need.BROKEN, "write one JSON object a line, with a JSON library", rank=9))
def not_json(broken: Broken) -> Problem:
    """Anything else that does not parse, with what it looks like."""
    text = (broken.text or "").strip()
    for look in _LOOKS:
        if look.matches(broken, text):
            return Problem(message=f"{look.sentence}: {shown(text)}", kind=look.kind, hint=look.hint, fix=look.fix)
    return Problem(message=f"not JSON ({broken.error} at character {broken.position + 1:,}): {shown(text)}")


# --- what a line that is not JSON looks like

_ONE_A_LINE = "jq -c . {file} > {out}"
_UNROLL = "jq -c '.[]' {file} > {out}"
_FROM_PYTHON = """python3 -c "import ast, json, sys; [print(json.dumps(ast.literal_eval(row))) for row in open(sys.argv[1])]" {file} > {out}"""
_FROM_CSV = """python3 -c "import csv, json, sys; [print(json.dumps(row)) for row in csv.DictReader(open(sys.argv[1]))]" {file} > {out}"""
_KEY_LINE = re.compile(r'"[^"]*"\s*:')
_BARE_KEY = re.compile(r"[A-Za-z_$]")
_PYTHON_WORD = re.compile(r"(True|False|None)\b")


def _at(broken: Broken) -> str:
    return (broken.text or "")[broken.position : broken.position + 1]


def _array_item(broken: Broken, text: str) -> bool:
    if (broken.text or "").rstrip() in ("[", "]") or (broken.error.startswith("Extra data") and _at(broken) == "," and text.startswith("{")):
        return True
    return broken.line.number == 1 and text.startswith("[{") and not text.endswith("]")


def _one_of_many_lines(broken: Broken, text: str) -> bool:
    return not text.strip("{}[], \t") or bool(_KEY_LINE.match(text))


def _python_literal(broken: Broken, text: str) -> bool:
    return text.startswith(("{'", "{ '", "[{'")) or bool(_PYTHON_WORD.match((broken.text or "")[broken.position :])) or _at(broken) == "'"


def _trailing_comma(broken: Broken, text: str) -> bool:
    whole = broken.text or ""
    before, after = whole[: broken.position + 1].rstrip("}] \t"), whole[broken.position :].lstrip(", \t")
    return before.endswith(",") and after.startswith(("}", "]"))


def _ends_early(broken: Broken, text: str) -> bool:
    return text.startswith(("{", "[")) and (broken.error.startswith("Unterminated string") or broken.position >= len((broken.text or "").rstrip()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    kind: str
    matches: Callable[[Broken, str], bool]
    sentence: str
    hint: str
    fix: str = ""


_LOOKS = (
    _Look(
        kind="conflict",
        matches=lambda broken, text: text.startswith(("<<<<<<< ", ">>>>>>> ", "||||||| ")) or text == "=======",
        sentence="a marker of an unfinished merge",
        hint="finish the merge in the file's repository, then drop the file again",
    ),
    _Look(
        kind="array",
        matches=_array_item,
        sentence="this looks like a part of one JSON array",
        hint="take the array apart: one object a line, no commas between",
        fix=_UNROLL,
    ),
    _Look(
        kind="pretty",
        matches=_one_of_many_lines,
        sentence="this looks like one line of an object that is spread over several",
        hint="the file is pretty-printed: write each object on one line",
        fix=_ONE_A_LINE,
    ),
    _Look(
        kind="comment",
        matches=lambda broken, text: text.startswith(("//", "#", "/*")),
        sentence="a comment",
        hint="JSON Lines has no comments: delete the line",
    ),
    _Look(
        kind="single_quotes",
        matches=_python_literal,
        sentence="this looks like Python, not JSON: single quotes, True, False or None",
        hint="write rows with json.dumps, not with print or str",
        fix=_FROM_PYTHON,
    ),
    _Look(
        kind="typographic_quotes",
        matches=lambda broken, text: _at(broken) in "“”„«»‘’" and bool(_at(broken)),
        sentence="typographic quotes where JSON has straight ones",
        hint='a word processor changed them: use " as the quote',
    ),
    _Look(kind="trailing_comma", matches=_trailing_comma, sentence="a comma before a closing bracket", hint="delete the last comma"),
    _Look(
        kind="bare_key",
        matches=lambda broken, text: broken.error.startswith("Expecting property name") and bool(_BARE_KEY.match(_at(broken))),
        sentence="a key without quotes",
        hint="this is JavaScript, not JSON: put keys in double quotes",
    ),
    _Look(
        kind="bom",
        matches=lambda broken, text: text.startswith("\ufeff"),
        sentence="a byte order mark inside the file",
        hint="several files were joined; take the mark out of each but the first",
        fix="LC_ALL=C sed 's/^\\xef\\xbb\\xbf//' {file} > {out}",
    ),
    _Look(
        kind="cut",
        matches=lambda broken, text: not broken.line.ended and _ends_early(broken, text),
        sentence="the last row is cut off",
        hint="the export or the copy was interrupted: make the file again, or delete its last line",
        fix="sed '$d' {file} > {out}",
    ),
    _Look(
        kind="ends_early",
        matches=_ends_early,
        sentence="the row ends before its object does",
        hint="the row was cut off, or holds a raw line break where \\n should stand",
    ),
    _Look(
        kind="csv",
        matches=lambda broken, text: not text.startswith(("{", "[")) and any(mark in text for mark in ",;\t"),
        sentence="this looks like a row of a table (CSV)",
        hint="turn each row of the table into a JSON object with the columns as keys",
        fix=_FROM_CSV,
    ),
    _Look(
        kind="text",
        matches=lambda broken, text: not text.startswith(("{", "[", '"')),
        sentence="this is plain text",
        hint="every line must be a JSON object",
    ),
)


# --- lines that are JSON, and what parsers pass over in silence


@entered(Check("J02", "json.not_object", Severity.ERROR, Need.VALUE, "every line must be one JSON object", rank=0))
def not_an_object(value: Value) -> Problem | None:
    """A list, a string, a number."""
    plain = value.plain
    if isinstance(plain, dict):
        return None
    if isinstance(plain, list):
        message = f"the row is a list of {len(plain):,} values"
        return Problem(message=message, kind="list", hint="take the array apart: one object a line", fix=_UNROLL)
    return Problem(message=f"the row is no object: {shown(plain)}")


@entered(Check("J04", "json.nonfinite", Severity.ERROR, Need.VALUE, "no such number exists in JSON: leave the key out", rank=1))
def not_finite(value: Value) -> Problem | None:
    """NaN, Infinity, or a number that no float can hold."""
    return Problem(message=f"a number is {shown(value.marks.nonfinite[0])}") if value.marks.nonfinite else None


@entered(Check("J06", "json.surrogate", Severity.ERROR, Need.VALUE, "an emoji was cut in half when it was written: export the row again", rank=2))
def lone_surrogate(value: Value) -> Problem | None:
    r"""Half of a pair such as `\ud83d`, which stands for no character."""
    return Problem(message="a string holds half of a surrogate pair") if value.marks.surrogate else None


@entered(Check("J05", "json.duplicate_key", Severity.ERROR, Need.VALUE, _DUPLICATE_HINT, rank=3))
def duplicate_key(value: Value) -> Problem | None:
    """One key twice in one object."""
    return Problem(message=f"the key {shown(value.marks.duplicates[0])} stands twice in one object") if value.marks.duplicates else None


@entered(Check("J08", "json.depth", Severity.ERROR, Need.VALUE, "flatten the metadata: rows need three levels", rank=4))
def too_deep(value: Value) -> Problem | None:
    """Nesting beyond reason in a row that is not of the spec."""
    return _deep(value.marks.depth)


@entered(Check("J08", "json.depth", Severity.ERROR, Need.ROW, "flatten the metadata: rows need three levels", rank=1))
def too_deep_metadata(case: Case) -> Problem | None:
    """Nesting beyond reason in a row that is of the spec: only its metadata can be deep."""
    return _deep(depth_of(case.row.metadata) + 1) if case.row.metadata else None


def _deep(depth: int) -> Problem | None:
    return Problem(message=f"a row is nested {depth:,} levels deep; the limit is {MAX_DEPTH}") if depth > MAX_DEPTH else None


_ESCAPED_ASCII = re.compile(rb"\\u00[2-7]")


@entered(Check("J05", "json.duplicate_key", Severity.ERROR, Need.ROW, _DUPLICATE_HINT))
def duplicate_key_in_a_row(case: Case) -> Problem | None:
    """A typed decoder keeps the last of two keys in silence: count the keys, and look closer where the count is odd."""
    if not _may_hold_duplicates(case):
        return None
    try:
        _, marks = forgiving(case.raw.decode())
    except (RecursionError, ValueError):
        return None  # J08 names the first; the typed decoder has taken the row all the same
    return Problem(message=f"the key {shown(marks.duplicates[0])} stands twice in one object") if marks.duplicates else None


def _may_hold_duplicates(case: Case) -> bool:
    raw = case.raw
    if case.row.metadata or raw.count(b'"metadata"') > 1 or raw.count(b'"weight"') > 1 or raw.count(b'"name"') > 1 or raw.count(b'"id"') > 1:
        return True
    if isinstance(case.row, ChatRow):
        turns = len(case.messages)
        odd = raw.count(b'"role"') != turns or raw.count(b'"content"') != turns or raw.count(b'"messages"') != 1
    else:
        odd = raw.count(b'"prompt"') != 1 or raw.count(b'"completion"') != 1
    # A key may be written with escapes ("r\u006fle"), which a count does not see.
    return odd or (b"\\u00" in raw and _ESCAPED_ASCII.search(raw) is not None)
