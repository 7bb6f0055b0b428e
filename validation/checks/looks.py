"""J01, J03: what a line that is not JSON looks like, and files that are one document instead of one row a line."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from validation.checks.files import BOM
from validation.checks.registry import Broken, Check, Need, entered
from validation.findings import Problem, Severity, shown

_JSON_HINT = "write one JSON object a line, with a JSON library"
_JSON_WHY = "a row that cannot be read is a row that is not learnt"

_UNROLL = "lorad fix {file} -o {out}"
_FROM_PYTHON = """python3 -c "import ast, json, sys; [print(json.dumps(ast.literal_eval(row))) for row in open(sys.argv[1])]" {file} > {out}"""


def _where_rows_meet(separator: str) -> str:
    """Newlines for separators between rows and behind the last; those inside texts stay."""
    return f"LC_ALL=C sed -e 's/}}{separator} *{{/}}\\n{{/g' -e 's/}}{separator} *$/}}/' {{file}} > {{out}}"


# Characters that some programs take for line ends, and JSON Lines does not.
_SEPARATORS = {
    "\r": ("carriage returns, as old Mac programs end lines", _UNROLL),
    "\u2028": ("U+2028 (line separator)", _where_rows_meet(r"\xe2\x80\xa8")),
    "\u2029": ("U+2029 (paragraph separator)", _where_rows_meet(r"\xe2\x80\xa9")),
    "\x85": ("U+0085 (next line)", _where_rows_meet(r"\xc2\x85")),
    "\x0b": ("vertical tabs", _where_rows_meet(r"\x0b")),
    "\x0c": ("form feeds", _where_rows_meet(r"\x0c")),
    "\x1e": ("record separators", _where_rows_meet(r"\x1e")),
}


def _from_table(delimiter: str) -> str:
    argument = "" if delimiter == "," else f", delimiter='{chr(92)}t'" if delimiter == "\t" else f", delimiter='{delimiter}'"
    return f"""python3 -c "import csv, json, sys; [print(json.dumps(row)) for row in csv.DictReader(open(sys.argv[1]){argument})]" {{file}} > {{out}}"""


# --- the whole file is one document


_FIRST_KEY = re.compile(rb'\[\s*\{\s*"((?:[^"\\]|\\.)*)"')
_TURN_KEYS = (b"role", b"from", b"content", b"value", b"type", b"name")  # a row that is a list of turns is not a whole file


@entered(
    Check("J02", "json.not_object", Severity.ERROR, Need.HEAD, "take the array apart: one object a line", why="every line is read as a row of its own", rank=2)
)
def one_array(head: bytes) -> Problem | None:
    """The file begins as one JSON array, on one line or on many."""
    text = head.removeprefix(BOM).lstrip()
    if not text.startswith(b"["):
        return None
    first, newline, _ = text.partition(b"\n")
    key = _FIRST_KEY.match(text)
    alone = bool(newline) and first.strip() == b"["
    if alone or (key and (key[1] not in _TURN_KEYS or (newline and first.rstrip().endswith(b",")))):
        where = "over several lines" if alone or (newline and first.rstrip().endswith(b",")) else "of objects"
        return Problem(message=f"the file is one JSON array {where}", kind="array", fix=_UNROLL, lines=(1,), count=1)
    return None


@entered(Check("J01", "json.parse", Severity.ERROR, Need.HEAD, _JSON_HINT, why=_JSON_WHY, rank=3))
def one_document(head: bytes) -> Problem | None:
    """The file begins as a pretty-printed object, or as a table with a line of column names."""
    text = head.removeprefix(BOM).lstrip()
    first, newline, _ = text.partition(b"\n")
    if newline and first.strip() == b"{":
        hint = "the file is pretty-printed: write each object on one line"
        return Problem(message="objects are spread over several lines", kind="pretty", hint=hint, fix=_UNROLL, lines=(1,), count=1)
    delimiter = _delimiter(first) if newline else ""
    if delimiter:
        kind = {"\t": "a table with tabs (TSV)", ",": "a table (CSV)"}.get(delimiter, f"a table with {delimiter!r} between its columns (CSV)")
        hint = "turn each row of the table into a JSON object with the columns as keys"
        message = f"the file is {kind}; its columns are {shown(first.decode('utf-8', 'replace').strip())}"
        return Problem(message=message, kind="csv", hint=hint, fix=_from_table(delimiter), lines=(1,), count=1)
    return None


_COLUMN = re.compile(rb'"?[A-Za-z_][\w .-]{0,40}"?')
_COLUMNS = frozenset(
    b"prompt completion question answer instruction input output response messages text content role id label chosen rejected correction "
    b"query target system context source category user assistant human model_output conversation conversations title topic".split()
)


def _delimiter(line: bytes) -> str:
    """What stands between the column names of a table's first line; empty where the line is none."""
    for delimiter in (b"\t", b",", b";", b"|"):
        names = [name.strip() for name in line.strip().split(delimiter)]
        if len(names) > 1 and all(_COLUMN.fullmatch(name) for name in names):
            return delimiter.decode() if any(name.strip(b'"').lower() in _COLUMNS for name in names) else ""
    return ""


