"""What each kind of signal becomes, and what becomes of signals that agree, disagree or say nothing."""

import json
from typing import Any

import pytest
from said import corrections, signal

from core.learning import FeedbackConfig
from core.signals import Origin
from feedback.rows import BAD_ORDER, CORRECTED, EARLIER, KNOWN, LEAST_JUDGED, NO_ANSWER, NO_CHANGE, NO_WEIGHT, Made, rows_of
from rendering.specs import SPECS

PLAIN = FeedbackConfig()


def only(made: list[Made]) -> Made:
    assert len(made) == 1
    return made[0]


def decoded(made: Made) -> list[dict[str, Any]]:
    return [json.loads(line) for line in made.rows]


def test_a_correction_becomes_a_correction_row_that_names_its_signal() -> None:
    said = signal("Who?", wrong="Bob.", right="Alice.", response="chatcmpl-base-0123456789abcdef01234567")
    made = only(rows_of([said], PLAIN))
    (row,) = decoded(made)
    assert made.schema_id == "correction_v1"
    assert (row["model_output"], row["correction"], row["id"]) == ("Bob.", "Alice.", said.id)
    assert row["metadata"] == {"kind": "correction", "origin": "human", "source": "api", "response": said.response}
    assert made.lines == {said.id: 1}
    assert "weight" not in row


@pytest.mark.parametrize("calls", [5, True, {"a": 1.5}])
def test_one_strange_signal_keeps_no_other_from_becoming_a_row(calls: object) -> None:
    strange = signal("", input=({"role": "assistant", "tool_calls": calls}, {"role": "user", "content": "Who?"}), right="Alice.")
    made = only(rows_of([strange, signal("Where?", wrong="Here.", right="There.")], PLAIN))
    assert len(decoded(made)) in (1, 2)
    assert any("There." in json.dumps(row) for row in decoded(made))


def test_the_weight_of_a_signal_becomes_the_weight_of_its_row() -> None:
    made = only(rows_of([signal("Who?", wrong="Bob.", right="Alice.", origin=Origin.AI, weight=0.5)], PLAIN))
    assert decoded(made)[0]["weight"] == 0.5


def test_by_config_a_correction_becomes_a_pair_and_one_without_the_wrong_answer_stays_a_row() -> None:
    both, right_only = signal("Who?", wrong="Bob.", right="Alice."), signal("When?", right="At noon.")
    chat, pairs = rows_of([both, right_only], FeedbackConfig(corrections="preference"))
    assert (chat.schema_id, pairs.schema_id) == ("chat_sft_v1", "preference_v1")
    assert decoded(pairs)[0]["chosen"] == "Alice."
    assert decoded(pairs)[0]["rejected"] == "Bob."
    assert chat.lines == {right_only.id: 1}


def test_what_is_learnt_as_it_stands_is_one_file_whoever_said_it() -> None:
    said = [
        signal("Who?", wrong="Bob.", right="Alice."),
        signal("When?", right="At noon.", kind="positive", minute=1),
        signal("Why?", right="So.", kind="import"),
    ]
    made = only(rows_of(said, PLAIN))
    assert made.schema_id == "chat_sft_v1"
    assert {row["messages"][-1]["content"] for row in decoded(made)} == {"Alice.", "At noon.", "So."}


def test_only_the_judged_answer_is_learnt_not_the_answers_before_it() -> None:
    asked = (
        {"role": "system", "content": "Be brief.", "refusal": None},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "Bob.", "annotations": []},
        {"role": "user", "content": "Sure?"},
    )
    made = only(rows_of([signal("", input=asked, right="Alice.", kind="positive")], PLAIN))
    row = SPECS[made.schema_id].decode(made.rows[0])
    assert [turn.weight for turn in row.messages] == [1, 1, 0, 1, 1]  # type: ignore[union-attr]


