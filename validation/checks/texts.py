"""B06 to B09: texts that were damaged on the way, or say nothing: wrong encodings, lost characters, loops, data that is no text."""

import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from itertools import pairwise

from validation.case import Case
from validation.checks.registry import Check, Need, entered
from validation.context import Batch, Context, Sheet
from validation.findings import Level, Problem, Severity, shown
from validation.masking import masked

MEND = "lorad fix {file} -o {out} --schema %s"
DROP = "lorad fix {file} -o {out} --schema %s --repair drop --ids %s"
_AROUND = 24  # characters shown on each side of a place

# A text about encodings may show what a broken one looks like.
_ABOUT_ENCODING = re.compile(r"mojibake|u\+fffd|ufffd|replacement char|encod|charset|utf-?8|latin-?1|iso-?8859|cp-?125\d|windows-125\d|unicode", re.IGNORECASE)


def trained_texts(case: Case) -> Iterator[tuple[str, str]]:
    """(path, text) of what is rendered or compared: no metadata, no columns that are passed through, no paths of pictures."""
    wanted = {key for key in (*case.spec.required, *case.spec.own) if key != "images"}
    return ((path, text) for path, text in case.texts if _TOP_KEY.split(path, maxsplit=2)[1] in wanted)


_TOP_KEY = re.compile(r"[.\[]")


# --- B06

# Bytes of UTF-8 that were read as another encoding and written as UTF-8 again. A lead byte (C2 to F4) became a letter of
# Latin-1, a following byte (80 to BF) became one of Latin-1 or of Windows-1252; then Mac Roman and Windows-1251.
_TWICE = re.compile(
    rb"\xc3[\x82-\xb4](?:\xc2[\x80-\xbf]|\xe2(?:\x80[\x93-\xba]|\x82\xac|\x84\xa2)|\xc5[\x92\x93\xa0\xa1\xb8\xbd\xbe]|\xc6\x92|\xcb[\x86\x9c])"
    rb"|\xe2\x88\x9a[\xc2\xc3\xe2]|\xe2\x80\x9a\xc3\x84"
    rb"|(?:\xd0[\xa0\xa1](?:[\xc2-\xd2][\x80-\xbf]|\xe2[\x80-\x84][\x80-\xbf])){3}"
)
_LEADS = (b"\xc3", b"\xe2\x88\x9a", b"\xe2\x80\x9a", b"\xd0\xa0", b"\xd0\xa1")  # one of them begins each of these
_ESCAPED_LEADS = re.compile(rb"\\u(?:00[c-f]|042|221a|201a)", re.IGNORECASE)
_LONGEST_TEXT = 20_000  # characters that ftfy looks at in one text


def _no_ftfy(context: Context) -> str:
    return "" if find_spec("ftfy") else "ftfy is not installed: pip install 'lorad[gate]'"


@entered(
    Check(
        "B06",
        "text.mojibake",
        Severity.WARNING,
        Need.BATCH,
        "export again as UTF-8, or let lorad mend what can be mended",
        why="UTF-8 was read as another encoding: the model would learn to write these signs in place of letters",
        level=Level.STANDARD,
        limits={"warn_share": 0.005},
        ready=_no_ftfy,
    )
)
def mojibake(batch: Batch, sheet: Sheet) -> Iterator[tuple[int, Problem]]:
    """Texts in which ftfy sees letters of a wrong encoding."""
    return _told(_mojibake, _suspects(batch, lambda text: _is_read_twice(text.encode())))


def _suspects(batch: Batch, find: Callable[[str], object]) -> Iterable[Case]:
    """The rows whose texts may hold more than ASCII; of plain ones those with a text in which something is found."""
    if not batch.plain:
        return batch.beyond_ascii
    return batch.holding([place for place in batch.plain.beyond_ascii if find(batch.plain.texts[place])])


def _told(find: Callable[[Case], Problem | None], cases: Iterable[Case]) -> Iterator[tuple[int, Problem]]:
    return ((case.line, problem) for case in cases if (problem := find(case)))