# --- single lines


@entered(Check("J03", "json.two_values", Severity.ERROR, Need.BROKEN, "a newline is missing between two rows", why="a reader takes the first or none", rank=5))
def two_values(broken: Broken) -> Problem | None:
    """A second object behind the first."""
    if not broken.error.startswith("Extra data"):
        return None
    text, place = broken.text or "", broken.position
    separator = next((letter for letter in text[place:].lstrip(" \t")[:1] + _blanks_before(text, place) if letter in _SEPARATORS), "")
    if separator and text[place:].lstrip("".join(_SEPARATORS) + " \t\n")[:1] in ("{", "[", ""):
        words, fix = _SEPARATORS[separator]
        hint = "JSON Lines ends each row with a newline (\\n): write the file so"
        return Problem(message=f"rows are separated by {words}, not by newlines", kind=f"separator {separator!a}", hint=hint, fix=fix)
    if text[place : place + 1] not in ("{", "["):
        return None
    return Problem(message=f"a second value begins at character {place + 1:,} of the line", fix=_UNROLL)


def _blanks_before(text: str, place: int) -> str:
    """The blanks that stand before a place: JSON takes a carriage return for one."""
    start = place
    while start and text[start - 1] in " \t\r":
        start -= 1
    return text[start:place]


@entered(Check("J01", "json.parse", Severity.ERROR, Need.BROKEN, _JSON_HINT, why=_JSON_WHY, rank=9))
def not_json(broken: Broken) -> Problem:
    """Anything else that does not parse, with what it looks like."""
    text = (broken.text or "").strip()
    for look in _LOOKS:
        if look.matches(broken, text):
            return Problem(message=f"{look.sentence}: {shown(text)}", kind=look.kind, hint=look.hint, fix=look.fix)
    return Problem(message=f"not JSON ({broken.error} at character {broken.position + 1:,}): {shown(text)}")


_KEY_LINE = re.compile(r'"[^"]*"\s*:')
_STRING_LINE = re.compile(r'"(?:[^"\\]|\\.)*"\s*,?$|-?[0-9][0-9.eE+-]*\s*,?$')
_PREFIX = re.compile(r'[^{"\[\]}]{1,80}\{\s*"')
_BARE_KEY = re.compile(r"[A-Za-z_$]")
_PYTHON_WORD = re.compile(r"(True|False|None)\b")


def _at(broken: Broken) -> str:
    return (broken.text or "")[broken.position : broken.position + 1]


def _array_item(broken: Broken, text: str) -> bool:
    if text in ("[", "]") and broken.line.ended:
        return True
    if broken.line.number == 1 and text.startswith("[{") and not text.endswith("]"):
        return True
    return text.startswith(("{", ",{", ", {")) and (text.startswith(",") or (broken.error.startswith("Extra data") and _at(broken) in (",", "]")))


def _one_of_many_lines(broken: Broken, text: str) -> bool:
    if not text.strip("{}[], \t"):
        return broken.line.ended or broken.line.number > 1
    return bool(_KEY_LINE.match(text) or _STRING_LINE.match(text))


def _python_literal(broken: Broken, text: str) -> bool:
    if text.startswith(("{'", "{ '", "[{'")) or _PYTHON_WORD.match((broken.text or "")[broken.position :]):
        return True
    return _at(broken) == "'"


def _trailing_comma(broken: Broken, text: str) -> bool:
    whole = broken.text or ""
    before, after = whole[: broken.position + 1].rstrip("}] \t"), whole[broken.position :].lstrip(", \t")
    return before.endswith(",") and after.startswith(("}", "]"))


def _comment(broken: Broken, text: str) -> bool:
    whole, place = broken.text or "", broken.position
    inside = whole[place : place + 2].startswith(("//", "/*")) or (broken.error.startswith("Extra data") and _at(broken) == "#")
    return text.startswith(("//", "#", "/*")) or inside


def _ends_early(broken: Broken, text: str) -> bool:
    return text.startswith(("{", "[", '"')) and (
        broken.error.startswith("Unterminated string") or broken.position >= len((broken.text or "").rstrip(" \t\r\n"))
    )