def test_tool_calls_keep_what_a_row_may_say_of_them_and_their_tools_are_named() -> None:
    call = {"id": "call_1", "type": "function", "index": 0, "function": {"name": "find", "arguments": '{"id": 3}', "strict": True}}
    asked = (
        {"role": "user", "content": "Find 3"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "none", "tool_call_id": "call_1"},
    )
    (row,) = decoded(only(rows_of([signal("", input=asked, right="There is no 3.", kind="positive")], PLAIN)))
    assert row["messages"][1]["tool_calls"] == [{"function": {"name": "find", "arguments": '{"id": 3}'}, "id": "call_1", "type": "function"}]
    assert row["tools"] == [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}], "the gate refuses calls of undeclared tools"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (signal("Who?", wrong="Alice. ", right="Alice."), NO_CHANGE),
        (signal("Who?", kind="positive"), NO_ANSWER),
        (signal("Who?", wrong="Bob.", right="Alice.", weight=0.0), NO_WEIGHT),
        (signal("", input=({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}), right="c"), BAD_ORDER),
        (signal("", input=(), right="c"), BAD_ORDER),
        (signal("", input=({"content": "a"}, {"role": "user", "content": "b"}), right="c"), "it is no row of chat_sft_v1"),
        (signal("", input=({"role": "user", "content": [{"type": "image_url", "image_url": {}}]},), right="c"), "it is no row of chat_sft_v1"),
    ],
)
def test_a_signal_that_makes_no_row_is_left_out_with_the_reason(said: Any, why: str) -> None:
    made = only(rows_of([said], PLAIN))
    assert not made.rows
    assert made.left_out[said.id].startswith(why)
    assert made.signals == [said]


def test_without_consent_nothing_becomes_a_row_unless_the_config_says_so() -> None:
    said = signal("Who?", right="Alice.", consent=False)
    assert rows_of([said], PLAIN) == []
    assert only(rows_of([said], FeedbackConfig(require_consent=False))).rows


def test_two_who_say_the_same_share_a_row_with_the_weight_of_who_weighs_most() -> None:
    peer = signal("Who?", wrong="Bob.", right="Alice.", origin=Origin.AI, weight=0.5)
    person = signal("who? ", wrong="Bob.", right="ALICE.", user="u1", minute=5)
    made = only(rows_of([peer, person], PLAIN))
    assert made.lines == {peer.id: 1, person.id: 1}
    assert "weight" not in decoded(made)[0]


def test_of_two_corrections_the_weightier_then_the_later_holds() -> None:
    first, later = signal("Who?", wrong="Bob.", right="Alice."), signal("Who?", wrong="Bob.", right="Carol.", minute=9)
    peer = signal("Who?", wrong="Bob.", right="Dave.", origin=Origin.AI, weight=0.5, minute=20)
    made = only(rows_of([first, later, peer], PLAIN))
    assert [row["correction"] for row in decoded(made)] == ["Carol."]
    assert made.left_out == {first.id: EARLIER, peer.id: EARLIER}


def test_praise_for_an_answer_that_was_corrected_since_teaches_nothing() -> None:
    praise = signal("Who?", right="Bob.", kind="positive")
    correction = signal("Who?", wrong="Bob.", right="Alice.", minute=1)
    made = only(rows_of([praise, correction], PLAIN))
    assert made.left_out == {praise.id: CORRECTED}
    assert list(made.lines) == [correction.id]
    later = signal("Who?", right="Bob.", kind="positive", minute=2)
    assert set(only(rows_of([correction, later], PLAIN)).lines) == {correction.id, later.id}, "who praises it after the correction knows of both"


def test_bad_answers_alone_wait_and_with_as_many_good_ones_they_are_judged_answers() -> None:
    bad = [signal(f"Question {number}?", wrong=f"Nonsense {number}", kind="mistake", minute=number) for number in range(LEAST_JUDGED)]
    good = [signal(f"Other question {number}?", right=f"Sense {number}", kind="positive", minute=number) for number in range(LEAST_JUDGED + 5)]
    assert rows_of(bad, PLAIN) == []
    assert rows_of([*bad, *good[:-6]], PLAIN)[0].schema_id == "chat_sft_v1"
    chat, judged = rows_of([*bad, *good], PLAIN)
    labels = [row["label"] for row in decoded(judged)]
    assert (labels.count(True), labels.count(False)) == (LEAST_JUDGED, LEAST_JUDGED)
    assert len(chat.rows) == 5
    assert not set(chat.lines) & set(judged.lines)


def test_a_mistake_whose_right_answer_is_known_by_another_signal_makes_no_row() -> None:
    mistake, correction = signal("Who?", wrong="Bob.", kind="mistake"), signal("Who?", wrong="Bob.", right="Alice.", minute=3)
    made = only(rows_of([mistake, correction], PLAIN))
    assert made.left_out == {mistake.id: KNOWN}


def test_the_same_signals_make_the_same_bytes_in_whatever_order_they_come() -> None:
    said = corrections(12)
    assert rows_of(said, PLAIN)[0].rows == rows_of(reversed(said), PLAIN)[0].rows