def _mojibake(case: Case) -> Problem | None:
    raw = case.raw
    escaped = b"\\u" in raw and _ESCAPED_LEADS.search(raw)
    if not escaped and not _is_read_twice(raw):
        return None
    for path, text in trained_texts(case):
        text = text[:_LONGEST_TEXT]
        if not has_wrong_letters(text):
            continue
        right = decoded_rightly(text)
        if right == text:
            return Problem(
                message=f"letters of a wrong encoding: {shown(_near(text))}", path=path, kind="lost", hint="nothing can mend this one: export again as UTF-8"
            )
        before, after = _difference(text, right)
        return Problem(message=f"{shown(before)} should be {shown(after)}", path=path, fix=MEND % case.spec.id)
    return None


def _is_read_twice(raw: bytes) -> bool:
    """Whether _TWICE stands somewhere; looked for where one of its leads does."""
    for lead in _LEADS:
        place = raw.find(lead)
        while place >= 0:
            if _TWICE.match(raw, place):
                return True
            place = raw.find(lead, place + 1)
    return False


def has_wrong_letters(text: str) -> bool:
    """Whether letters of a wrong encoding stand in the text, and it does not only speak of them."""
    if text.isascii() or not _is_read_twice(text.encode()):
        return False
    from ftfy.badness import is_bad

    return is_bad(text) and not _ABOUT_ENCODING.search(text)


def decoded_rightly(text: str) -> str:
    """The text read in the right encoding; itself where that cannot be told. Quotes, widths and ligatures stay as they are."""
    from ftfy import fix_encoding

    # A lossy sequence would become U+FFFD: no better than what stands there.
    return fix_encoding(text, replace_lossy_sequences=False, restore_byte_a0=True)


def _near(text: str) -> str:
    from ftfy.badness import BADNESS_RE

    text = masked(text)  # before it is cut, for half a password is not known for one
    found = BADNESS_RE.search(text)
    start = found.start() if found else 0
    return text[max(0, start - _AROUND) : start + _AROUND]


def _difference(before: str, after: str) -> tuple[str, str]:
    """The words where two texts differ first."""
    place = next((place for place, (one, other) in enumerate(zip(before, after, strict=False)) if one != other), min(len(before), len(after)))
    start = before.rfind(" ", 0, place) + 1
    ends = [text.find(" ", place) for text in (before, after)]
    one, other = (text[start : end if end >= 0 else None][: 2 * _AROUND] for text, end in zip((before, after), ends, strict=True))
    return one, other


# --- B07

_LOST = re.compile("\ufffd|\u00ef\u00bf\u00bd|\u951f\u65a4\u62f7")  # itself, and read once more as Latin-1 or GBK
_LOST_ESCAPES = (b"\\ufffd", b"\\uFFFD", b"\\u00ef\\u00bf", b"\\u00EF\\u00BF", b"\\u951f", b"\\u951F")
_LOST_SIGNS = ("\ufffd".encode(), "\u00ef\u00bf\u00bd".encode(), "\u951f\u65a4".encode())


@entered(
    Check(
        "B07",
        "text.replacement",
        Severity.WARNING,
        Need.BATCH,
        "the letters are lost for good: export again with the right encoding, or leave these rows out",
        why="each such sign stands for a letter that a program could not read, and the model would learn to write it",
        level=Level.STANDARD,
        limits={"warn_share": 0.0},
    )
)
def replacement_character(batch: Batch, sheet: Sheet) -> Iterator[tuple[int, Problem]]:
    """U+FFFD, which a decoder writes where it could not read."""
    return _told(_replacement_character, _suspects(batch, _LOST.search))


