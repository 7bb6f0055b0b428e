"""How answers of a release are made: the rules that a profile brings to serving and ranking, and its record."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRules:
    """What holds for each answer of a release, and for no other's. Patterns are Python regular expressions."""

    system: str = ""  # stands first in the system turn of every request
    stops: tuple[str, ...] = ()  # texts before which the answer ends
    penalties: Mapping[str, float] = field(default_factory=dict)  # text -> nats taken off the tokens that would complete it
    end_after: tuple[str, ...] = ()  # texts after which nothing but the end token can follow
    named_end: str = ""  # where it matches the last user turn, its groups `mark` and `count` say what ends the answer, instead of end_after
    answer: str = ""  # its group `answer` is what counts of an answer; empty: all of it

    def endings(self, question: str) -> tuple[str, ...]:
        """The texts after which the answer to this last user turn ends."""
        named = re.search(self.named_end, question) if self.named_end else None
        return (named["mark"] * int(named["count"]),) if named else self.end_after

    def extract(self, text: str) -> str:
        """What counts of an answer; the whole text, stripped, where the rules name no part of it or the part is not there."""
        found = re.search(self.answer, text, re.DOTALL) if self.answer else None
        return (found["answer"] if found else text).strip()


NO_RULES = AnswerRules()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRecord:
    """Which profile changed the rows of a training: in the run's record, each checkpoint's note, and the release manifest."""

    name: str
    version: int
    options: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""  # of the file of a profile of one's own
    rules: AnswerRules = NO_RULES
