"""Rows as tokens: how long they are, what does not fit, what is read as a token of its own."""

import json
from pathlib import Path

import pytest
from gate_cases import GOOD, Check, chat, found, turns
from model_folders import model_folder

from rendering.folders import renderer_of
from rendering.specs import SPECS, Message
from validation import Report
from validation.checks import tokens
from validation.context import Surroundings

N_CHECKS = ("N01", "N02", "N03", "N04")
SHORT = chat("hello", "the dog jumps")


@pytest.fixture
def base(tmp_path: Path) -> str:
    return model_folder(tmp_path / "model")


def length(base: str, row: object, schema: str = "chat_sft_v1") -> int:
    """Tokens of a row as the trainer counts them."""
    spec = SPECS[schema]
    return len(renderer_of(Path(base)).encode(spec.messages(spec.decode(json.dumps(row).encode()))).ids)


def ids(report: Report) -> set[str]:
    return {finding.id for finding in report.findings} & {*N_CHECKS, "X02"}


def test_the_report_tells_how_long_rows_are_and_how_much_of_them_is_learnt(check: Check, base: str) -> None:
    rows = [chat("hello", "w" * size) for size in range(1, 101)]
    report = check(rows, level="standard", around=Surroundings(base=base))
    renderer, spec = renderer_of(Path(base)), SPECS["chat_sft_v1"]
    encodings = [renderer.encode(spec.messages(spec.decode(json.dumps(row).encode()))) for row in rows]
    totals = sorted(len(encoding.ids) for encoding in encodings)
    figures = report.stats["tokens"]
    assert isinstance(figures, dict)
    assert figures["total"] == {"p5": totals[4], "p50": totals[49], "p95": totals[94], "p99": totals[98], "max": totals[99]}
    learnt = sum(encoding.num_supervised for encoding in encodings)
    assert figures["supervised_share"] == pytest.approx(learnt / sum(totals), abs=1e-4)
    assert figures["target"]["max"] == max(encoding.num_supervised for encoding in encodings)
    finding = found(report, "N01")
    assert finding.severity == "info"
    assert f"the longest {totals[-1]:,}" in finding.message
    assert ids(report) == {"N01"}


def test_without_a_base_or_a_length_the_report_says_which_checks_did_not_run(check: Check, base: str) -> None:
    report = check(GOOD, level="standard")
    not_run = report.stats["checks_not_run"]
    assert isinstance(not_run, dict)
    assert {"N01", "N02", "N03", "N04", "N05", "N06", "N07", "N08", "X02"} <= not_run.keys()
    assert "--model" in not_run["N01"]
    with_base = check(GOOD, level="standard", around=Surroundings(base=base)).stats["checks_not_run"]
    assert isinstance(with_base, dict)
    assert {id for id in with_base if id in (*N_CHECKS, "N05", "X02")} == {"N02", "N03", "N04"}
    assert "--max-length" in with_base["N02"]


