"""Text of rows and answers as a page may show it: cleaned, cut, and two answers with the words that differ marked. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

MOST_CHARACTERS = 1_200  # of a text that is shown; the rest is counted
MOST_WORDS = 600  # of each side of a comparison by words: its time grows with their product
WORD = re.compile(r"\s+|\w+|[^\w\s]")
# C0 and C1 controls but tab and line end; marks that turn the direction of a whole line; surrogates that no UTF-8 has.
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A stretch of a text; `differs`: the other text does not have it here."""

    text: str
    differs: bool = False


def clean(text: str) -> str:
    """`text` of which every character can be seen and none moves the others; what is over 1,200 characters is counted instead."""
    shown = UNSEEN.sub("\ufffd", text[:MOST_CHARACTERS])
    return f"{shown} … and {len(text) - MOST_CHARACTERS:,} characters more" if len(text) > MOST_CHARACTERS else shown


def side_by_side(before: str, after: str) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Both texts, cleaned, in parts: what the other has too, and what it has not."""
    left, right = WORD.findall(clean(before))[:MOST_WORDS], WORD.findall(clean(after))[:MOST_WORDS]
    same = SequenceMatcher(None, left, right, autojunk=False).get_matching_blocks()
    return _parts(left, [(block.a, block.size) for block in same]), _parts(right, [(block.b, block.size) for block in same])


def _parts(words: Sequence[str], same: Sequence[tuple[int, int]]) -> tuple[Part, ...]:
    """`same`: (start, length) of the stretches that both have, in order, closed by an empty one at the end."""
    found, at = [], 0
    for start, size in same:
        if start > at:
            found.append(Part(text="".join(words[at:start]), differs=True))
        if size:
            found.append(Part(text="".join(words[start : start + size])))
        at = start + size
    return tuple(found)
