"""Rows of other tools: known by sight, and turned into rows of a spec without losing anything."""

import json

import pytest
from stories import ANSWER, GOOD_ROWS, OTHER, USER

from rendering.specs import SPECS
from validation.layouts import LAYOUTS, convert, is_incomplete, layout_of

Q_AND_A = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SHARE = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]

TO_CHAT = {
    "ShareGPT": {"conversations": SHARE},
    "ShareGPT under messages": {"messages": SHARE},
    "turns under another key": {"dialog": Q_AND_A},
    "turns as text": {"conversations": json.dumps(SHARE)},
    "pairs of texts": {"conversation": [{"human": "q", "assistant": "a"}]},
    "capitals": {"conversations": [{"role": "User", "content": "q"}, {"role": "Assistant", "content": "a"}]},
    "prompt and response": {"prompt": "q", "response": "a"},
    "question and answer": {"answer": "a", "question": "q"},
    "completions": {"prompt": "q", "completion": "a"},
    "Alpaca without input": {"instruction": "q", "input": "", "output": "a"},
    "Gemini": {"contents": [{"role": "user", "parts": [{"text": "q"}]}, {"role": "model", "parts": [{"text": "a"}]}]},
    "ChatML": {"text": "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"},
    "Llama 3": {"text": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nq<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\na<|eot_id|>"},
    "Llama 2": {"text": "<s>[INST] q [/INST] a </s>"},
    "Gemma": {"text": "<bos><start_of_turn>user\nq<end_of_turn>\n<start_of_turn>model\na<end_of_turn>\n"},
    "Zephyr": {"text": "<|user|>\nq</s>\n<|assistant|>\na</s>\n"},
    "headers": {"text": "Below is an instruction that describes a task.\n\n### Instruction:\nq\n\n### Response:\na"},
    "speakers": {"text": "Human: q\nAssistant: a"},
}


@pytest.mark.parametrize("title", TO_CHAT)
def test_rows_of_other_tools_become_conversations(title: str) -> None:
    assert convert(TO_CHAT[title], "chat_sft_v1") == {"messages": Q_AND_A}


@pytest.mark.parametrize(
    ("row", "spec", "wanted"),
    [
        ({"instruction": "i", "input": "x", "output": "o"}, "completion_v1", {"prompt": "i\n\nx", "completion": "o"}),
        ({"instruction": "i", "context": "x", "response": "o"}, "instruction_v1", {"instruction": "i", "input": "x", "output": "o"}),
        ({"messages": Q_AND_A}, "completion_v1", {"prompt": "q", "completion": "a"}),
        ({"system_prompt": "s", "question": "q", "response": "a"}, "chat_sft_v1", {"messages": [{"role": "system", "content": "s"}, *Q_AND_A]}),
        ({"prompt": "q", "model_output": "m", "correction": "a"}, "completion_v1", {"prompt": "q", "completion": "a", "metadata": {"model_output": "m"}}),
        ({"chosen": [USER, ANSWER], "rejected": [USER, OTHER]}, "preference_v1", {"prompt": [USER], "chosen": [ANSWER], "rejected": [OTHER]}),
        ({"question": "q", "chosen": "a", "rejected": "b"}, "preference_v1", {"prompt": "q", "chosen": "a", "rejected": "b"}),
        (
            {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
            "preference_v1",
            {"prompt": [USER], "chosen": [ANSWER], "rejected": [OTHER]},
        ),
        ({"instruction": "i", "input": "x", "chosen": "a", "rejected": "b"}, "preference_v1", {"prompt": "i\n\nx", "chosen": "a", "rejected": "b"}),
        (
            {"system": "s", "chosen": [USER, ANSWER], "rejected": [USER, OTHER]},
            "preference_v1",
            {"prompt": [{"role": "system", "content": "s"}, USER], "chosen": [ANSWER], "rejected": [OTHER]},
        ),
        # What a duplicate says is said already, and a verdict that calls the answer good harms nobody.
        ({"conversations": SHARE, "prompt": "q", "user": "u7"}, "chat_sft_v1", {"messages": Q_AND_A, "metadata": {"prompt": "q", "user": "u7"}}),
        ({"question": "q", "answer": "a", "is_correct": True}, "completion_v1", {"prompt": "q", "completion": "a", "metadata": {"is_correct": True}}),
        ({"question": "q", "answer": "a", "context": ""}, "completion_v1", {"prompt": "q", "completion": "a", "metadata": {"context": ""}}),
        ({"question": "q", "answer": "a", "label": 0}, "unpaired_v1", {"prompt": "q", "completion": "a", "label": False}),
        (
            {"image": "x.jpg", "conversations": [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]},
            "vision_v1",
            {"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "q"}]}, ANSWER], "images": ["x.jpg"]},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rows_become_rows_of_other_specs(row: dict[str, object], spec: str, wanted: dict[str, object]) -> None:
    assert convert(row, spec) == wanted


@pytest.mark.parametrize(
    ("row", "spec", "lacks"),
    [
        ({"prompt": "p", "completion": "c"}, "unpaired_v1", True),
        ({"input": "x", "output": "o"}, "instruction_v1", True),
        ({"chosen": "a", "rejected": "b", "source": "web"}, "preference_v1", True),  # a column tells of no layout
        ({"prompt": "p", "correction": "c", "id": 3}, "correction_v1", True),
        ({"instruction": "i", "response": "r"}, "instruction_v1", False),
        ({"prompt": "p", "response": "r"}, "completion_v1", False),
        ({"tools": [], "conversations": SHARE}, "chat_sft_v1", False),
        ({"id": 3}, "completion_v1", False),
        ({"prompt": "p", "completion": "c"}, "completion_v1", False),
    ],
)
def test_a_row_that_lacks_a_key_is_no_other_layout(row: dict[str, object], spec: str, lacks: bool) -> None:
    assert is_incomplete(row, SPECS[spec]) is lacks
    assert not lacks or layout_of(row, SPECS[spec]) is None


def test_a_refused_conversion_says_which_key_is_in_the_way() -> None:
    row = {"question": "q", "answer": "a", "is_correct": False}
    layout = layout_of(row)
    assert layout is not None
    hint, fix = layout.way(row, "chat_sft_v1")
    assert "'is_correct' says that the answer is a bad one" in hint
    assert fix == ""


def test_nothing_of_a_row_is_lost() -> None:
    row = {"id": "7", "weight": 0.5, "conversations": SHARE, "lang": "en", "metadata": {"source": "web"}, "score": 3}
    wanted = {"messages": Q_AND_A, "id": "7", "weight": 0.5, "metadata": {"source": "web", "lang": "en", "score": 3}}
    assert convert(row, "chat_sft_v1") == wanted


def test_calls_of_sharegpt_and_anthropic_become_tool_calls() -> None:
    share = {
        "tools": '[{"name": "f"}]',
        "conversations": [
            {"from": "human", "value": "q"},
            {"from": "function_call", "value": '{"name": "f", "arguments": {"n": 1}}'},
            {"from": "observation", "value": "5"},
            {"from": "gpt", "value": "a"},
        ],
    }
    found = convert(share, "chat_sft_v1")
    assert found is not None
    assert found["tools"] == [{"name": "f"}]
    assert [turn["role"] for turn in found["messages"]] == ["user", "assistant", "tool", "assistant"]
    blocks = [{"type": "text", "text": "wait"}, {"type": "tool_use", "id": "t", "name": "f", "input": {"n": 1}}]
    answer = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "5"}]}
    anthropic = {"system": "s", "messages": [USER, {"role": "assistant", "content": blocks}, answer, ANSWER], "tools": [{"name": "f", "input_schema": {}}]}
    found = convert(anthropic, "chat_sft_v1")
    assert found is not None
    assert [turn["role"] for turn in found["messages"]] == ["system", "user", "assistant", "tool", "assistant"]
    assert found["messages"][2]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"n": 1}'}
    assert found["tools"][0]["function"]["name"] == "f"


@pytest.mark.parametrize(
    ("row", "spec"),
    [
        ({"text": "Once upon a time."}, "chat_sft_v1"),
        ({"text": "Intro.\n### Instruction:\nq\n### Response:\na"}, "chat_sft_v1"),  # text outside of the marks
        ({"text": "Human: q"}, "chat_sft_v1"),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "narrator", "value": "a"}]}, "chat_sft_v1"),
        ({"conversations": [{"from": "human", "value": "q", "time": 3}, {"from": "gpt", "value": "a"}]}, "chat_sft_v1"),  # a turn has no metadata
        ({"conversations": []}, "chat_sft_v1"),
        ({"conversations": "not a list"}, "chat_sft_v1"),
        ({"contents": [{"role": "user", "parts": [{"inlineData": {}}]}]}, "chat_sft_v1"),
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, "chat_sft_v1"),  # the worse answer would be lost
        ({"conversations": [*SHARE, *SHARE]}, "completion_v1"),  # so would the turns before
        ({"question": "q", "answer": {"text": "a"}}, "chat_sft_v1"),
        ({"prompt": "p", "completion": "c", "thumbs": "sideways"}, "unpaired_v1"),
        ({"chosen": [USER, ANSWER], "rejected": [{"role": "user", "content": "other"}, OTHER]}, "preference_v1"),
        ({"input": "q", "output": "a"}, "chat_sft_v1"),  # the instruction may be missing
        ({"input": "q", "output": "a"}, "instruction_v1"),
        ({"question": "q", "answer": "a", "is_correct": False}, "chat_sft_v1"),  # a bad answer would be learnt
        ({"question": "q", "answer": "a", "label": 0}, "chat_sft_v1"),
        ({"conversations": SHARE, "thumbs": "down"}, "chat_sft_v1"),
        ({"text": "Human: q\nAssistant: a", "label": False}, "chat_sft_v1"),
        ({"prompt": "q", "response": "the model's own", "correction": "the right one"}, "chat_sft_v1"),
        ({"question": "q", "answer": "a", "response": "another"}, "completion_v1"),  # which of the two?
        ({"question": "q", "answer": "a", "rejected": "b"}, "completion_v1"),  # a pair
        ({"question": "q", "context": "what it is about", "answer": "a"}, "chat_sft_v1"),
        ({"question": "q", "choices": ["x", "y"], "answer": "x"}, "chat_sft_v1"),
        ({"conversations": [{"role": "system", "content": "s"}, *Q_AND_A], "system": "another"}, "chat_sft_v1"),
        ({"prompt": "q", "model_output": "m", "correction": "a", "system": "s"}, "completion_v1"),
        ({"messages": SHARE, "images": ["a.png"]}, "chat_sft_v1"),
        ({"conversations": SHARE, "tools": "look_up"}, "chat_sft_v1"),
        ({"conversations": SHARE, "tools": [{"name": "f"}], "label": True}, "unpaired_v1"),  # it has no tools
        ({"input": {"messages": [USER], "tools": [{}]}, "preferred_output": [ANSWER], "non_preferred_output": [OTHER]}, "preference_v1"),
        ({"conversations": SHARE, "lang": "en", "metadata": {"lang": "de"}}, "chat_sft_v1"),
        ({"conversations": SHARE, "weight": 3}, "chat_sft_v1"),
        ({"completion": "a", "label": False}, "chat_sft_v1"),
        ({"messages": Q_AND_A}, "chat_sft_v1"),  # it is one already
        ({"messages": Q_AND_A}, "no_such_spec"),
        ({}, "chat_sft_v1"),
    ],
)
def test_what_cannot_be_read_for_certain_is_left_alone(row: dict[str, object], spec: str) -> None:
    assert convert(row, spec) is None


def test_every_converted_row_is_a_row_of_its_spec() -> None:
    for row in TO_CHAT.values():
        for spec in SPECS.values():
            converted = convert(row, spec.id)
            assert converted is None or spec.decode(json.dumps(converted).encode())


def test_rows_of_every_spec_are_known_by_sight() -> None:
    for spec_id, rows in GOOD_ROWS.items():
        layout = layout_of(rows[0])
        assert layout is not None
        assert layout.id == spec_id or spec_id == "vision_v1"
        assert layout_of(rows[0], SPECS[spec_id]) is not None
    assert len({layout.id for layout in LAYOUTS}) == len(LAYOUTS)


def test_a_layout_names_its_own_conversions() -> None:
    layout = layout_of({"conversations": SHARE})
    assert layout is not None
    assert layout.convert["chat_sft_v1"]({"conversations": SHARE}) == {"messages": Q_AND_A}
