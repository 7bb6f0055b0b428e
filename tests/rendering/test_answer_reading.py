"""What an answer says is read the same way for suites and for metrics."""

from decimal import Decimal

import pytest

from rendering import answers
from rendering.answers import NOTHING
from rendering.rows import Row
from rendering.specs import Message, ToolCall


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She has 3 apples.\n#### 1,234", "1234"),
        ("#### 7 apples and 9 pears", "7"),
        ("First 3, then 4.", "4"),
        ("It costs $12.50.", "12.5"),
        ("minus: -3", "-3"),
        ("\u22123", "-3"),
        ("2e3", "2000"),
        ("Version v1.2.3 has no number, nor has abc12", None),
        ("####", None),
        ("50%", "50"),
        ("x=4", "4"),
        ("9" * 500, None),
    ],
)
def test_the_number_that_an_answer_ends_in(text: str, number: str | None) -> None:
    found = answers.final_number(text)
    assert found == (None if number is None else Decimal(number))


def test_a_number_is_right_however_it_is_written_and_no_number_is_no_question() -> None:
    assert answers.same_number("The answer is 1,000.0", "#### 1000") is True
    assert answers.same_number("The answer is 1001", "#### 1000") is False
    assert answers.same_number("I do not know", "#### 1000") is False
    assert answers.same_number("5", "no number here") is None


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B) Paris", "B"),
        ("**B**", "B"),
        ("The answer is B because it lies there.", "B"),
        ("Answer: (c)", "C"),
        ("I first thought A, but the answer is C.", "C"),
        ("Paris, of course.", "B"),
        ("London or Paris", None),
        ("A cat sat there", None),
        ("the answer is a cat", None),
        ("D", None),
        ("", None),
    ],
)
def test_the_option_that_an_answer_chooses(text: str, letter: str | None) -> None:
    assert answers.option_in(text, ["London", "Paris", "Rome"]) == letter


def test_options_stand_in_a_question_on_lines_of_their_own() -> None:
    assert answers.options_of("Which one?\nA) London\nB) Paris\n(C) Rome") == ["London", "Paris", "Rome"]
    assert answers.options_of("A. only one") == []
    assert answers.options_of("Tell me about vitamin B. It is good.") == []


def test_json_is_found_whole_fenced_or_inside_a_sentence_and_nan_is_none() -> None:
    assert answers.json_in('{"a": 1}') == {"a": 1}
    assert answers.json_in('Here you are:\n```json\n{"a": [1, 2]}\n```\nBye') == {"a": [1, 2]}
    assert answers.json_in('So {this} is {"a": {"b": null}} then') == {"a": {"b": None}}
    assert answers.json_in("null") is None
    assert answers.json_in("[1, 2") is NOTHING
    assert answers.json_in('{"a": NaN}') is NOTHING
    assert answers.json_in("[" * 100_000) is NOTHING


def test_equal_json_has_no_order_of_keys_and_true_is_not_one() -> None:
    assert answers.same_json({"a": 1, "b": [1, 2]}, {"b": [1, 2.0], "a": 1})
    assert not answers.same_json({"a": True}, {"a": 1})
    assert not answers.same_json([1, 2], [2, 1])
    assert not answers.same_json(NOTHING, None)


def test_a_schema_says_what_is_wrong_and_a_bad_schema_is_told() -> None:
    schema = {"type": "object", "required": ["name"], "properties": {"age": {"type": "integer"}}}
    assert answers.schema_errors({"name": "Ada", "age": 3}, schema) == []
    assert answers.schema_errors({"age": "3"}, schema) != []
    with pytest.raises(ValueError, match="not a JSON schema"):
        answers.schema_errors({}, {"type": "nonsense"})


def test_tool_calls_are_read_as_templates_write_them() -> None:
    wanted = [ToolCall("weather", '{"city": "Rome", "days": 2}'), ToolCall("time", "{}")]
    tagged = (
        '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>\n<tool_call>{"name": "weather", "arguments": {"days": 2, "city": "Rome"}}</tool_call>'
    )
    assert answers.same_calls(answers.tool_calls_in(tagged), wanted)
    nested = '[{"function": {"name": "weather", "arguments": "{\\"city\\": \\"Rome\\", \\"days\\": 2}"}}, {"name": "time"}]'
    assert answers.same_calls(answers.tool_calls_in(f"```json\n{nested}\n```"), wanted)
    assert not answers.same_calls(answers.tool_calls_in(tagged), wanted[:1])
    assert not answers.same_calls(answers.tool_calls_in('<tool_call>{"name": "time", "arguments"'), wanted)
    assert answers.tool_calls_in("I would call weather now.") == []


def test_texts_are_equal_but_for_case_blanks_and_punctuation_in_every_script() -> None:
    assert answers.same_text("  the  ANSWER, yes!", "The answer: yes")
    assert not answers.same_text("the answer", "an answer")
    assert answers.same_text("Straße", "STRASSE")
    assert answers.same_text("+", " + ")
    assert not answers.same_text("+", "-")
    assert answers.words_of("你好, world") == ["你", "好", "world"]


def test_shared_words_weigh_precision_and_recall() -> None:
    assert answers.shared_words("red green", "red blue") == pytest.approx(0.5)
    assert answers.shared_words("red", "red blue blue blue") == pytest.approx(0.4)
    assert answers.shared_words("", "red") == 0
    assert answers.shared_words("", "") == 1


def test_refusals_are_seen_by_how_an_answer_begins() -> None:
    refused = ["I'm sorry, but I can't help with that.", "I cannot do this.", "I\u2019m unable to say.", "Es tut mir leid, das geht nicht.", "Lo siento, no."]
    assert [text for text in refused if not answers.is_refusal(text)] == []
    given = ["Sure, here it is.", "The word 'sorry' has five letters.", "You can't miss it.", "x" * 200 + " I cannot do this."]
    assert [text for text in given if answers.is_refusal(text)] == []


def test_repeated_runs_of_words() -> None:
    assert answers.repeated_share("a b c d e f g") == 0
    assert answers.repeated_share("a b c d " * 10) > 0.8
    assert answers.repeated_share("short") == 0


def _row(messages: list[Message], label: bool | None = None) -> Row:
    return Row(drop="d", line=1, group="g", split="gate", schema_id="chat_v1", messages=messages, weight=1.0, label=label)


def test_the_question_of_a_row_is_all_before_its_last_learnt_answer() -> None:
    talk = [Message("user", "one"), Message("assistant", "two"), Message("user", "three"), Message("assistant", "four")]
    found = answers.question_of(_row([*talk, Message("user", "five"), Message("assistant", "six", weight=0.0)]))
    assert found is not None
    assert (found.asked, found.expected.content, len(found.prompt)) == ("three", "four", 3)
    assert answers.question_of(_row([Message("user", "one")])) is None
    assert answers.question_of(_row(talk, label=False)) is None
