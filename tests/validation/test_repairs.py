"""What `lorad fix` does to a file: only what it says, to the rows that it names, with every row counted."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gate_cases import GOOD, GOOD_PAIRS, as_bytes, chat, pair, turns
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import LoradError, RefusedError, UsageError
from validation import DATASET_SPECS, DataValidator, Level, Severity
from validation.examination import Examined, Setting
from validation.findings import Finding
from validation.repairs import mending, passes
from validation.repairs.catalogue import REPAIRS, chosen, offered
from validation.repairs.mending import Mended, Wish, mend
from validation.repairs.rows import decode, shape
from validation.repairs.units import MOST_UNIT_BYTES, Unit, as_utf8, line_units, unrolled

Fix = Callable[..., Mended]
CHAT = DATASET_SPECS["chat_sft_v1"]
BOM = b"\xef\xbb\xbf"
ODD = [chat("emoji 👩‍👩‍👧, \u200fעברית, 漢字, a\u2028b", 'it\'s "quoted" \\ and “curled”'), chat("naïve café", "Ünïcödé"), chat("1e5 and 1.0", "x")]


def _examine(schema: str, columns: tuple[str, ...] = ()) -> mending.Examine:
    def examine(path: Path, level: Level, keep_rows: bool) -> Examined:
        return DataValidator(setting=Setting(keep_rows=keep_rows)).examine(path, schema, level, name=path.name, columns=columns)

    return examine


@pytest.fixture
def fix(tmp_path: Path) -> Fix:
    """Write bytes or rows as `rows.jsonl` and mend them into `out.jsonl`."""

    def run(content: bytes | list[object], *repairs: str, schema: str = "chat_sft_v1", columns: tuple[str, ...] = (), **wish: Any) -> Mended:
        file = tmp_path / "rows.jsonl"
        file.write_bytes(content if isinstance(content, bytes) else as_bytes(content))
        before = file.read_bytes()
        spec = DATASET_SPECS[schema].with_columns(columns)
        made = Wish(repairs=chosen(repairs), **({"level": Level.QUICK} | wish))
        mended = mend(file, tmp_path / "out.jsonl", spec, made, _examine(schema, columns))
        assert file.read_bytes() == before, "the given file is never changed"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "rows.jsonl"], "nothing else is left"
        assert mended.rows_in == mended.rows_out + sum(mended.dropped.values())
        return mended

    return run


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def _rows(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def _done(mended: Mended) -> dict[str, int]:
    return {one.name: one.rows for one in mended.applied}


# --- repairs that lose nothing


def test_a_sound_file_is_copied_byte_for_byte(fix: Fix, out: Path) -> None:
    content = as_bytes([*GOOD, *ODD]).replace(b"\n", b"\r\n") + b"\n \n" + as_bytes(GOOD[:1]).rstrip()
    mended = fix(content)
    assert out.read_bytes() == content
    assert (mended.applied, mended.rows_in, mended.rows_out) == ([], 16, 16)


def test_only_the_rows_that_need_it_are_written_anew(fix: Fix, out: Path) -> None:
    untouched = as_bytes([*GOOD, *ODD]) + b'{ "messages" :[{"content":"q","role":"user"},{"role":"assistant","content":"\\u0061"}]}\n'
    mended = fix(untouched + as_bytes([turns(("human", "q"), ("gpt", "a"))]) + untouched)
    lines = out.read_bytes().split(b"\n")
    assert b"\n".join(lines[:16]) + b"\n" == untouched
    assert b"\n".join(lines[17:]) == untouched
    assert json.loads(lines[16]) == turns(("user", "q"), ("assistant", "a"))
    (roles,) = mended.applied
    assert (roles.name, roles.rows, roles.lines, roles.before, roles.after) == ("roles", 1, [17], "human, gpt", "user, assistant")
    assert mended.report.verdict == "accepted"


def test_a_byte_order_mark_is_taken_off_wherever_files_were_joined(fix: Fix, out: Path) -> None:
    mended = fix(b"".join(BOM + as_bytes([row]) for row in GOOD))
    assert out.read_bytes() == as_bytes(GOOD)
    assert _done(mended) == {"bom": 12}


@pytest.mark.parametrize("indent", [None, 0, 2, "\t"])
@pytest.mark.parametrize("mark", [b"", BOM])
def test_an_array_becomes_one_row_a_line(fix: Fix, out: Path, indent: int | None, mark: bytes) -> None:
    mended = fix(mark + json.dumps([*GOOD, *ODD], indent=indent, ensure_ascii=False).encode())
    assert _rows(out) == [*GOOD, *ODD]
    assert mended.rows_in == 15
    assert mended.report.verdict == "accepted"


def test_pretty_printed_objects_become_one_row_a_line(fix: Fix, out: Path) -> None:
    content = b"\n".join(json.dumps(row, indent=2, ensure_ascii=False).encode() for row in [*GOOD, *ODD])
    mended = fix(content)
    assert _rows(out) == [*GOOD, *ODD]
    assert _done(mended) == {"unroll": 15}
    assert mended.applied[0].lines[:2] == [1, 13]


def test_two_values_on_a_line_and_lists_of_rows_are_taken_apart(fix: Fix, out: Path) -> None:
    joined = as_bytes(GOOD[:3]).replace(b"\n", b" ") + b"\n" + json.dumps(GOOD[3:6]).encode() + b"\n" + as_bytes(GOOD[6:])
    mended = fix(joined)
    assert _rows(out) == GOOD
    assert _done(mended) == {"unroll": 6}


def test_a_conversation_that_is_a_bare_list_of_turns_is_not_torn_apart() -> None:
    row = b'[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]'
    assert [unit.raw for unit in unrolled([row + b"\n" + row])] == [row, row]


def test_a_row_that_was_cut_off_stays_and_the_others_are_mended(fix: Fix, out: Path) -> None:
    cut = b'{"messages": [{"role": "user", "content": "q"'
    mended = fix(as_bytes([*GOOD[:6], cut, *GOOD[6:]]) + as_bytes(GOOD[:1]).rstrip() + b" " + as_bytes(GOOD[1:2]))
    assert out.read_bytes() == as_bytes([*GOOD[:6], cut, *GOOD[6:], *GOOD[:2]])
    assert mended.report.errors[0].lines == (7,)


def test_half_of_a_pretty_object_is_never_guessed_at(fix: Fix, out: Path) -> None:
    broken = b"\n".join(json.dumps(row, indent=2).encode() for row in GOOD).replace(b'"role": "assistant",', b'"role": "assistant"\n{', 1)
    mended = fix(BOM + broken)
    assert out.read_bytes() == broken
    assert _done(mended) == {"bom": 1}
    assert "the value that begins in line 1 breaks off" in mended.notes[0]
    assert mended.report.verdict == "refused"


def test_a_value_is_found_however_the_bytes_arrive() -> None:
    content = json.dumps([*GOOD, *ODD], indent=1, ensure_ascii=False).encode() + b'\n{"a": 1} {"b": "}"}\n{"c": [1,\n2]}\n'
    whole = [(unit.line, unit.raw) for unit in unrolled([content])]
    assert len(whole) == 18
    for size in (1, 2, 7, 64, 1000):
        assert [(unit.line, unit.raw) for unit in unrolled(content[place : place + size] for place in range(0, len(content), size))] == whole


_VALUES = st.dictionaries(
    st.text(max_size=6), st.recursive(st.none() | st.integers() | st.text(max_size=9), lambda inner: st.lists(inner, max_size=3)), max_size=3
)


@given(
    rows=st.lists(_VALUES, min_size=1, max_size=5), indent=st.sampled_from([None, 0, 1, "\t"]), array=st.booleans(), size=st.integers(1, 40), raw=st.booleans()
)
@settings(max_examples=150, deadline=None)
def test_any_values_come_out_as_they_went_in(rows: list[dict[str, Any]], indent: int | str | None, array: bool, size: int, raw: bool) -> None:
    def text(value: object) -> str:
        return json.dumps(value, indent=indent, ensure_ascii=not raw)

    content = (text(rows) if array else " \n".join(map(text, rows))).encode()
    units = list(unrolled(content[place : place + size] for place in range(0, len(content), size)))
    assert [json.loads(unit.raw) for unit in units] == rows
    assert all(b"\n" not in unit.raw for unit in units)


@given(content=st.binary(max_size=200), size=st.integers(1, 50))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_lines_of_themselves(content: bytes, size: int) -> None:
    blocks = [content[place : place + size] for place in range(0, len(content), size)]
    assert b"".join(unit.raw + unit.end for unit in line_units(blocks)) == content
    assert b"".join(as_utf8(blocks, lambda *told: None)).decode().count("\n") == content.count(b"\n")


def test_lines_are_cut_at_newlines_only_and_long_ones_go_through_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("validation.repairs.units.MOST_UNIT_BYTES", 10)
    content = "a\u2028b\r\n".encode() + b"x" * 35 + b"\nend"
    units = list(line_units(content[place : place + 4] for place in range(0, len(content), 4)))
    assert b"".join(unit.raw + unit.end for unit in units) == content
    assert [unit.line for unit in units if unit.is_row] == [1, 2, 3]
    assert MOST_UNIT_BYTES > 10


@pytest.mark.parametrize(
    "text",
    [json.dumps(chat()["messages"]), repr(chat()["messages"])],
    ids=["as JSON", "as Python"],
)
def test_a_column_of_text_becomes_what_it_says(fix: Fix, out: Path, text: str) -> None:
    mended = fix([{"messages": text, "metadata": '{"source": "web"}'}] * 12, "decode")
    assert _rows(out) == [chat(metadata={"source": "web"})] * 12
    assert mended.applied[0].before == "messages: '[…', metadata: '{…'"
    assert "[{role, content} ×2]" in mended.applied[0].after


def test_turns_of_a_pair_are_decoded_where_a_text_would_do_too(fix: Fix, out: Path) -> None:
    answer = [{"role": "assistant", "content": "a"}]
    rows = [{"prompt": f"p{number}", "chosen": json.dumps(answer), "rejected": "b"} for number in range(12)]
    fix(rows, "decode", schema="preference_v1")
    assert _rows(out) == [row | {"chosen": answer} for row in rows]


def test_arguments_that_were_encoded_twice_are_decoded_once() -> None:
    call = {"type": "function", "id": "1", "function": {"name": "f", "arguments": json.dumps(json.dumps({"a": 1}))}}
    row = {"messages": [{"role": "assistant", "content": None, "tool_calls": [call]}]}
    change = decode(row, CHAT)
    assert change is not None
    assert change.plain["messages"][0]["tool_calls"][0]["function"]["arguments"] == '{"a": 1}'
    assert decode(change.plain, CHAT) is None


def test_text_that_only_looks_like_a_list_stays_text() -> None:
    for text in ("[x] done", "{curly}", '["a"', "[1, 2, 3]"):
        assert decode({"prompt": text, "completion": "c"}, DATASET_SPECS["completion_v1"]) is None


FOREIGN = {
    "sharegpt": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    "alpaca": {"instruction": "q", "input": "", "output": "a"},
    "prompt and response": {"prompt": "q", "response": "a"},
    "question and answer": {"question": "q", "answer": "a"},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "q"}]}, {"role": "model", "parts": [{"text": "a"}]}]},
}


@pytest.mark.parametrize("layout", FOREIGN)
def test_rows_of_another_layout_are_converted(fix: Fix, out: Path, layout: str) -> None:
    mended = fix([FOREIGN[layout]] * 12)
    assert _rows(out) == [chat("q", "a")] * 12
    assert (mended.applied[0].name, mended.applied[0].rows) == ("convert", 12)
    assert "q" not in mended.applied[0].after.replace("query", ""), "an example shows the form, not the text"
    assert mended.report.verdict == "accepted"


def test_null_is_left_out_where_a_key_may_be_left_out(fix: Fix, out: Path) -> None:
    user, answer = {"role": "user", "content": "q", "name": None, "tool_call_id": None}, {"role": "assistant", "content": "a", "weight": None}
    call = {"id": None, "type": "function", "function": {"name": "f", "arguments": None}}
    calling = {"role": "assistant", "content": None, "tool_calls": [call]}
    mended = fix([*GOOD, {"messages": [user, answer], "id": None, "tools": None}, {"messages": [user, calling]}, chat(lang=None)], columns=("lang",))
    assert _rows(out)[12:] == [
        chat(),
        {
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {"name": "f"}}]},
            ]
        },
        chat(lang=None),
    ]
    (repair,) = mended.applied
    assert (repair.name, repair.rows, repair.lines) == ("nulls", 2, [13, 14])
    assert repair.before == "name: null, tool_call_id: null, weight: null, id: null, tools: null"


def test_null_stays_where_a_value_is_required(fix: Fix, out: Path) -> None:
    rows = [*GOOD_PAIRS, pair(completion=None, id=None)]  # type: ignore[arg-type]
    assert fix(rows, schema="completion_v1").report.verdict == "refused"
    assert _rows(out)[-1] == {"prompt": "p", "completion": None}


def test_a_prompt_is_taken_from_what_both_answers_begin_with(fix: Fix, out: Path) -> None:
    one, other = turns(("user", "q"), ("assistant", "a"))["messages"], turns(("user", "q"), ("assistant", "b"))["messages"]
    elsewhere = turns(("user", "another"), ("assistant", "b"))["messages"]
    mended = fix([{"chosen": one, "rejected": other}] * 11 + [{"chosen": one, "rejected": elsewhere}], schema="preference_v1")
    assert _rows(out)[0] == {"prompt": one[:1], "chosen": one[1:], "rejected": other[1:]}  # type: ignore[index]
    assert _rows(out)[11] == {"chosen": one, "rejected": elsewhere}
    assert [(finding.id, finding.lines) for finding in mended.report.errors] == [("P02", (12,))]


def test_a_key_that_says_more_is_not_put_away(fix: Fix, out: Path) -> None:
    telling: list[object] = [
        pair(label=False),
        pair(system="s"),
        pair(context="cold"),
        pair("about: the weather here", context="the weather here"),
        pair(label="sports"),
    ]
    mended = fix([*GOOD_PAIRS, *telling], schema="completion_v1")
    assert _rows(out)[12:15] == telling[:3]
    assert _rows(out)[15:] == [pair("about: the weather here", metadata={"context": "the weather here"}), pair(metadata={"label": "sports"})]
    assert mended.report.verdict == "refused"


def test_rows_are_converted_only_where_their_schema_was_said(fix: Fix, out: Path) -> None:
    with pytest.raises(UsageError) as caught:
        fix([*GOOD, pair("q", "a")], is_schema_said=False)
    assert caught.value.code == "SCHEMA_UNSAID"
    assert "--schema completion_v1" in caught.value.hint
    assert not out.exists()
    with pytest.raises(UsageError):
        fix(GOOD, "convert", is_schema_said=False)
    assert fix([*GOOD, chat(lang="en")], is_schema_said=False).report.verdict == "accepted", "nothing is converted here"


def test_extra_columns_move_into_metadata_and_slips_of_known_keys_do_not(fix: Fix, out: Path) -> None:
    mended = fix([chat(lang="en", metadata={"layer": 1}), chat(lang="de"), chat(metadata={"lang": "x"}, lang="fr"), chat(wieght=1), *GOOD])
    assert _rows(out)[:4] == [chat(metadata={"layer": 1, "lang": "en"}), chat(metadata={"lang": "de"}), chat(metadata={"lang": "x"}, lang="fr"), chat(wieght=1)]
    assert (mended.applied[0].name, mended.applied[0].lines) == ("columns", [1, 2])
    assert mended.report.verdict == "refused"


def test_declared_columns_stay_where_they_are(fix: Fix, out: Path) -> None:
    mended = fix([chat(lang="en")] * 12, columns=("lang",))
    assert out.read_bytes() == as_bytes([chat(lang="en")] * 12)
    assert mended.report.verdict == "accepted"


def test_broken_letters_are_mended_and_style_is_left_alone(fix: Fix, out: Path) -> None:
    broken = [chat("Wo ist das CafÃ©?", "Itâ€™s “here”, ﬁne, ＡＢ…"), chat("ok", "naïve café")]
    mended = fix([*broken, *GOOD], level=Level.STANDARD)
    assert _rows(out)[0] == chat("Wo ist das Café?", "It’s “here”, ﬁne, ＡＢ…")
    assert out.read_bytes().split(b"\n")[1:] == as_bytes([*broken[1:], *GOOD]).split(b"\n")
    (repair,) = mended.applied
    assert (repair.name, repair.lines, repair.before, repair.after) == ("mojibake", [1], "CafÃ©?", "Café?")


def test_one_command_mends_a_file_that_is_wrong_in_every_way(fix: Fix, out: Path) -> None:
    rows = [
        {"conversations": json.dumps([{"from": "human", "value": f"Où est {n}?"}, {"from": "gpt", "value": "Là"}], ensure_ascii=False), "lang": "fr"}
        for n in range(12)
    ]
    mended = fix(json.dumps(rows, indent=1, ensure_ascii=False).encode("cp1252"), "encoding")
    assert mended.report.verdict == "accepted", mended.report.to_text()
    assert [row["messages"] for row in _rows(out)] == [chat(f"Où est {n}?", "Là")["messages"] for n in range(12)]
    assert {"encoding", "unroll", "convert"} <= set(_done(mended))
    assert mended.rows_in == mended.rows_out == 12


# --- repairs that are asked for by name


def test_bytes_that_are_no_utf_8_are_taken_as_windows_1252_only_when_asked(fix: Fix, out: Path) -> None:
    content = as_bytes([*GOOD, *ODD]) + '{"messages": [{"role": "user", "content": "“q” €"}, {"role": "assistant", "content": "é"}]}\n'.encode("cp1252")
    assert fix(content).report.verdict == "refused"
    assert out.read_bytes() == content
    out.unlink()
    mended = fix(content, "encoding")
    assert _rows(out) == [*GOOD, *ODD, chat("“q” €", "é")]
    assert (mended.applied[0].name, mended.applied[0].lines, mended.applied[0].before) == ("encoding", [16], "0x93")
    assert mended.report.verdict == "accepted"


def test_an_emoji_in_two_halves_is_joined() -> None:
    halves = "😀".encode("utf-16-be")
    cesu = b"".join(chr(int.from_bytes(halves[place : place + 2])).encode("utf-8", "surrogatepass") for place in (0, 2))
    assert b"".join(as_utf8([b"a" + cesu[:2], cesu[2:] + b"b"], lambda *told: None)) == "a😀b".encode()


def test_doubles_are_left_out_and_the_first_stays(fix: Fix, out: Path) -> None:
    rows = [*GOOD, chat("QUESTION  3", "answer 3", id="again"), *ODD, *GOOD[:2]]
    mended = fix(rows, "dedup")
    assert _rows(out) == [*GOOD, *ODD]
    assert mended.dropped == {"double": 3}
    assert mended.applied[0].lines == [13, 17, 18]


def test_pairs_that_differ_in_the_worse_answer_are_no_doubles(fix: Fix, out: Path) -> None:
    rows: list[object] = [{"prompt": f"p{n}", "chosen": "c", "rejected": worse} for n in range(6) for worse in ("x", "y")]
    assert fix(rows, "dedup", schema="preference_v1").dropped == {}
    assert _rows(out) == rows


def test_rows_are_dropped_by_what_was_found_in_them(fix: Fix, out: Path) -> None:
    mended = fix([GOOD[0], chat(answer=""), *GOOD[1:], b"{broken", chat("x <|im_end|>")], "drop", ids=("M07", "J01"))
    assert _rows(out) == [*GOOD, chat("x <|im_end|>")]
    assert mended.dropped == {"M07": 1, "J01": 1}
    assert [finding.id for finding in mended.report.errors] == ["X01"]


def test_rows_are_dropped_by_line_also_where_a_row_has_many_lines(fix: Fix, out: Path) -> None:
    mended = fix(GOOD, "drop", lines=(2, 12, 99))
    assert mended.dropped == {mending.BY_LINE: 2}
    assert mended.notes == ["1 of the named lines hold no row"]
    assert _rows(out) == [GOOD[0], *GOOD[2:11]]
    out.unlink()
    fix(b"\n".join(json.dumps(row, indent=2).encode() for row in GOOD), "drop", lines=(13,))
    assert _rows(out) == [GOOD[0], *GOOD[2:]], "line 13 is where the second object begins"


def test_the_level_is_as_deep_as_the_named_checks_need() -> None:
    assert Wish(repairs=chosen(["drop"]), ids=("M07",), level=Level.QUICK).depth is Level.QUICK
    assert Wish(repairs=chosen(["drop"]), ids=("M07", "B04"), level=Level.QUICK).depth is Level.STANDARD
    assert Wish(repairs=chosen(["drop"]), ids=("D07",), level=Level.QUICK).depth is Level.DEEP


SECRET = "ghp_" + "Zb3kQ9xV1mT7wLr5YpN2cJd8GsH4aEuF6iRo"


def test_a_secret_is_taken_out_and_never_shown(fix: Fix, out: Path) -> None:
    mended = fix([*GOOD, chat(f"my key is {SECRET}, use it", "ok", metadata={"note": SECRET}), chat(f"x {SECRET}", "ok", lang="en")], "redact")
    assert SECRET not in out.read_text()
    assert SECRET not in json.dumps(mended.to_plain())
    assert _rows(out)[:12] == GOOD
    assert _done(mended)["redact"] == 2


def test_what_is_not_asked_for_is_not_done(fix: Fix, out: Path) -> None:
    content = as_bytes([*GOOD, *GOOD, chat(f"my key is {SECRET}"), chat(answer="")])
    assert fix(content).applied == []
    assert out.read_bytes() == content


# --- what is never touched


def test_rows_that_parsers_disagree_about_are_left_as_they_are(fix: Fix, out: Path) -> None:
    strange = [
        b'{"messages": [{"role": "human", "content": "q"}, {"role": "gpt", "content": "a"}], "id": 1, "id": 2}',
        b'{"messages": [{"role": "human", "content": "q"}, {"role": "gpt", "content": "a"}], "metadata": {"x": NaN}}',
        b'{"messages": [{"role": "human", "content": "\\ud83d"}, {"role": "gpt", "content": "a"}]}',
        b'{"messages": [{"role": "human", "content": "q"}, {"role": "gpt", "content": "a"}], "metadata": {"x": 1' + b"0" * 500 + b"}}",
    ]
    mended = fix([*GOOD, *strange, turns(("human", "q"), ("gpt", "a"))], "roles")
    assert out.read_bytes().startswith(as_bytes([*GOOD, *strange]))
    assert _done(mended) == {"roles": 1}


def test_numbers_keep_their_digits(fix: Fix, out: Path) -> None:
    row = b'{"messages": [{"role": "human", "content": "q"}, {"role": "gpt", "content": "a"}], "metadata": {"a": 12345678901234567890123, "b": 0.1, "c": 1.50}}'
    fix([*GOOD, row])
    assert b'"a": 12345678901234567890123, "b": 0.1, "c": 1.5}' in out.read_bytes()


# --- places, faults and wishes that cannot be


def test_nothing_is_changed_in_place_not_even_through_links(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(as_bytes(GOOD))
    (tmp_path / "soft.jsonl").symlink_to(file)
    os.link(file, tmp_path / "hard.jsonl")
    (tmp_path / "sub").mkdir()
    for name in ("rows.jsonl", "soft.jsonl", "hard.jsonl", "sub/../rows.jsonl"):
        with pytest.raises(UsageError) as caught:
            mend(file, tmp_path / name, CHAT, Wish(force=True), _examine("chat_sft_v1"))
        assert caught.value.code == "OUT_IS_FILE", name


@pytest.mark.parametrize(
    ("name", "code"), [("there.jsonl", "OUT_EXISTS"), ("dangling.jsonl", "OUT_KIND"), ("folder", "OUT_KIND"), ("none/x.jsonl", "OUT_FOLDER")]
)
def test_another_file_is_never_replaced_unasked(tmp_path: Path, name: str, code: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(as_bytes(GOOD))
    (tmp_path / "there.jsonl").write_text("mine")
    (tmp_path / "dangling.jsonl").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError) as caught:
        mend(file, tmp_path / name, CHAT, Wish(), _examine("chat_sft_v1"))
    assert caught.value.code == code
    assert (tmp_path / "there.jsonl").read_text() == "mine"


def test_force_replaces_a_file(tmp_path: Path) -> None:
    file, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    file.write_bytes(as_bytes(GOOD))
    out.write_text("mine")
    mend(file, out, CHAT, Wish(force=True, level=Level.QUICK), _examine("chat_sft_v1"))
    assert out.read_bytes() == as_bytes(GOOD)


@pytest.mark.parametrize("name", ["pipe", "link", "dangling", "folder"])
def test_what_is_no_file_is_not_replaced_even_by_force(tmp_path: Path, name: str) -> None:
    file, out = tmp_path / "rows.jsonl", tmp_path / name
    file.write_bytes(as_bytes(GOOD))
    (tmp_path / "other").write_text("mine")
    (tmp_path / "link").symlink_to("other")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    before = out.lstat()
    with pytest.raises(UsageError) as caught:
        mend(file, out, CHAT, Wish(force=True, level=Level.QUICK), _examine("chat_sft_v1"))
    assert caught.value.code == "OUT_KIND"
    assert (out.lstat().st_ino, out.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert (tmp_path / "other").read_text() == "mine"


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    file.write_bytes(as_bytes([*GOOD, chat(lang="x")]))
    out.write_text("before")

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LoradError) as caught:
        mend(file, out, CHAT, Wish(force=True), _examine("chat_sft_v1"))
    assert caught.value.code == "DISK_FULL"
    assert out.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "rows.jsonl"]


def test_a_file_that_changes_meanwhile_is_not_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    file.write_bytes(as_bytes([*GOOD, chat(lang="x")]))
    run_pass = passes.run_pass

    def slow_pass(source: Any, destination: Any, plan: Any) -> Any:
        done = run_pass(source, destination, plan)
        with open(file, "ab") as writer:
            writer.write(as_bytes(GOOD))
        return done

    monkeypatch.setattr(mending, "run_pass", slow_pass)
    with pytest.raises(LoradError) as caught:
        mend(file, out, CHAT, Wish(), _examine("chat_sft_v1"))
    assert caught.value.code == "FILE_CHANGED"
    assert not out.exists()


def test_a_row_that_gets_lost_stops_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    file.write_bytes(as_bytes([*GOOD, chat(lang="x")]))

    def forgetful(rows: Any, unit: Unit) -> bool:
        return unit.line != 3

    monkeypatch.setattr(passes._Rows, "stays", forgetful)
    with pytest.raises(LoradError) as caught:
        mend(file, out, CHAT, Wish(), _examine("chat_sft_v1"))
    assert caught.value.code == "COUNTS_DIFFER"
    assert not out.exists()


@pytest.mark.parametrize(("content", "says"), [(b"", "F02"), (b"\x1f\x8b" + b"x" * 90, "F03"), (b"\n\n", "F02")])
def test_a_file_without_rows_cannot_be_mended(fix: Fix, out: Path, content: bytes, says: str) -> None:
    with pytest.raises(RefusedError) as caught:
        fix(content)
    assert says in caught.value.what
    assert not out.exists()


def test_no_row_left_is_no_file(fix: Fix, out: Path) -> None:
    with pytest.raises(RefusedError) as caught:
        fix([chat(answer="")] * 12, "drop", ids=("M07",))
    assert caught.value.code == "NOTHING_LEFT"
    assert not out.exists()


@pytest.mark.parametrize(
    ("repairs", "wish", "code", "says"),
    [
        (["mojibak"], {}, "REPAIR_UNKNOWN", "did you mean 'mojibake'?"),
        (["drop"], {}, "DROP_WHICH", "--ids"),
        ([], {"ids": ("M07",)}, "DROP_WHICH", "--repair drop"),
        (["drop"], {"ids": ("M70",)}, "CHECK_UNKNOWN", "did you mean 'M0"),
    ],
)
def test_a_wish_that_cannot_be_is_named_with_what_to_do(repairs: list[str], wish: dict[str, Any], code: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        Wish(repairs=chosen(repairs), **wish)
    assert caught.value.code == code
    assert says in caught.value.hint


def test_a_finding_offers_what_loses_nothing() -> None:
    def finding(id: str, fix: str = "") -> Finding:
        return Finding(id=id, severity=Severity.ERROR, name="a.b", message="m", hint="h", fix=fix)

    assert offered([finding("F04"), finding("S05"), finding("B02"), finding("D07")]) == {"bom", "decode"}
    assert offered([finding("S06", "lorad check x --schema y")]) == frozenset()
    assert offered([finding("S06", "lorad fix x -o y --schema z")]) == {"convert"}
    assert all(repair.by_name for name, repair in REPAIRS.items() if name in ("encoding", "redact", "drop", "dedup"))


def test_a_form_shows_keys_and_no_texts() -> None:
    row = chat("secret", "secret", metadata={"a": {"b": {"c": 1}}}, tools=[])
    assert shape(row) == "{messages: [{role, content} ×2], metadata: {a: {b: {…}}}, tools: []}"
    assert shape(pair("secret", "secret")) == "{prompt, completion}"


def test_pairs_keep_their_schema(fix: Fix, out: Path) -> None:
    mended = fix([*GOOD_PAIRS, {"question": "q", "answer": "a"}], schema="completion_v1")
    assert _rows(out) == [*GOOD_PAIRS, pair("q", "a")]
    assert mended.report.verdict == "accepted"
