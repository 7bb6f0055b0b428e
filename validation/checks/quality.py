"""D11: answers that read like no text.

The rules and their figures are those by which Gopher's training text was filtered (Rae et al. 2021, "Scaling Language
Models", appendix A.1.1 and table A1). They were made for web pages: here they only rank the sampled rows, and the worst
are listed for somebody to look at. Rules of words and stop words hold for languages that put blanks between words.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from validation.checks.registry import Check, Need, entered
from validation.context import Batch, Sheet
from validation.findings import Level, Problem, Severity, shown
from validation.patterns import Late

if TYPE_CHECKING:
    from validation.survey import Survey

LEAST_WORDS = 20
_LONG_WORDS = 50  # the source judges nothing shorter; here repeats and stop words wait for as many
_MOST_CHARACTERS = 20_000  # of an answer that are looked at
_MOST_LISTED = 1_000
_BULLETS = ("-", "*", "•", "–", "●", "▪")
_NO_BLANKS = Late(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")  # Thai, Lao, Burmese, Khmer, CJK
_CODE = Late(r"```|[{};]\s*\n|^\s*(?:def|class|import|from|return|#include|SELECT|function|const|let|var|public|<\w+)\b|\|.*\|", re.MULTILINE)
_SIGNS = Late(r"[!-/:-@\[-`{-~]")  # of ASCII; emoji and letters of other scripts are none
# Rae et al. 2021: two of these eight; of other languages the words that stand in their place.
_STOPS = (
    frozenset({"the", "be", "to", "of", "and", "that", "have", "with", "is", "a", "in", "you", "it", "for"}),
    frozenset({"der", "die", "das", "und", "zu", "ist", "mit", "nicht", "ein", "eine", "von", "den"}),
    frozenset({"le", "la", "les", "de", "et", "est", "un", "une", "que", "des", "pour", "dans"}),
    frozenset({"el", "la", "los", "de", "y", "es", "un", "una", "que", "en", "por", "con"}),
    frozenset({"il", "la", "di", "e", "che", "un", "una", "per", "con", "non", "del", "sono"}),
    frozenset({"o", "a", "de", "e", "que", "um", "uma", "para", "com", "não", "os", "do"}),
    frozenset({"de", "het", "een", "en", "van", "is", "dat", "niet", "met", "op", "voor", "te"}),
    frozenset({"och", "att", "det", "som", "en", "är", "på", "av", "med", "för", "den", "i"}),
    frozenset({"i", "w", "na", "z", "do", "nie", "się", "że", "to", "jest", "o", "po"}),
)


def broken_rules(text: str) -> list[str]:
    """Names of the rules that an answer breaks, in no order; none for a short text, for code, and for scripts without blanks."""
    text = text[:_MOST_CHARACTERS]
    words = [word for word in text.split() if word.isascii() or any(map(str.isalnum, word))]  # emoji are no words, and no flaw
    if len(words) < LEAST_WORDS or _NO_BLANKS.search(text) or _CODE.search(text):
        return []
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return [*_of_words(text, words), *_of_lines(lines), *_of_repeats(words)]


def _of_words(text: str, words: Sequence[str]) -> Iterator[str]:
    mean = sum(map(len, words)) / len(words)
    if not 3 <= mean <= 10:
        yield "word length"
    if text.count("#") > 0.1 * len(words) or text.count("...") + text.count("…") > 0.1 * len(words):
        yield "symbols"
    if sum(any(map(str.isalpha, word)) for word in words) < 0.8 * len(words):
        yield "letters"
    if len(words) >= _LONG_WORDS and text.isascii():
        present = {word.lower() for word in words}
        if max(len(present & stops) for stops in _STOPS) < 2:
            yield "stop words"


def _of_lines(lines: Sequence[str]) -> Iterator[str]:
    if len(lines) < 2:
        return
    if sum(line.startswith(_BULLETS) for line in lines) > 0.9 * len(lines):
        yield "bullets"
    if sum(line.endswith(("...", "…")) for line in lines) > 0.3 * len(lines):
        yield "ellipses"
    repeated = len(lines) - len(set(lines))
    if repeated > 0.3 * len(lines):
        yield "repeated lines"


def _of_repeats(words: Sequence[str]) -> Iterator[str]:
    """Characters in the most common n-gram, as a share of all; not where it is met but once."""
    total = sum(map(len, words))
    if len(words) < _LONG_WORDS:
        return
    for size, most in ((2, 0.20), (3, 0.18), (4, 0.16)):
        grams = Counter(zip(*(words[start:] for start in range(size)), strict=False))
        gram, count = grams.most_common(1)[0]
        if count > 1 and count * sum(map(len, gram)) > most * total:
            yield "repeated words"
            return


def is_garbled(text: str) -> bool:
    """Whether more than half of an answer of 60 characters or more is ASCII signs, and it is no code, table, rule or sum."""
    dense = re.sub(r"\s", "", text[:_MOST_CHARACTERS])
    if len(dense) < 60 or len(_SIGNS.findall(dense)) <= 0.5 * len(dense) or _CODE.search(text):
        return False
    return len(set(dense)) >= 12 and sum(map(dense.count, "|-=_+*/\\.<>()[]{}")) < 0.5 * len(dense)


def repeats_lines(text: str) -> bool:
    """Whether more than half of six or more lines of several words stood there before."""
    lines = [line.strip() for line in text[:_MOST_CHARACTERS].split("\n") if line.count(" ") >= 2]
    return len(lines) >= 6 and len(lines) - len(set(lines)) > 0.5 * len(lines)


RULES = ("word length", "symbols", "letters", "stop words", "bullets", "ellipses", "repeated lines", "repeated words")
_BROKEN = {"garbled": "more than half of the answer is signs", "repeats": "most lines of the answer repeat others"}


def _listed(survey: "Survey") -> Iterator[Problem]:
    sheet, limit = survey.sheet, partial(survey.context.limit, "D11")
    for kind, message in _BROKEN.items():
        lines = tuple(sheet.column(f"D11.{kind}"))
        if len(lines) > limit("warn_at") * sheet.num_sampled:
            first = survey.rows_at(lines[:1])[lines[0]]
            yield Problem(message=f"{message}: {shown(first.answer)}", lines=lines, count=len(lines), kind=kind)
    ranked = _ranked(sheet, limit("style_share") * sheet.num_sampled)
    most = min(_MOST_LISTED, max(1, int(limit("listed_share") * sheet.num_sampled)))
    worst = [(line, rules) for line, rules in ranked[:most] if len(rules) >= limit("least_rules")]
    if worst:
        message = f"the answers that read least like text (the worst {limit('listed_share'):.0%} at most); the first breaks rules of {', '.join(worst[0][1])}"
        yield Problem(message=message, lines=tuple(line for line, _ in worst), count=len(worst), severity=Severity.INFO)


def _ranked(sheet: Sheet, most_rows: float) -> list[tuple[int, list[str]]]:
    """(line, rules that it breaks), worst first. A rule that more rows break is the file's style: sums are no prose."""
    masks = sheet.column("D11.rules")
    counts = [sum(mask >> place & 1 for mask in masks) for place in range(len(RULES))]
    flaws = [place for place, count in enumerate(counts) if count <= max(most_rows, 2)]
    rows = [(line, [RULES[place] for place in flaws if mask >> place & 1]) for mask, line in zip(masks, sheet.column("D11.lines"), strict=True)]
    return sorted((row for row in rows if row[1]), key=lambda row: (-len(row[1]), row[0]))


@entered(
    Check(
        "D11",
        "quality",
        Severity.WARNING,
        Need.BATCH,
        "look at these rows first; drop those that no reader would want",
        why="a model learns noise as readily as sense, and the noise costs the same",
        level=Level.DEEP,
        limits={"warn_at": 0.01, "listed_share": 0.05, "least_rules": 2, "style_share": 0.1},
        conclude=_listed,
    )
)
def quality(batch: Batch, sheet: Sheet) -> None:
    """Rules of good text that the answers of the sample break."""
    rules, lines = sheet.column("D11.rules"), sheet.column("D11.lines")
    for case in batch.sampled:
        answer = case.answer
        if len(answer) < 60:
            continue
        if is_garbled(answer):
            sheet.column("D11.garbled").append(case.line)
        if repeats_lines(answer):
            sheet.column("D11.repeats").append(case.line)
        if broken := broken_rules(answer):
            rules.append(sum(1 << RULES.index(rule) for rule in broken))
            lines.append(case.line)
