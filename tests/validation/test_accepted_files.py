"""Files that look wrong and are right: none of them is refused, and none is talked about."""

import json
from pathlib import Path

import pytest
from gate_cases import GOOD, GOOD_PAIRS, Check, as_bytes, chat, found, pair, turns
from stories import ANSWER, GOOD_ROWS, OTHER, TOOL, USER, call, calling, dialog, result, with_keys

from validation import DataValidator

REAL = Path(__file__).parents[1] / "data" / "gate" / "gsm8k_40.jsonl"
DEEP = '"metadata": {"a": ' + "[" * 62 + "]" * 62 + "}"  # 64 levels

CHATS = {
    "line separators inside strings": [chat("a\u2028b\u2029c\x85d\x0b"[:-1], "e\u2028f")],
    "emoji families and flags": [chat("👨‍👩‍👧‍👦 🏳️‍🌈", "👍🏽 1️⃣")],
    "signs with a selector behind them": [chat("❤️", "1️⃣"), chat("☎️", "葛\U000e0100"), chat("ᠠ᠋", "កា")],
    "escaped emoji": [b'{"messages": [{"role": "user", "content": "\\ud83d\\ude00"}, {"role": "assistant", "content": "a"}]}'],
    "right to left": [chat("שלום עולם", "مرحبا \u200fبالعالم")],
    "Chinese, Japanese, Korean, Thai": [chat("你好，世界", "こんにちは 세계 สวัสดี")],
    "another key order": [b'{"messages": [{"content": "q", "role": "user"}, {"content": "a", "role": "assistant"}]}'],
    "blanks between tokens": [b'\t { "messages" : [ { "role" : "user" , "content" : "q" } , { "role" : "assistant", "content" : "a" } ] }  '],
    "no blanks at all": [json.dumps(chat(metadata={"a": 1}), separators=(",", ":")).encode()],
    "quotes and braces in the text": [chat('{"role": "user", "messages": [', '"content": "a", "content"')],
    "a text that begins with a colon": [chat(":-)", ':"')],
    "a text that is the name of a key": [turns(("user", "role"), ("assistant", "content"))],
    "JSON as the answer": [chat("answer in JSON", '{"messages": "[1, 2]", "weight": NaN}')],
    "a list of turns as the answer": [chat("write a dialog", '[{"role": "user", "content": "q"}]')],
    "comparisons and HTML": [chat("is a < b?", "<p>1 <= 2</p> <|> </s> [INST] |im_end|")],
    "struck-out text": [chat("cross it out", "This was <s>wrong</s>"), chat("in red", "It was <s class='x'>wrong</s>")],
    "a text about an end token": [chat("Which token ends a turn of Llama 2?", "It is </s>"), chat("and quoted?", "`</s>`")],
    "operators of F# and Elm": [chat("what does <| do?", "f <| g x |> h <|> i")],
    "control tokens in the metadata only": [chat(metadata={"raw": "<|im_end|>"})],
    "everything that is optional": [
        chat(id="a-1", weight=0.25, metadata={"source": "x", "n": 2**63, "deep": [[[]]]}),
        chat(id=-(2**63), weight=0, metadata={}),
        chat(id=2**64 - 1, weight=1, tools=[]),
        {"messages": [{"role": "user", "content": "q", "name": "ann"}, {"role": "assistant", "content": "a", "weight": 1}]},
    ],
    "keys that may be left out, written with what they are without": [
        dialog({**USER, "name": "", "tool_calls": [], "tool_call_id": ""}, ANSWER, metadata={}, id="", weight=1.0, tools=[])
    ],
    "a muted turn before a learnt one": [dialog(USER, {"role": "assistant", "content": "", "weight": 0}, USER, ANSWER)],
    "a turn that counts for a quarter": [dialog(USER, {**ANSWER, "weight": 0.25}, USER, {**ANSWER, "weight": 1.0})],
    "the same key in different objects": [chat(metadata={"role": "x", "content": "y", "messages": "z", "weight": 1, "name": "n"})],
    "64 levels": [with_keys(chat(), DEEP)],
    "an answer that stands in its question": [chat("Which word: red or blue?", "red")],
    "an empty tool result": [dialog(USER, calling(call()), result(content=""), ANSWER, tools=[TOOL])],
    "twelve equal rows": [chat()] * 12,
}

