"""What a written answer must fulfil: checks that a program can make. Pure.

Each is an object with its `kind`; unknown keys are refused. Text is compared folded (NFKC, case, blanks) unless a check
says otherwise. To add one: a class derived from Check with `holds`, and its name in AnyCheck.
"""

import re
from typing import Any

import msgspec

from rendering.answers import NOTHING, final_number, folded, is_refusal, json_in, option_in, same_calls, same_json, same_text, schema_errors, tool_calls_in
from rendering.specs import ToolCall

MOST_TEXT = 20_000  # letters of an answer that a pattern is tried on


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """One thing that an answer must fulfil."""

    def holds(self, answer: str) -> bool:
        """Whether the answer fulfils it."""
        raise NotImplementedError

    def trouble(self) -> str:
        """What is wrong with the check itself; empty: nothing."""
        return ""


class Equals(Check, frozen=True, tag="equals"):
    """The answer is one of these texts, but for case, blanks and punctuation."""

    texts: tuple[str, ...]

    def holds(self, answer: str) -> bool:
        """Whether it is one of `texts`."""
        return any(same_text(answer, text) for text in self.texts)


class Contains(Check, frozen=True, tag="contains"):
    """Each of these texts stands in the answer."""

    texts: tuple[str, ...]

    def holds(self, answer: str) -> bool:
        """Whether all `texts` stand in it."""
        said = folded(answer)
        return all(folded(text) in said for text in self.texts)


class ContainsAny(Check, frozen=True, tag="contains_any"):
    """At least one of these texts stands in the answer."""

    texts: tuple[str, ...]

    def holds(self, answer: str) -> bool:
        """Whether one of `texts` stands in it."""
        said = folded(answer)
        return any(folded(text) in said for text in self.texts)


class Excludes(Check, frozen=True, tag="excludes"):
    """None of these texts stands in the answer."""

    texts: tuple[str, ...]

    def holds(self, answer: str) -> bool:
        """Whether none of `texts` stands in it."""
        said = folded(answer)
        return not any(folded(text) in said for text in self.texts)


class Starts(Check, frozen=True, tag="starts"):
    """The answer begins with this text, letter by letter."""

    text: str

    def holds(self, answer: str) -> bool:
        """Whether it begins with `text`, blanks apart."""
        return answer.strip().startswith(self.text)


class Ends(Check, frozen=True, tag="ends"):
    """The answer ends with this text, letter by letter."""

    text: str

    def holds(self, answer: str) -> bool:
        """Whether it ends with `text`, blanks apart."""
        return answer.strip().endswith(self.text)


class Matches(Check, frozen=True, tag="matches"):
    """A regular expression of Python is found in the answer."""

    pattern: str

    def holds(self, answer: str) -> bool:
        """Whether `pattern` is found in its first MOST_TEXT letters."""
        return re.search(self.pattern, answer[:MOST_TEXT]) is not None

    def trouble(self) -> str:
        """Why the pattern does not compile; empty where it does."""
        try:
            re.compile(self.pattern)
        except re.error as error:
            return f"{self.pattern!r} is no regular expression: {error}"
        return ""


class Number(Check, frozen=True, tag="number"):
    """The number that the answer ends in (behind its last `####`, else the last of all) is this one."""

    value: float
    within: float = 1e-9  # how far off it may be

    def holds(self, answer: str) -> bool:
        """Whether it ends in a number within `within` of `value`."""
        found = final_number(answer)
        return found is not None and abs(float(found) - self.value) <= self.within


class Option(Check, frozen=True, tag="option"):
    """The answer chooses this letter, or gives the text of that option."""

    letter: str
    options: tuple[str, ...] = ()

    def holds(self, answer: str) -> bool:
        """Whether it chooses `letter`."""
        return option_in(answer, self.options) == self.letter


class Json(Check, frozen=True, tag="json"):
    """The answer holds JSON: any, one that fits a JSON schema, or exactly this value."""

    schema: dict[str, Any] | None = None
    value: Any = msgspec.UNSET

    def holds(self, answer: str) -> bool:
        """Whether it holds JSON that fits `schema` and equals `value`, where these are given."""
        found = json_in(answer)
        if found is NOTHING or (self.schema is not None and schema_errors(found, self.schema)):
            return False
        return self.value is msgspec.UNSET or same_json(found, self.value)

    def trouble(self) -> str:
        """What is wrong with the schema, or that nothing here can check one; empty where it will do."""
        try:
            if self.schema is not None and schema_errors({}, self.schema) is None:
                return "a JSON schema is checked by the package jsonschema-rs, which is not installed (lorad[gate])"
        except ValueError as error:
            return f"the schema is none: {error}"
        return ""


class Tool(Check, frozen=True, tag="tool"):
    """The answer calls this tool with these arguments, and no other."""

    name: str
    arguments: dict[str, Any] = {}

    def holds(self, answer: str) -> bool:
        """Whether its one call is of `name` with `arguments`."""
        wanted = ToolCall(self.name, msgspec.json.encode(self.arguments).decode())
        return same_calls(tool_calls_in(answer), [wanted])


class NumWords(Check, frozen=True, tag="words"):
    """The answer has so many words, split at blanks."""

    least: int = 1
    most: int = 1 << 30

    def holds(self, answer: str) -> bool:
        """Whether it has `least` to `most` words."""
        return self.least <= len(answer.split()) <= self.most


class NumLines(Check, frozen=True, tag="lines"):
    """The answer has so many lines that are not blank."""

    least: int = 1
    most: int = 1 << 30

    def holds(self, answer: str) -> bool:
        """Whether it has `least` to `most` lines that say something."""
        return self.least <= sum(bool(line.strip()) for line in answer.splitlines()) <= self.most


class Case(Check, frozen=True, tag="case"):
    """The answer has letters, all of them upper or lower case."""

    upper: bool

    def holds(self, answer: str) -> bool:
        """Whether all its letters are of that case."""
        return answer.isupper() if self.upper else answer.islower()


class Refusal(Check, frozen=True, tag="refusal"):
    """The answer declines, or with `wanted` false: it does not, and says something."""

    wanted: bool

    def holds(self, answer: str) -> bool:
        """Whether it declines as `wanted`; an empty answer does neither."""
        return is_refusal(answer) if self.wanted else bool(answer.strip()) and not is_refusal(answer)


AnyCheck = Equals | Contains | ContainsAny | Excludes | Starts | Ends | Matches | Number | Option | Json | Tool | NumWords | NumLines | Case | Refusal
