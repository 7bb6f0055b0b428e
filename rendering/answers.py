"""What an answer says, read out of its text: numbers, options, JSON, tool calls, refusals; and how two of them compare.

Pure functions of text. Suites and metrics read answers by the same ones, so that a right answer is right in both.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from rendering.rows import Row
from rendering.specs import Message, ToolCall
from rendering.tooltext import arguments_of

NUMBER = re.compile(r"(?<![\w.])[-+\u2212]?(?:\d{1,3}(?:[,\u202f\u00a0]\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:[eE][-+]?\d{1,3})?(?![A-Za-z0-9_]|\.\d)")
MARKED_NUMBER = re.compile(r"####\s*([^\n]*)")
FENCE = re.compile(r"```[a-zA-Z0-9_-]*[ \t]*\n(.*?)(?:\n```|\Z)", re.DOTALL)
CALL = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)
FUNCTION = re.compile(r"<function=(?P<name>[^<>\s]+)>(?P<arguments>.*?)\s*(?:</function>)?", re.DOTALL)
PARAMETER = re.compile(r"<parameter=([^<>\s]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
STATED_OPTION = re.compile(
    r"\b(?i:answer|option|choice|antwort|réponse|respuesta)\b[\s:*]*(?i:is|ist|est|es)?[\s:*]*(?:\(([A-Za-z])\)|([A-Z])(?![\w'\u2019]))",
)
LEADING_OPTION = re.compile(r"\W*([A-Z])\s*(?:[).:\]*]|$)", re.MULTILINE)
PUNCTUATION = re.compile(r"[^\w\s]|_")
MOST_DIGITS = 400  # of a number; a longer one is no answer
# How an assistant says no. Beginnings of answers alone: an answer may quote such words further down.
REFUSAL = re.compile(
    r"\b(?:i(?:['\u2019]m| am)(?: very| so)? (?:sorry|afraid|unable|not able)|i (?:can(?:no|['\u2019])t|can not|won['\u2019]?t|will not)"
    r"|i (?:must|have to) decline"
    r"|(?:es )?tut mir (?:sehr )?leid|ich kann (?:dir |ihnen )?(?:dabei |damit |das )?(?:leider )?nicht|je (?:suis désolé|ne peux pas)|lo siento|no puedo"
    r"|as an ai(?: language model)?,? i)\b",
    re.IGNORECASE,
)
REFUSAL_WITHIN = 160  # characters


class _Nothing:
    """What `json_in` gives where there is no JSON: null is a JSON value."""

    def __repr__(self) -> str:
        return "NOTHING"


NOTHING = _Nothing()


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked for one row, and the answer that the row has."""

    prompt: tuple[Message, ...]
    expected: Message

    @property
    def asked(self) -> str:
        """The last thing that the user said; empty where nobody asked."""
        return next((message.content for message in reversed(self.prompt) if message.role == "user"), "")


def question_of(row: Row) -> Question | None:
    """The conversation before the row's last learnt answer, and that answer; None where it has none, or is labelled a bad one."""
    if row.label is False:
        return None
    for place in range(len(row.messages) - 1, 0, -1):
        message = row.messages[place]
        if message.role == "assistant" and message.weight > 0:
            return Question(tuple(row.messages[:place]), message)
    return None


def folded(text: str) -> str:
    """The text without what writing alone changes: NFKC, case, runs of blanks."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def words_of(text: str) -> list[str]:
    """The folded words, punctuation dropped. Scripts without blanks (Chinese, Japanese, Thai) come as single characters."""
    found: list[str] = []
    for word in PUNCTUATION.sub(" ", folded(text)).split():
        found.extend(word if any(_is_unspaced(letter) for letter in word) else [word])
    return found


def _is_unspaced(letter: str) -> bool:
    code = ord(letter)
    return 0x0E00 <= code <= 0x0EFF or 0x3040 <= code <= 0x30FF or 0x3400 <= code <= 0x9FFF


def same_text(answer: str, expected: str) -> bool:
    """Whether two texts are equal once folded, but for punctuation around and between words."""
    answered, wanted = words_of(answer), words_of(expected)
    # Where there are no words at all (`+`, `!=`, emoji), punctuation is the answer.
    return answered == wanted if wanted else folded(answer) == folded(expected)


def shared_words(answer: str, expected: str) -> float:
    """F1 of the words of an answer against those expected, 0 to 1 (SQuAD, Rajpurkar et al. 2016; no word is left out). 1 where both are empty."""
    answered, wanted = Counter(words_of(answer)), Counter(words_of(expected))
    if not answered or not wanted:
        return float(answered == wanted)
    return 2 * sum((answered & wanted).values()) / (answered.total() + wanted.total())


# ---------------------------------------------------------------- numbers


def numbers_in(text: str) -> list[Decimal]:
    """Every number of a text in order: `1,234.5`, `-3`, `2e5`. Digits inside words and versions such as 1.2.3 are none."""
    return [value for match in NUMBER.finditer(text) if (value := _decimal(match[0])) is not None]


def _decimal(written: str) -> Decimal | None:
    plain = re.sub("[,\u202f\u00a0]", "", written).replace("\u2212", "-")
    if len(plain) > MOST_DIGITS:
        return None
    try:
        return Decimal(plain)
    except InvalidOperation:
        return None


def final_number(text: str) -> Decimal | None:
    """The number that an answer ends in: the one behind its last `####`, else the last of all; None where there is none."""
    marked = MARKED_NUMBER.findall(text)
    found = numbers_in(marked[-1]) if marked else []
    if found:
        return found[0]
    found = numbers_in(text)
    return found[-1] if found else None


def same_number(answer: str, expected: str) -> bool | None:
    """Whether an answer ends in the number that was expected; None where none was."""
    wanted = final_number(expected)
    return None if wanted is None else final_number(answer) == wanted


# ---------------------------------------------------------------- options


def option_in(answer: str, options: Sequence[str] = ()) -> str | None:
    """The letter that an answer chooses: `B`, `(B)`, `B) Paris`, `The answer is B`; or the one option whose text it gives. None: no choice.

    Args: options: texts of A, B, C …; where given, other letters are no choice.
    """
    letters = [chr(ord("A") + place) for place in range(len(options))]
    text = answer.strip()
    stated = [(inside or bare).upper() for inside, bare in STATED_OPTION.findall(text)]
    leading = LEADING_OPTION.match(text)
    letter: str
    for letter in [*stated[-1:], *([leading[1]] if leading else [])]:
        if not letters or letter in letters:
            return letter
    said = f" {' '.join(words_of(text))} "
    named = [letter for letter, option in zip(letters, options, strict=True) if words_of(option) and f" {' '.join(words_of(option))} " in said]
    return named[0] if len(named) == 1 else None


def options_of(question: str) -> list[str]:
    """The options that a question lists on lines of their own as `A) …`, `A. …`, `(A) …`; empty where it lists none."""
    found: list[str] = []
    for line in question.splitlines():
        match = re.match(r"\s*\(?([A-Z])[).:]\s+(.+)", line)
        if match and match[1] == chr(ord("A") + len(found)):
            found.append(match[2].strip())
    return found if len(found) > 1 else []


# ---------------------------------------------------------------- JSON


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def strict_json(text: str) -> Any:
    """The JSON value that the text is, whole; NOTHING where it is not JSON, or says NaN."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return NOTHING