TOOLS = {
    "a call at the end": [dialog(USER, calling(call()), tools=[TOOL])],
    "a call with a text": [dialog(USER, calling(call(), content="Let me see."), result(), ANSWER, tools=[TOOL])],
    "two calls at once, answered the other way round": [dialog(USER, calling(call(), call(id="call_2")), result("call_2"), result(), ANSWER, tools=[TOOL])],
    "call after call": [dialog(USER, calling(call()), result(), calling(call(id="call_2")), result("call_2"), ANSWER, tools=[TOOL])],
    "the user goes on behind a result": [dialog(USER, calling(call()), result(), USER, ANSWER, tools=[TOOL])],
    "calls and results without ids": [dialog(USER, calling(call(id=""), call(id="")), result(""), result(""), ANSWER, tools=[TOOL])],
    "results that name their tool": [dialog(USER, calling(call()), result("", name="look_up"), ANSWER, tools=[TOOL])],
    "calls without ids, results with ids": [dialog(USER, calling(call(id="")), result("x"), ANSWER, tools=[TOOL])],
    "arguments as an object": [dialog(USER, calling(call(arguments={"word": "sun", "deep": {"n": [1]}})), tools=[TOOL])],
    "arguments without a value": [dialog(USER, calling({"function": {"name": "look_up"}}), tools=[TOOL])],
    "arguments whose value is JSON as text": [dialog(USER, calling(call(arguments=json.dumps({"body": '{"a": 1}'}))), tools=[TOOL])],
    "arguments with one key in two objects": [dialog(USER, calling(call(arguments='{"a": {"a": 1}, "b" : ["\\":", {"a": 2}]}')), tools=[TOOL])],
    "a content that is left out beside calls": [dialog(USER, {"role": "assistant", "tool_calls": [call()]}, result(), ANSWER, tools=[TOOL])],
    "a plain declaration": [dialog(USER, calling(call("f")), tools=[{"name": "f", "description": "d", "parameters": {}, "strict": True}])],
    "tools that nobody calls": [chat(tools=[TOOL])],
    "tools whose schema repeats a key on another level": [chat(tools=[{"name": "f", "parameters": {"properties": {"name": {"type": "string"}}}}])],
    "a result that is a list of parts as text": [dialog(USER, calling(call()), result(content='[{"type": "text", "text": "a star"}]'), ANSWER, tools=[TOOL])],
}

OTHERS = {
    "completion_v1": [pair("Abasement (n.): "), pair("x", '[{"role": "user"}]'), pair("x", "y", metadata={"a": {"b": 1}}, id=3)],
    "instruction_v1": [
        {"instruction": "Name a colour.", "output": "red"},
        {"instruction": "Repeat.", "input": "red", "output": "red", "metadata": {"a": 1}},
        {"instruction": "Write nothing visible but a dot.", "input": " ", "output": "."},
    ],
    "preference_v1": [
        {"prompt": [USER], "chosen": [ANSWER], "rejected": [OTHER]},
        {"prompt": [USER], "chosen": [USER, ANSWER], "rejected": [USER, OTHER]},  # the prompt repeated, as some exports do
        {"prompt": "q", "chosen": [USER, ANSWER], "rejected": [USER, OTHER]},
        {"prompt": [{"role": "system", "content": "s"}, USER, ANSWER, USER], "chosen": "x", "rejected": "y", "id": "1"},
        {"prompt": [USER], "chosen": [ANSWER, {"role": "user", "content": "r"}, ANSWER], "rejected": [OTHER, {"role": "user", "content": "t"}, OTHER]},
        {"prompt": "p", "chosen": "The answer is 4.", "rejected": "The answer is 5."},
        {"prompt": "p", "chosen": "a", "rejected": "a b"},
        {"prompt": "p", "chosen": "日本", "rejected": "日 本"},
        {"prompt": "Schweizer Schreibung?", "chosen": "gross", "rejected": "groß"},
    ],
    "unpaired_v1": [{"prompt": [USER], "completion": [ANSWER], "label": False}, {"prompt": "p", "completion": "[1, 2]", "label": True}],
    "correction_v1": [
        {"prompt": "p", "model_output": "paris", "correction": "Paris", "signal": "user_correction"},  # case is what was corrected
        {"prompt": "p", "model_output": "if x:\npass", "correction": "if x:\n    pass", "signal": {"kind": "edit"}},
        {"prompt": [USER], "model_output": "m", "correction": "c"},
    ],
}  # fmt: skip


@pytest.mark.parametrize("title", [*CHATS, *TOOLS])
def test_a_valid_chat_passes_without_a_word(title: str, check: Check) -> None:
    rows = [*GOOD, *(CHATS | TOOLS)[title]]
    report = check(rows)
    assert report.findings == (), report.to_text()
    assert report.rows == len(rows)


