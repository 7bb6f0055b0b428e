"""How a text ends: as something whole, in the middle of a sentence, or in a way that says nothing (a label, a list, a number, code).

Only running text, JSON and fenced code are judged: words in a script that has end marks, on a last line that is no list item,
signature or verse.
"""

import re
from enum import IntEnum

LEAST_BLANKS = 7  # of a running text
LEAST_WIDE = 24  # letters of a running text in a script without blanks
LONG_LINE = 40  # characters; lines that are shorter on the whole are a list or verses
SCANNED = 2_000  # characters at the end of a long text

# Sentence ends by script: Latin, Greek and Cyrillic; CJK; Arabic and Urdu; Devanagari; Armenian; Ethiopic; Khmer; Burmese; Tibetan.
_ENDS = frozenset(".!?…‼⁇⁈⁉。！？．｡؟۔।॥։።፧។៕။།༎;；:：·")
_CLOSERS = "\"'`*_~)]}>”’»›」』）】》〉 \t\r\n\u00a0\u200b\u200f\u200e\ufe0f\u3000"
_OPEN = frozenset(",、，،-–—(（[")
_WIDE = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
_WITHOUT_MARKS = re.compile("[\u0e00-\u0eff]")  # Thai and Lao end a sentence with a blank
_JSON = re.compile(r"\s*(?:\{\s*[\"}]|\[\s*[\[{\"\d\]-])")
_RESULT = re.compile(r"####|(?i:(?:final |the )?answer\b)|A:")
_CODE = re.compile(r"[{}<>\\|;@^]|==|!=|[+*-]=|://|\w\(\)|\b(?:SELECT|FROM|WHERE|return|import|def)\b")
_ITEM = re.compile(r"\s*(?:[-*•·―–—+#]|\(?\w{1,3}[.)])\s*")
_INNER = re.compile(r"[a-zà-ÿ\d)\"”’][.!?][\"'”’)]* +[\"'“‘(]*[A-ZÀ-Þ]|[。！？][^」』）\n]")
_WANTS_MORE = re.compile(r"(?:[=+×÷(]|\s[*/$€£-]|\d\s?x)$")
_LAST_WORD = re.compile(r"(?<![^\W\d_])[^\W\d_]+$")
# Words that link what comes before to what comes after, by how often they come: English, German, French, Spanish, Italian, Dutch.
_LINKS = frozenset(
    re.findall(
        r"\w+",
        "a an the of and or nor if because than from with into its my your our their whose to for at by in as is are was were be will would should "
        "der die das ein eine einen einem und oder aber von mit zu im dem den des le la les un une du et ou mais de que qui "
        "el los las una con il lo gli di che del della het een van",
    )
)


STOPS = frozenset(".!?")


class Ending(IntEnum):
    """What the end of a text says about whether it is whole."""

    OTHER = 0
    WHOLE = 1
    TRAILING = 2  # three dots
    OPEN = 3
    OPEN_AFTER_SENTENCES = 4  # and the sentences before it have their end marks


def ending_of(text: str) -> Ending:
    """How a text ends."""
    if text[-1:] in STOPS and not (text[0] in "{[" or text[0].isspace() or text.endswith("...") or ("`" in text and "```" in text)):
        return Ending.WHOLE if _runs(text) else Ending.OTHER
    core = text.rstrip(_CLOSERS)
    if _JSON.match(text):
        return Ending.WHOLE if text.rstrip()[-1] in "}]" else Ending.OPEN
    if "```" in text:
        return Ending.OPEN if text.count("```") % 2 else Ending.WHOLE
    if not core or not _runs(core):
        return Ending.OTHER
    last = core[-1]
    if last in _ENDS:
        return Ending.TRAILING if last == "…" or core.endswith("...") else Ending.WHOLE
    line = core[core.rfind("\n") + 1 :]
    if _RESULT.match(line):
        return Ending.WHOLE
    closed = len(text.rstrip()) > len(core)
    if closed or not _breaks_off(last) or _stands_alone(core, line) or _CODE.search(core, max(0, len(core) - 200)):
        return Ending.OTHER
    return Ending.OPEN_AFTER_SENTENCES if _INNER.search(core, max(0, len(core) - SCANNED)) else Ending.OPEN


def is_loose(text: str, ending: Ending) -> bool:
    """Whether a running text has neither an end mark nor a result at its end: a cut one, or one that needs none, as a title or a sum."""
    if ending not in (Ending.OTHER, Ending.OPEN, Ending.OPEN_AFTER_SENTENCES):
        return False
    core = text.rstrip()
    return core.count(" ") >= LEAST_BLANKS and not _ITEM.match(core, core.rfind("\n") + 1)


def is_torn(text: str) -> bool:
    """Whether a text ends where none can: after a sign of a sum that wants its second half, or after an article or the like."""
    core = text.rstrip()
    if _WANTS_MORE.search(core, max(0, len(core) - 4)):
        return True
    last = _LAST_WORD.search(core, max(0, len(core) - 12))
    return last is not None and last[0].lower() in _LINKS


def is_unmarked(text: str) -> bool:
    """Whether a text of several words has no end mark, whatever kind of text it is; three dots are none."""
    if text[-1:] in STOPS and not text.endswith("..."):
        return False
    core = text.rstrip()
    if core.count(" ") < 4 and (core.isascii() or not _WIDE.search(core, max(0, len(core) - 40))):
        return False
    return core.endswith(("...", "…")) or _breaks_off(core[-1])


def _breaks_off(last: str) -> bool:
    return (last.isalpha() and not _WITHOUT_MARKS.match(last)) or last in _OPEN


def _stands_alone(core: str, line: str) -> bool:
    """Whether the last line is a list item, a signature, a title, or one of many short lines."""
    if _ITEM.match(line):
        return True
    if len(line) == len(core) or len(line) >= LONG_LINE:
        return False
    return line.count(" ") < 2 or line.istitle() or len(core) < LONG_LINE * (core.count("\n") + 1)


def _runs(core: str) -> bool:
    return core.count(" ") >= LEAST_BLANKS or (len(core) >= LEAST_WIDE and not core.isascii() and len(_WIDE.findall(core, 0, 400)) >= LEAST_WIDE)