def _replacement_character(case: Case) -> Problem | None:
    raw = case.raw
    escaped = b"\\u" in raw and any(sign in raw for sign in _LOST_ESCAPES)
    if not escaped and (raw.isascii() or not any(sign in raw for sign in _LOST_SIGNS)):
        return None
    for path, text in trained_texts(case):
        if _LOST.search(text) and not _ABOUT_ENCODING.search(text):
            text = masked(text)  # before it is cut, for half a password is not known for one
            place = found.start() if (found := _LOST.search(text)) else 0
            near = text[max(0, place - _AROUND) : place + _AROUND]
            return Problem(message=f"a character was lost: {shown(near)}", path=path, fix=DROP % (case.spec.id, "B07"))
    return None


# --- B08

GRAM = 4
LEAST_WORDS = 50
LEAST_BYTES = 400  # of a text whose compression says something
LEAST_COPIES = 10  # of a word, for a number in the prompt to be theirs
ECHOED = 0.8  # of an answer's words that stand in its prompt as often: it was given to be copied or edited


@entered(
    Check(
        "B08",
        "text.repetition",
        Severity.WARNING,
        Need.SAMPLE,
        "leave these rows out: a sampler ran in a loop, or a text was pasted many times",
        why="a model that learns loops falls into them",
        level=Level.STANDARD,
        limits={"warn_share": 0.01, "gram_share": 0.3, "ratio": 10, "least_words": LEAST_WORDS},
    )
)
def repetition(case: Case, context: Context) -> Problem | None:
    """An answer that says the same again and again."""
    for text in case.answers:
        if len(text) < 2 * LEAST_WORDS:
            continue
        words = text.split()
        if len(words) >= context.limit("B08", "least_words"):
            gram, share = most_repeated(words)
            if share > context.limit("B08", "gram_share") and not _is_asked_for(case, words):
                message = f"{shown(gram)} makes up {share:.0%} of an answer of {len(words):,} words"
                return Problem(message=message, path=_path(case, text), fix=DROP % (case.spec.id, "B08"))
        if (ratio := compression(text)) > context.limit("B08", "ratio") and not _is_asked_for(case, words):
            message = f"an answer of {len(text):,} characters says little: it shrinks to 1/{ratio:.0f} when compressed; it begins with {shown(text[:40])}"
            return Problem(message=message, path=_path(case, text), kind="ratio", fix=DROP % (case.spec.id, "B08"))
    return None


# A prompt that asks for the same many times over; "three times as many" is no such thing.
_MANY = r"\d{2,}|ten|eleven|twelve|fifteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|(?:a|one) hundred|(?:a|one) thousand"
_ASKS_FOR_MORE = re.compile(
    r"\b(?:repeat\w*|repetitions?|over and over|again and again|keep (?:saying|writing|printing)|copies of|wiederhol\w*|immer wieder"
    rf"|répét\w*|répèt\w*|repit\w*|repet\w*|ripet\w*|(?:{_MANY}) (?:times|lines)(?! (?:as|more|the|that|faster|larger|bigger|less))"
    r"|(?:\d{2,}|hundert|zwanzig|fünfzig|tausend) ?mal|\d{2,} (?:fois|veces|vezes|volte))\b|重复|繰り返|반복",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![\d.,])\d{1,5}(?![\d.,]*\d)")


def _is_asked_for(case: Case, words: list[str]) -> bool:
    """Whether the prompt asks for repetition, names the number of times that a word comes, or repeats the same itself."""
    asked = case.question
    if _ASKS_FOR_MORE.search(asked):
        return True
    counts = Counter(words)
    most = counts.most_common(1)[0][1] if counts else 0
    if most >= LEAST_COPIES and any(int(number[0]) == most for number in _NUMBER.finditer(asked)):
        return True
    told = Counter(asked.split())
    return sum((told & counts).values()) >= ECHOED * len(words)


def most_repeated(words: list[str]) -> tuple[str, float]:
    """The run of four words that comes most often, and the share of all words that its repeats make up.

    Numbers and signs do not count, nor words that come back at uneven distances in a text of many others, as in a sum.
    """
    # n repeats of four words leave at most 4 + (len - 4n) different ones: a text of many different words has no such run.
    distinct = len(set(words))
    if distinct > 0.7 * len(words) + GRAM:
        return "", 0.0
    grams = Counter(zip(words, words[1:], words[2:], words[3:], strict=False))
    for gram, count in grams.most_common(3):
        if count > 1 and any(letter.isalpha() for word in gram for letter in word):
            share = min(1.0, count * GRAM / len(words))
            return " ".join(gram), share if distinct < 0.3 * len(words) or _is_steady(words, gram) else 0.0
    return "", 0.0


