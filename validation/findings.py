"""What a check may say: a problem in one place; and what a report says of all such places: a finding."""

import re
import shlex
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePath

from validation.masking import LONGEST_LOOK, masked

SHOWN_CHARACTERS = 80
SHOWN_LINES = 5


class Severity(StrEnum):
    """Worst first."""

    ERROR = "error"  # the file is refused
    WARNING = "warning"
    INFO = "info"


class Level(StrEnum):
    """How deep a file is checked; each level includes the ones before."""

    QUICK = "quick"
    STANDARD = "standard"
    DEEP = "deep"

    @property
    def included(self) -> tuple["Level", ...]:
        """This level and those before it."""
        every = tuple(Level)
        return every[: every.index(self) + 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes above which a row or a file is refused."""

    max_row_bytes: int = 4 << 20
    max_file_bytes: int = 5 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What one check found in one place. Problems of one check with different `kind` become different findings.

    Empty `why` and `hint` and None `severity` are those of the check. In `fix`, `{file}` becomes the file and `{out}` another
    name beside the caller, both quoted for a shell.
    """

    message: str
    path: str = ""
    why: str = ""
    hint: str = ""
    fix: str = ""
    kind: str = ""
    severity: Severity | None = None
    lines: tuple[int, ...] = ()  # for a problem of the whole file; count is then their number
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """All places where a file has one problem. `lines` holds the first few, 1-based and physical; `count` is never cut."""

    id: str
    severity: Severity
    name: str
    count: int = 1
    lines: tuple[int, ...] = ()
    path: str = ""
    message: str
    why: str = ""
    hint: str
    fix: str = ""


def shown(value: object) -> str:
    """A value as one short line that is safe to print: quoted, cut, without keys and passwords, unseen characters escaped."""
    text = value if isinstance(value, str) else repr(value)
    cut = len(text) > LONGEST_LOOK
    text = masked(text[:LONGEST_LOOK])
    cut = cut or len(text) > SHOWN_CHARACTERS
    start = text[:SHOWN_CHARACTERS]
    safe = start.encode("unicode_escape").decode("ascii") if not start.isascii() and is_blank(start) else printable(start)
    cut = cut or len(safe) > SHOWN_CHARACTERS
    safe = safe[: SHOWN_CHARACTERS - 1] + "…" if cut else safe
    return f"'{safe}'" if isinstance(value, str) else safe


def printable(text: str) -> str:
    r"""The text with control, direction and other unseen characters as `\n`, `\x00`, `\u202e`."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text)


def is_blank(text: str) -> bool:
    """Whether nothing of the text can be seen: blanks, control characters, and those that are drawn as nothing."""
    if "!" <= text[:1] <= "~":  # the common case, in a tenth of the time
        return False
    return _UNSEEN.fullmatch(text) is not None


# Blanks, control characters, and Default_Ignorable_Code_Point of Unicode 16 (DerivedCoreProperties.txt): joiners, marks of
# direction, selectors of variants, Hangul and Khmer fillers, tags. Then signs that are drawn as nothing without being of it:
# marks of annotation, the blank Braille pattern, the null notehead. A sign with a selector behind it, as in emoji, can be seen.
_UNSEEN = re.compile(
    "[\\s\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff\ufff9-\ufffb\u2800\U0001d159]*+"
)


def fixed_name(file: str) -> str:
    """A name for the mended copy of a file; never the file's own: `rows-fixed.jsonl`, then `rows-fixed-2.jsonl`."""
    stem = PurePath(file).name.removesuffix(".jsonl").removesuffix(".drop")
    before, _, number = stem.rpartition("-fixed")
    if stem.endswith("-fixed"):
        stem += "-2"
    elif before and number[1:].isdecimal() and number.startswith("-"):
        stem = f"{before}-fixed-{int(number[1:]) + 1}"
    else:
        stem += "-fixed"
    return f"./{stem}.jsonl" if stem.startswith("-") else f"{stem}.jsonl"


def command(fix: str, file: str) -> str:
    """A fix command for this file. Its output never has the file's own name: a shell would empty the file first."""
    file = f"./{file}" if file.startswith("-") else file
    return fix.replace("{file}", shlex.quote(file)).replace("{out}", shlex.quote(fixed_name(file)))
