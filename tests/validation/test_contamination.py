"""D04, D06: rows that hold what they are judged by; what is said by chance, by a template or by a known conversation is let pass."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gate_cases import Check, as_bytes, chat, found, pair
from prose_cases import NOUNS, accepted_drop, changed, chats, draws, pairs

from validation import Report
from validation.context import Surroundings
from validation.findings import Severity
from validation.references import read_reference

ROWS = pairs(100, seed=11)
ITEMS = pairs(30, seed=12)


def told(report: Report, id: str) -> list[Any]:
    return [finding for finding in report.findings if finding.id == id]


@pytest.fixture
def reference(tmp_path: Path) -> Callable[..., str]:
    """Writes an evaluation set and gives its path."""

    def write(content: bytes | list[object], name: str = "exam.jsonl") -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else as_bytes(content))
        return str(path)

    return write


@pytest.fixture
def against(check: Check) -> Callable[..., Report]:
    """Checks rows against references."""

    def run(rows: list[object], *references: str, **more: Any) -> Report:
        return check(rows, level="deep", around=Surroundings(references=references), **more)

    return run


# --- D04: evaluation sets

LAYOUTS: dict[str, Callable[[str, str], object]] = {
    "chat": chat,
    "question and answer": lambda asked, answered: {"id": 7, "question": asked, "answer": answered},
    "prompt": lambda asked, answered: {"key": 1, "prompt": asked},
    "turns": lambda asked, answered: {"question_id": 81, "category": "writing", "turns": [asked, "Now in one sentence."]},
    "instruction and input": lambda asked, answered: {"instruction": asked.split(". ")[0], "input": asked.split(". ", 1)[1], "output": answered},
    "canonical solution": lambda asked, answered: {"task_id": "x/1", "prompt": asked, "canonical_solution": answered},
    "ShareGPT": lambda asked, answered: {"conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": answered}]},
    "content parts": lambda asked, answered: {"messages": [{"role": "user", "content": [{"type": "text", "text": asked}]}]},
    "names of its own": lambda asked, answered: {"nr": 3, "aufgabe": asked},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_copied_question_refuses_the_file_whatever_the_layout_of_the_reference(
    layout: Callable[[str, str], object], reference: Callable[..., str], against: Callable[..., Report]
) -> None:
    exam = reference([layout(*item) for item in ITEMS])
    report = against(chats([*ROWS[:40], (ITEMS[16][0], "Nobody knows."), *ROWS[40:60]]), exam)
    finding = found(report, "D04")
    assert (finding.severity, finding.count, finding.lines) == (Severity.ERROR, 1, (41,))
    assert "item 17 of exam.jsonl" in finding.message
    assert "--ids D04" in finding.fix
    assert report.verdict == "refused"


def test_case_and_punctuation_do_not_hide_an_item(reference: Callable[..., str], against: Callable[..., Report]) -> None:
    exam = reference([{"prompt": asked} for asked, _ in ITEMS])
    loud = ITEMS[4][0].upper().replace(",", " --").replace(".", "!!")
    report = against(chats([*ROWS[:30], (f"Here is something for you:\n\n> {loud}\n\nThank you.", "Fine.")]), exam)
    assert found(report, "D04").lines == (31,)


def test_an_item_with_some_words_changed_is_found_by_what_is_left(reference: Callable[..., str], against: Callable[..., Report]) -> None:
    exam = reference([{"prompt": asked} for asked, _ in ITEMS])
    report = against(chats([*ROWS[:30], (changed(ITEMS[2][0], "purple", 3), "Fine.")]), exam)
    assert found(report, "D04").severity is Severity.ERROR


def test_a_good_part_of_an_item_is_a_warning(reference: Callable[..., str], against: Callable[..., Report]) -> None:
    long = " ".join(asked for asked, _ in ITEMS[:4])
    exam = reference([{"prompt": long}])
    words = long.split(" ")
    finding = found(against(chats([*ROWS[:30], (" ".join(words[: int(len(words) * 0.45)]), "Fine.")]), exam), "D04")
    assert (finding.severity, finding.lines) == (Severity.WARNING, (31,))
    assert "by sequences of 13 words" in finding.message


def test_answers_and_worse_answers_count_too(reference: Callable[..., str], against: Callable[..., Report]) -> None:
    exam = reference([{"prompt": asked} for asked, _ in ITEMS])
    rows = [{"prompt": asked, "chosen": good, "rejected": good[::-1]} for asked, good in ROWS[:20]]
    rows.append({"prompt": "Make up a riddle.", "chosen": "No.", "rejected": ITEMS[9][0]})
    assert found(against(rows, exam, schema="preference_v1"), "D04").lines == (21,)


def test_a_short_question_counts_where_it_is_asked_as_it_stands(reference: Callable[..., str], against: Callable[..., Report]) -> None:
    exam = reference([{"question": "Who painted the ceiling of Arden?", "answer": "Bruno Belmont"}])
    assert found(against([*chats(ROWS[:20]), chat("who painted the ceiling of arden", "It was Bruno Belmont.")], exam), "D04").severity is Severity.ERROR
    assert found(against([*chats(ROWS[:20]), chat("Who painted the ceiling of Arden?", "A pupil.")], exam), "D04").severity is Severity.WARNING
    quoted = chat("He asked me who painted the ceiling of Arden? I had no idea, and said so.", "Never mind.")
    assert told(against([*chats(ROWS[:20]), quoted], exam), "D04") == []


def test_what_many_items_share_is_boilerplate(reference: Callable[..., str], against: Callable[..., Report]) -> None:
    rule = "Answer in exactly three bullet points, use the markdown bullets of this example, and do not use any commas in your whole answer."
    exam = reference([{"prompt": f"{asked.split('. ')[0]}. {rule}"} for asked, _ in ITEMS])
    assert told(against(chats([(f"{asked} {rule}", answered) for asked, answered in ROWS[:3]] + ROWS[10:40]), exam), "D04") == []


def test_what_many_rows_share_is_a_template_of_the_file(reference: Callable[..., str], against: Callable[..., Report]) -> None:
    rule = " ".join(noun for noun in NOUNS[:30])
    exam = reference([{"prompt": f"{ITEMS[0][0]} {rule} {ITEMS[1][0]}"}])
    assert told(against(chats(ROWS[:40], system=rule), exam), "D04") == []


def test_rows_of_the_same_kind_are_no_contamination(reference: Callable[..., str], against: Callable[..., Report]) -> None:
    """The training part of the set that the reference is the test part of."""
    report = against(chats(ROWS), reference(chats(ITEMS)))
    assert told(report, "D04") == []
    assert report.stats["contamination"]["items"] == {"exam.jsonl": 30}  # type: ignore[index]


def test_short_phrases_of_a_conversation_are_said_by_chance(reference: Callable[..., str], against: Callable[..., Report]) -> None:
    turns = [{"role": "user", "content": ITEMS[0][0]}, {"role": "assistant", "content": "Done."}, {"role": "user", "content": "No thanks, that will be all."}]
    exam = reference([{"messages": turns}])
    assert told(against([*chats(ROWS[:20]), chat("No thanks, that will be all.", "Have a nice day!")], exam), "D04") == []


def test_without_a_reference_the_report_says_what_to_pass(check: Check) -> None:
    assert "--reference" in check(chats(ROWS[:20]), level="deep").stats["checks_not_run"]["D04"]  # type: ignore[index]


# --- D04: references that are broken themselves


def test_a_broken_reference_is_named_and_the_rest_of_it_is_used(reference: Callable[..., str], against: Callable[..., Report]) -> None:
    exam = reference(b'{"prompt": "one two"}\n{"prompt": broken\n\xff\xfe\n' + as_bytes([{"prompt": ITEMS[0][0]}, [1, 2], {}]))
    report = against([*chats(ROWS[:20]), chat(ITEMS[0][0], "Fine.")], exam)
    fault, hit = sorted(told(report, "D04"), key=lambda finding: finding.severity, reverse=True)
    assert fault.severity is Severity.WARNING
    assert "line 2 of exam.jsonl is not JSON" in fault.message
    assert "export that item again" in fault.hint
    assert hit.lines == (21,)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "is empty"), (b"\x1f\x8b\x08\x00zzz", "compressed"), (b"\x00\x01" * 50, "binary"), (b"{}\n{}\n", "no text"), (None, "cannot be read")],
    ids=["empty", "gzip", "binary", "no texts", "missing"],
)
def test_a_reference_that_is_none_is_a_warning(content: bytes | None, says: str, tmp_path: Path, against: Callable[..., Report]) -> None:
    path = tmp_path / "exam.jsonl"
    if content is not None:
        path.write_bytes(content)
    report = against(chats(ROWS[:20]), str(path))
    assert says in found(report, "D04").message
    assert report.verdict == "accepted"


def test_a_pipe_or_a_folder_does_not_stop_the_gate(tmp_path: Path, against: Callable[..., Report]) -> None:
    os.mkfifo(tmp_path / "pipe")
    report = against(chats(ROWS[:20]), str(tmp_path / "pipe"), str(tmp_path))
    assert [finding.severity for finding in told(report, "D04")] == [Severity.WARNING] * 2


def test_arrays_and_plain_lines_are_read_as_items(tmp_path: Path) -> None:
    path = tmp_path / "exam"
    path.write_text(json.dumps([{"prompt": "a b c"}, "d e f", 7], indent=1))
    read = read_reference(path)
    assert [item.texts for item in read.items] == [(("question", "a b c"),), (("question", "d e f"),)]
    assert read.num_faults == 1
    path.write_text("first question\n\nsecond question\u2028goes on\n")
    assert [(item.line, item.texts[0][1]) for item in read_reference(path).items] == [(1, "first question"), (3, "second question\u2028goes on")]


# --- D04: the adapter's own gate split


def test_rows_of_the_gate_split_are_contamination(tmp_path: Path, check: Check) -> None:
    known = accepted_drop(tmp_path, chats(ROWS[:40]), gate=(5, 6, 7))
    rows = chats([*ROWS[50:80], (f"Once more: {ROWS[5][0]}", "Nobody knows."), (f"Once more: {ROWS[9][0]}", "Nobody knows.")])
    finding = found(check(rows, level="deep", around=Surroundings(known=(known,))), "D04")
    assert (finding.severity, finding.lines) == (Severity.ERROR, (31,))
    assert "row 6 of the gate split of drop-1" in finding.message


def test_a_known_conversation_stays_in_its_split_and_is_none(tmp_path: Path, check: Check) -> None:
    known = accepted_drop(tmp_path, chats(ROWS[:40]), gate=(5, 6, 7))
    rows = chats([*ROWS[50:80], (ROWS[5][0], "A better answer.")])
    assert told(check(rows, level="deep", around=Surroundings(known=(known,))), "D04") == []


# --- D06


def test_validation_rows_that_stand_in_the_training_file_are_told_with_both_lines(tmp_path: Path, check: Check) -> None:
    train = tmp_path / "train.jsonl"
    train.write_bytes(b"\n" + as_bytes(chats(ROWS[:60])))
    rows = [*ROWS[60:90], ROWS[17], (ROWS[20][0], "Nobody knows."), (changed(ROWS[30][0], "really", 9), ROWS[30][1])]
    report = check(chats(rows), level="deep", around=Surroundings(train=str(train)))
    exact, asked, near = sorted(told(report, "D06"), key=lambda finding: finding.lines)
    assert [finding.severity for finding in (exact, asked, near)] == [Severity.ERROR] * 3
    assert (exact.lines, asked.lines, near.lines) == ((31,), (32,), (33,))
    assert "line 31 and its line 19" in exact.message
    assert "with another answer" in asked.message
    assert "line 33 and its line 32" in near.message
    assert "--repair drop --lines 31" in exact.fix


def test_a_training_file_of_another_layout_is_compared_too(tmp_path: Path, check: Check) -> None:
    train = tmp_path / "train.jsonl"
    train.write_bytes(as_bytes([{"question": asked, "answer": answered} for asked, answered in ROWS[:40]]) + b"not json\n")
    report = check([*[pair(*row) for row in ROWS[50:70]], pair(*ROWS[3])], "completion_v1", level="deep", around=Surroundings(train=str(train)))
    assert found(report, "D06").lines == (21,)
    assert "1 of 41 rows" in report.stats["checks_not_run"]["D06"]  # type: ignore[index]


def test_a_prompt_that_all_rows_share_is_a_task_and_no_overlap(tmp_path: Path, check: Check) -> None:
    train = tmp_path / "train.jsonl"
    train.write_bytes(as_bytes([pair("Write one line about the sea at night.", told) for _, told in ROWS[:50]]))
    rows: list[object] = [pair("Write one line about the sea at night.", told) for _, told in ROWS[50:90]]
    assert told(check(rows, "completion_v1", level="deep", around=Surroundings(train=str(train))), "D06") == []


def test_other_rows_of_the_same_kind_are_no_overlap(tmp_path: Path, check: Check) -> None:
    train = tmp_path / "train.jsonl"
    train.write_bytes(as_bytes(chats(ROWS)))
    report = check(chats(ITEMS), level="deep", around=Surroundings(train=str(train)))
    assert told(report, "D06") == []
    assert report.stats["split_overlap"]["train_rows"] == 100  # type: ignore[index]


def test_a_training_file_that_cannot_be_read_is_a_warning(tmp_path: Path, check: Check) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        report = check(chats(ITEMS), level="deep", around=Surroundings(train=str(path)))
        assert found(report, "D06").severity is Severity.WARNING
        assert report.verdict == "accepted"


def test_any_bytes_as_a_reference_never_stop_the_gate(tmp_path: Path) -> None:
    rng = draws(9)
    path = tmp_path / "exam"
    for _ in range(200):
        path.write_bytes(rng.choice((b"{", b"[", b"", b'{"messages": ')) + rng.randbytes(rng.randrange(60)) + rng.choice((b"}", b"]\n", b"\n{}")))
        assert read_reference(path).name == "exam"
    for tree in (
        {"messages": 7},
        {"messages": [7, None, {"role": None}]},
        {"turns": {"a": [1, "x y"]}},
        {"prompt": {"content": [{"text": None}]}},
        [[["a b"]]],
    ):
        path.write_text(json.dumps(tree) + "\n")
        assert read_reference(path).name == "exam"