def _is_steady(words: list[str], gram: tuple[str, ...]) -> bool:
    """Whether a run of words mostly comes back after the same number of words, as loops do."""
    places = [place for place in range(len(words) - GRAM + 1) if words[place] == gram[0] and tuple(words[place : place + GRAM]) == gram]
    steps = Counter(later - earlier for earlier, later in pairwise(places))
    return bool(steps) and steps.most_common(1)[0][1] >= 0.6 * (len(places) - 1) and len(places) > 3


def compression(text: str) -> float:
    """How many times smaller a text becomes; 0 where it is short, or made of numbers, blanks and signs (tables, drawings)."""
    content = text.encode()
    if len(content) < LEAST_BYTES:
        return 0.0
    ratio = len(content) / len(zlib.compress(content, 1))
    return ratio if ratio < 5 or sum(map(str.isalpha, text)) > len(text) / 2 else 0.0


def _path(case: Case, text: str) -> str:
    return next((case.path(index) for index, message in enumerate(case.messages) if message.content == text and message.role == "assistant"), "$")


# --- B09

BLOB = 1_000  # characters
_NO_DATA = re.compile(r"[^A-Za-z0-9+/=_-]+")
# Scripts without blanks between words: CJK, kana, Thai, Lao, Burmese, Khmer, Tibetan.
_UNSPACED = re.compile("[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


@entered(
    Check(
        "B09",
        "text.blob",
        Severity.WARNING,
        Need.BATCH,
        "leave files, pictures and keys out of texts; where blanks were lost, export again",
        why="it fills the context with tokens from which nothing can be learnt",
        level=Level.STANDARD,
        limits={"warn_share": 0.0},
    )
)
def blob(batch: Batch, sheet: Sheet) -> Iterator[tuple[int, Problem]]:
    """A run of over 1,000 characters without a blank: base64, hex, or words that lost their blanks."""
    return _told(_blob, [case for case in batch.cases if has_long_run(case.raw)] if has_long_run(batch.raw) else ())


def _blob(case: Case) -> Problem | None:
    for path, text in trained_texts(case):
        for run in text.split() if len(text) >= BLOB else ():
            if len(run) >= BLOB and (kind := blob_kind(run)):
                message = f"{len(run):,} characters without a blank, {kind}: it begins with {shown(run[:12] + '…')}"
                return Problem(message=message, path=path, kind=kind, fix=DROP % (case.spec.id, "B09"))
    return None


def has_long_run(raw: bytes) -> bool:
    """Whether BLOB bytes follow each other without a blank; one look for each BLOB bytes of the row."""
    start = 0
    while start + BLOB <= len(raw):
        blank = raw.rfind(b" ", start, start + BLOB)
        if blank < 0:
            return True
        start = blank + 1
    return False


def blob_kind(run: str) -> str:
    """What a long run without blanks is; empty for code, JSON and tables, sequences of capitals, and scripts that have no blanks."""
    if len(set(run)) == 1:
        return "one letter" if run[0].isalpha() else ""
    data = max(_NO_DATA.split(run), key=len)
    if len(data) >= BLOB:
        if data.isupper() and data.isalpha():
            return ""  # a protein or a strand of DNA
        if re.fullmatch(r"[0-9A-Fa-f]+", data):
            return "" if data.isdigit() else "hex digits"
        if any(map(str.isdigit, data)) and data.upper() != data != data.lower():
            return "base64 or the like"
    letters = sum(map(str.isalpha, run))
    if letters < 0.85 * len(run) or len(_UNSPACED.findall(run)) > 0.1 * len(run) or run.isupper():
        return ""
    return "words without blanks"