def _tail(broken: Broken, text: str) -> bool:
    return not text.startswith(("{", "[")) and text.endswith(('"}', '"}]}', '"}]', '"} ]}')) and _at(broken) != "'"


def _open_quote(broken: Broken, text: str) -> bool:
    whole, place = broken.text or "", broken.position
    return broken.error.startswith("Expecting ',' delimiter") and whole[:place].rstrip().endswith('"') and _at(broken) not in ('"', "")


def _table_row(broken: Broken, text: str) -> bool:
    return not text.startswith(("{", "[")) and any(mark in text for mark in ",;\t")


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
        matches=lambda broken, text: text.startswith(("<<<<<<< ", ">>>>>>> ", "||||||| ")) or text in ("=======", "|||||||"),
        sentence="a marker of an unfinished merge",
        hint="finish the merge in the file's repository, then drop the file again",
    ),
    _Look(
        kind="bom",
        matches=lambda broken, text: text.startswith("\ufeff"),
        sentence="a byte order mark inside the file",
        hint="several files were joined; take the mark out of each but the first",
        fix=_UNROLL,
    ),
    _Look(
        kind="sequence",
        matches=lambda broken, text: (broken.text or "").startswith("\x1e"),
        sentence="a record separator before the row",
        hint="this is a JSON text sequence (RFC 7464), not JSON Lines: take the separators out",
        fix="tr -d '\\036' < {file} > {out}",
    ),
    _Look(
        kind="event",
        matches=lambda broken, text: text.startswith(("data:", "event:")) and (text.startswith("event:") or "{" in text or "[DONE]" in text),
        sentence="an event of a stream",
        hint="an API's stream was saved as it came: take the word data: away, and join the pieces of each answer",
        fix="sed -n 's/^data: *{/{/p' {file} > {out}",
    ),
    _Look(
        kind="web",
        matches=lambda broken, text: text[:15].lower().startswith(("<!doctype", "<html", "<head", "<body", "<?xml", "</html")),
        sentence="a piece of a web page",
        hint="a download failed on its way and saved an error page: fetch the data again",
    ),
    _Look(
        kind="prefix",
        matches=lambda broken, text: bool(_PREFIX.match(text)) and text.endswith("}"),
        sentence="something stands before the object",
        hint="a line is the object alone: take away what stands before it (line numbers, times, names of logs)",
        fix="sed 's/^[^{]*//' {file} > {out}",
    ),
    _Look(
        kind="array",
        matches=_array_item,
        sentence="this looks like a part of one JSON array",
        hint="one object a line: no brackets around the rows, no commas between them",
        fix=_UNROLL,
    ),
    _Look(
        kind="pretty",
        matches=_one_of_many_lines,
        sentence="this looks like one line of an object that is spread over several",
        hint="the file is pretty-printed: write each object on one line",
        fix=_UNROLL,
    ),
    _Look(kind="comment", matches=_comment, sentence="a comment", hint="JSON has no comments: delete it"),
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
        kind="cut",
        matches=lambda broken, text: not broken.line.ended and _ends_early(broken, text),
        sentence="the last row is cut off",
        hint="the export or the copy was interrupted: make the file again, or delete its last line",
        fix="sed '$d' {file} > {out}",
    ),
    _Look(
        kind="ends_early",
        matches=lambda broken, text: _ends_early(broken, text) or _tail(broken, text),
        sentence="the row ends before its object does",
        hint="the row was cut off, or holds a raw line break where \\n should stand",
    ),
    _Look(
        kind="escape",
        matches=lambda broken, text: broken.error.startswith("Invalid \\"),
        sentence="a backslash that JSON does not know",
        hint="write \\\\ for a backslash in a text: paths, LaTeX and patterns are full of them; a JSON library does that by itself",
    ),
    _Look(
        kind="open_quote",
        matches=_open_quote,
        sentence="a quote inside a text ends it too early",
        hint='write \\" for a quote in a text; a JSON library does that by itself',
    ),
    _Look(
        kind="comma",
        matches=lambda broken, text: broken.error.startswith("Expecting ',' delimiter") and text.startswith("{"),
        sentence="a comma is missing",
        hint="put commas between the keys of an object and between the values of a list",
    ),
    _Look(
        kind="csv",
        matches=_table_row,
        sentence="this looks like a row of a table (CSV)",
        hint="turn each row of the table into a JSON object with the columns as keys",
        fix=_from_table(","),
    ),
    _Look(
        kind="text",
        matches=lambda broken, text: not text.startswith(("{", "[", '"')),
        sentence="this is plain text",
        hint="every line must be a JSON object",
    ),
)