@pytest.mark.parametrize("schema", OTHERS)
def test_valid_rows_of_other_specs_pass_without_a_word(schema: str, check: Check) -> None:
    rows = [*GOOD_ROWS[schema], *OTHERS[schema]]
    report = check(rows, schema)
    assert report.findings == (), report.to_text()
    assert report.rows == len(rows)


def test_puzzles_are_chats(check: Check) -> None:
    assert check(GOOD, "syllo_v1").findings == ()


def test_columns_that_are_declared_pass_with_anything_in_them(check: Check) -> None:
    rows = [chat(lang=value, dialogue_id="x") for value in ("en", None, 1.5, [1], {"a": {}}, "<|im_end|>")] * 2
    report = check(rows, columns=("lang", "dialogue_id"))
    assert report.findings == (), report.to_text()


def test_declared_columns_are_still_json(check: Check) -> None:
    rows = [*[chat(x=1)] * 10, chat(x=2**70), with_keys(chat(), '"x": {"a": 1, "a": 2}')]
    report = check(rows, columns=("x",))
    assert [(finding.id, finding.lines, finding.path) for finding in report.findings] == [("J05", (12,), ""), ("J09", (11,), "$.x")]


@pytest.mark.parametrize(
    ("ending", "said"), [(b"\r\n", ["crlf"]), (b"\n\n\n", ["end of the file"]), (b"", ["no newline"]), (b"\n \t\r\n", ["CRLF", "end of the file"])]
)
def test_line_ends_do_not_matter_and_are_noted(ending: bytes, said: list[str], check: Check) -> None:
    lines = as_bytes(GOOD).strip().split(b"\n")
    report = check((b"\r\n" if ending == b"\r\n" else b"\n").join(lines) + ending)
    assert {finding.id for finding in report.findings} == {"F07"}, report.to_text()
    assert all(finding.severity == "info" for finding in report.findings)
    for words in said:
        assert any(words.lower() in finding.message.lower() for finding in report.findings)
    assert (report.verdict, report.rows) == ("accepted", 12)


def test_a_byte_order_mark_is_only_noted_and_the_first_row_counts(check: Check) -> None:
    report = check(b"\xef\xbb\xbf" + as_bytes(GOOD_PAIRS), "completion_v1")
    assert [finding.id for finding in report.findings] == ["F04"]
    assert report.verdict == "accepted"
    assert report.rows == 12


def test_a_bad_first_row_behind_a_mark_is_named_at_its_true_offset(check: Check) -> None:
    report = check(b"\xef\xbb\xbf" + b'{"prompt": "\xff"}\n' + as_bytes(GOOD_PAIRS), "completion_v1")
    assert "offset 15 of the file" in found(report, "F05").message


def test_real_rows_pass() -> None:
    report = DataValidator().check_file(REAL, "chat_sft_v1", "quick")
    assert (report.verdict, report.rows, report.findings) == ("accepted", 40, ())
    assert report.stats["turns"] == 80
    assert report.stats["levels_run"] == ["quick"]


def test_turns_are_judged_even_where_a_column_is_extra(check: Check) -> None:
    rows = [*GOOD, turns(("user", "q"), source="web"), chat(answer=" ", source="web"), turns(("User", "q"), ("assistant", " "))]
    report = check(rows)
    assert found(report, "S03").count == 2
    assert found(report, "M05").lines == (13,)
    assert found(report, "M07").lines == (14, 15)


def test_rows_with_metadata_are_judged_as_those_without(check: Check) -> None:
    rows = [chat(f"question {number}", metadata={"source": "web", "layer": number}) for number in range(3000)]
    rows[1200] = chat(answer="", metadata={"source": "web"})
    report = check(rows)
    assert [(finding.id, finding.lines) for finding in report.findings] == [("M07", (1201,))]
    assert report.stats["turns"] == 6000


def test_lines_are_physical(check: Check) -> None:
    content = as_bytes([*GOOD[:2], b"", b"\r", chat("a\u2028b\x85c"), b"oops", *GOOD])
    assert found(check(content), "J01").lines == (6,)


def test_a_row_may_be_as_long_as_the_limit_and_blocks_do_not_cut_it(check: Check) -> None:
    rows = [pair("p" * size, "c" * size) for size in (100_000, 131_056, 131_057, 300_000)]
    report = check([*GOOD_PAIRS, *rows], "completion_v1")
    assert report.verdict == "accepted"
    assert report.stats["longest_row_bytes"] == len(json.dumps(rows[-1]))
    assert found(report, "F10").lines == (15, 16)
