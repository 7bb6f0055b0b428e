"""Rows of running text for stories about content: no two alike, answers of many lengths, each ending in a full stop."""

from random import Random

from gate_cases import Check, chat, pair

from validation import Report

WHO = ("The baker", "Her neighbour", "An old sailor", "My sister", "The gardener", "A young judge", "Our teacher")
DID = ("carried", "painted", "forgot", "repaired", "borrowed", "measured", "sold", "described", "wrapped", "hid", "counted")
WHAT = ("three blue lanterns", "a broken clock", "the letters from Vienna", "two sacks of flour", "an unfinished map")
WHEN = ("before the rain began", "while everyone else was asleep", "on the morning of the fair", "without telling a soul", "after the bell", "in March")
TAIL = ("", " Nobody asked why.", " It took most of the day, and the evening too.", " Later it was said to be a mistake.")


def sentence(number: int) -> str:
    """The n-th of some nine thousand different texts; lengths vary from one to the next."""
    who, did, what, when, tail = (words[number % len(words)] for words in (WHO, DID, WHAT, WHEN, TAIL))
    return f"{who} {did} {what} {when}.{tail}"


def question(number: int) -> str:
    return f"What happened in chapter {number} of the book about {WHAT[number % 5]}?"


def prose(rows: int, start: int = 0) -> list[object]:
    """Chat rows with running text."""
    return [chat(question(number), sentence(number)) for number in range(start, start + rows)]


def prose_pairs(rows: int, start: int = 0) -> list[object]:
    """The same as completion rows."""
    return [pair(question(number), sentence(number)) for number in range(start, start + rows)]


def ids(report: Report) -> set[str]:
    """The checks of content that spoke."""
    return {finding.id for finding in report.findings if finding.id[0] in "BTVY"}


def standard(check: Check, rows: list[object], schema: str = "chat_sft_v1") -> Report:
    """The report at STANDARD."""
    return check(rows, schema, level="standard")


def drawn(seed: int) -> Random:
    """The same draws every time."""
    return Random(seed)  # noqa: S311 - rows, not secrets