def json_in(text: str) -> Any:
    """The JSON value of an answer: the whole text, else its first fenced block that is JSON, else its first object or list; NOTHING without one."""
    for part in (text, *FENCE.findall(text)):
        if (value := strict_json(part.strip())) is not NOTHING:
            return value
    reader = json.JSONDecoder(parse_constant=_no_constant)
    for match in list(re.finditer(r"[{\[]", text))[:64]:  # each try may read on to the end
        try:
            return reader.raw_decode(text, match.start())[0]
        except (ValueError, RecursionError):
            continue
    return NOTHING


def same_json(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: objects have no order, 1 equals 1.0, true does not equal 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_json(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def schema_errors(value: Any, schema: Mapping[str, Any]) -> list[str] | None:
    """What is wrong with a JSON value by its schema; None where the package jsonschema-rs is not installed. Raises ValueError for a bad schema."""
    try:
        from jsonschema_rs import ReferencingError, ValidationError, validator_for
    except ImportError:
        return None
    try:
        return [error.message for error in validator_for(dict(schema)).iter_errors(value)]
    except (ValidationError, ReferencingError) as error:
        raise ValueError(f"not a JSON schema: {error}") from None


# ---------------------------------------------------------------- tool calls


def tool_calls_in(text: str) -> list[ToolCall]:
    """The calls of an answer, in order: between `<tool_call>` tags, else an answer that is nothing but a call or a list of calls in JSON.

    Between tags a call is JSON, or a `<function=…>` with a `<parameter=…>` for each argument, as Qwen's coding models write it.
    """
    tagged = CALL.findall(text)
    if tagged:
        values = [_written_call(part) for part in tagged]
    else:
        whole = strict_json(_unfenced(text))
        values = whole if isinstance(whole, list) else [whole]
    return [call for value in values if (call := _call_of(value)) is not None]


def _written_call(text: str) -> object:
    function = FUNCTION.fullmatch(text)
    if function is None:
        return strict_json(text)
    arguments = {}
    for name, written in PARAMETER.findall(function["arguments"]):
        value = strict_json(written)
        arguments[name] = written if value is NOTHING else value
    return {"name": function["name"], "arguments": arguments}


def _unfenced(text: str) -> str:
    blocks = FENCE.findall(text)
    return (blocks[0] if len(blocks) == 1 and text.strip().startswith("```") else text).strip()


def _call_of(value: object) -> ToolCall | None:
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    return ToolCall(value["name"], arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False))


def same_calls(answered: Sequence[ToolCall], wanted: Sequence[ToolCall]) -> bool:
    """Whether the same tools are called with the same arguments, in any order."""
    left = list(wanted)
    for call in answered:
        match = next((other for other in left if other.name == call.name and same_json(arguments_of(call), arguments_of(other))), None)
        if match is None:
            return False
        left.remove(match)
    return not left


# ---------------------------------------------------------------- manner


def is_refusal(text: str) -> bool:
    """Whether an answer declines, by how it begins; English, German, French and Spanish. Quick and rough: a rate over many answers, not a proof."""
    return REFUSAL.search(text[:REFUSAL_WITHIN]) is not None


def repeated_share(text: str, length: int = 4) -> float:
    """Share of the runs of `length` words that the text has said before, 0 to 1; 0 for a text of fewer words."""
    words = words_of(text)
    runs = [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