@pytest.mark.parametrize("damage", ["nowhere", "empty", "no tokenizer"])
def test_a_damaged_model_folder_is_a_reason_and_no_crash(check: Check, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "broken"
    if damage != "nowhere":
        folder.mkdir()
    if damage == "no tokenizer":
        (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    report = check(GOOD, level="standard", around=Surroundings(base=str(folder), max_length=100))
    not_run = report.stats["checks_not_run"]
    assert isinstance(not_run, dict)
    assert str(folder) in not_run["N01"]
    assert report.verdict == "accepted"


def test_a_prompt_that_fills_max_length_leaves_nothing_to_learn(check: Check, base: str) -> None:
    rows = [SHORT] * 60 + [chat("x" * 300, "the dog")] + [SHORT] * 20
    report = check(rows, level="standard", around=Surroundings(base=base, max_length=100))
    finding = found(report, "N02")
    assert (finding.severity, finding.lines, finding.count) == ("error", (61,), 1)
    prompt = renderer_of(Path(base)).prompt([Message("user", "x" * 300)])
    assert f"the prompt alone has {len(prompt):,} tokens, max_length is 100" in finding.message
    assert "--repair drop --ids N02" in finding.fix
    assert "--schema chat_sft_v1" in finding.fix
    assert "N04" not in ids(report)


def test_a_row_that_has_no_weight_has_nothing_to_lose(check: Check, base: str) -> None:
    rows = [SHORT] * 200 + [chat("x" * 300, "the dog", weight=0)]
    assert ids(check(rows, level="standard", around=Surroundings(base=base, max_length=100))) == {"N01"}


def test_the_border_is_the_trainers(check: Check, base: str) -> None:
    row = chat("x" * 40, "y" * 40)
    exact = length(base, row)
    assert ids(check([row] * 12, level="standard", around=Surroundings(base=base, max_length=exact))) == {"N01"}
    assert {"N03", "N04"} <= ids(check([row] * 12, level="standard", around=Surroundings(base=base, max_length=exact - 2)))


@pytest.mark.parametrize(
    ("num_long", "share", "severity"), [(1, 0.05, None), (2, 0.05, "warning"), (5, 0.05, "warning"), (6, 0.05, "error"), (6, 0.2, "warning"), (1, 0.0, "error")]
)
def test_rows_over_the_length_are_told_from_one_percent_on_and_refused_above_what_the_trainer_leaves_out(
    check: Check, base: str, num_long: int, share: float, severity: str | None
) -> None:
    rows = [SHORT] * (100 - num_long) + [chat("hello", "y" * 200)] * num_long
    report = check(rows, level="standard", around=Surroundings(base=base, max_length=100, max_overlong_share=share))
    told = [finding for finding in report.findings if finding.id == "N03"]
    assert [finding.severity for finding in told] == ([severity] if severity else [])
    if told:
        assert told[0].lines == tuple(range(101 - num_long, 101))[:5]
        assert told[0].count == num_long
        assert f"{num_long} of 100 rows" in told[0].message
        assert ("max_overlong_share" in told[0].message) is (severity == "error")
        # 2 of 100 long rows: 99 % of the rows reach into them
        assert "max_length 256 fits 99%" in told[0].hint or num_long == 1


def test_an_answer_that_would_be_cut_is_a_warning_with_what_is_left_of_it(check: Check, base: str) -> None:
    rows = [SHORT] * 99 + [chat("hello", "y" * 200)]
    report = check(rows, level="standard", around=Surroundings(base=base, max_length=100))
    finding = found(report, "N04")
    assert (finding.severity, finding.lines) == ("warning", (100,))
    assert "of 201 answer tokens" in finding.message
    assert "not the end of the answer" in finding.message


def test_a_cut_between_turns_that_keeps_most_answers_is_no_cut_answer(check: Check, base: str) -> None:
    row = turns(("user", "hello"), ("assistant", "y" * 60), ("user", "x" * 60), ("assistant", "no"))
    kept = length(base, turns(("user", "hello"), ("assistant", "y" * 60)))
    report = check([SHORT] * 30 + [row], level="standard", around=Surroundings(base=base, max_length=kept + 10))
    assert ids(report) == {"N01", "N03"}


def test_both_answers_of_a_pair_have_to_fit(check: Check, base: str) -> None:
    pairs = [{"prompt": "hello", "chosen": "the dog", "rejected": f"the fox {number}"} for number in range(20)]
    pairs += [{"prompt": "hello", "chosen": "the dog", "rejected": "y" * 300}] * 2
    report = check(pairs, "preference_v1", level="standard", around=Surroundings(base=base, max_length=100))
    assert found(report, "N03").lines == (21, 22)


def test_where_the_exact_count_is_spent_the_fast_one_decides_and_the_report_says_so(check: Check, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "EXACT_ROWS", 1)
    rows = [SHORT] * 96 + [chat("x" * 300, "the dog"), chat("hello", "y" * 200), chat("x" * 300, "the dog"), chat("hello", "y" * 200)]
    report = check(rows, level="standard", around=Surroundings(base=base, max_length=100))
    assert found(report, "N02").lines == (97, 99)
    assert found(report, "N04").lines == (98, 100)
    assert found(report, "N03").count == 4
    assert "3 long rows were counted by the fast way" in found(report, "N01").message


def test_a_base_without_a_template_is_counted_as_chatml_and_the_generic_one_is_offered(check: Check, tmp_path: Path) -> None:
    base = model_folder(tmp_path / "bare", template=None)
    report = check([SHORT] * 20 + [chat("hello", "y" * 200)] * 2, level="standard", around=Surroundings(base=base, max_length=100))
    generic = [finding for finding in report.findings if finding.id == "N01" and "no chat template" in finding.message]
    assert len(generic) == 1
    assert generic[0].fix == f"lorad models template > {base}/chat_template.jinja"
    not_run = report.stats["checks_not_run"]
    assert isinstance(not_run, dict)
    assert {id: reason for id, reason in not_run.items() if id in ("N05", "N06", "N07", "N08") and "lorad models template" in reason}.keys() == {
        *("N05", "N06", "N07", "N08")
    }
    assert found(report, "N03").count == 2


# --- X02


@pytest.fixture
def code_base(tmp_path: Path) -> str:
    return model_folder(tmp_path / "code", added=["<filename>", "[PAD]", "<｜tool▁sep｜>"], written=["<think>", "</think>", "<|fim_prefix|>", "    "])


@pytest.mark.parametrize(
    "row",
    [
        chat("what is <filename>?", "a name"),
        chat("hello", "open <filename>"),
        chat("hello", "[PAD]"),
        chat("hello", "a<|fim_prefix|>b"),
        chat("hello", "<｜tool▁sep｜>"),
        json.dumps(chat("hello", "open <filename>")).replace("<", "\\u003c").encode(),
        json.dumps(chat("hello", "<｜tool▁sep｜>")).encode(),
    ],
)
def test_an_added_token_in_a_text_is_named(check: Check, code_base: str, row: object) -> None:
    report = check([*GOOD, row], level="standard", around=Surroundings(base=code_base))
    finding = found(report, "X02")
    assert (finding.severity, finding.lines) == ("warning", (13,))
    assert "token 30" in finding.message


@pytest.mark.parametrize(
    "row",
    [
        chat("what is < filename > or <file_name> or &lt;filename&gt;?", "<file>"),
        chat("hello", "<think>well</think>yes"),
        chat("hello", "def f():\n        return 1"),
        chat("hello", "PAD [pad] a[0] << 3"),
        chat("hello", "a", metadata={"path": "<filename>"}),
    ],
)
def test_what_only_looks_like_an_added_token_is_a_text(check: Check, code_base: str, row: object) -> None:
    assert "X02" not in ids(check([*GOOD, row], level="standard", around=Surroundings(base=code_base)))


def test_a_token_in_the_arguments_of_a_call_and_in_the_worse_answer_is_read_too(check: Check, code_base: str) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": '{"x": "<filename>"}'}}]}
    row = {
        "messages": [{"role": "user", "content": "q"}, call, {"role": "tool", "content": "1", "tool_call_id": "a"}, {"role": "assistant", "content": "one"}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    }
    assert found(check([*GOOD, row], level="standard", around=Surroundings(base=code_base)), "X02").path == "$.messages[1].tool_calls[0].function.arguments"
    pairs = [{"prompt": f"hello {number}", "chosen": "the dog", "rejected": f"the fox {number}"} for number in range(12)]
    pairs.append({"prompt": "hello", "chosen": "the dog", "rejected": "<filename>"})
    assert found(check(pairs, "preference_v1", level="standard", around=Surroundings(base=code_base)), "X02").path == "$.rejected"
