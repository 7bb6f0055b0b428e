"""D03: copies with a few words changed are found with their originals; fillings of a template are no copies."""

import json
from pathlib import Path
from typing import Any

import pytest
from gate_cases import Check, as_bytes, chat, found
from prose_cases import NAMES, NOUNS, PLACES, accepted_drop, changed, chats, draws, pairs

from rendering.specs import SPECS
from validation import DataValidator, Report
from validation.context import Surroundings
from validation.findings import Severity
from validation.grams import CHUNK_BYTES, grams_of, words_of
from validation.signatures import SIGNATURES, read_signatures, write_signatures

ROWS = pairs(120)


def near(report: Report) -> list[Any]:
    return [finding for finding in report.findings if finding.id == "D03"]


def deep(check: Check, rows: list[object], **more: Any) -> Report:
    return check(rows, level="deep", **more)


# --- what is found


def test_copies_with_one_word_changed_are_named_with_their_originals(check: Check) -> None:
    rows = chats([*ROWS[:90], *((changed(asked, "really", 9), told) for asked, told in ROWS[3:13])])
    finding = found(deep(check, rows), "D03")
    assert (finding.severity, finding.count, finding.lines) == (Severity.WARNING, 10, (91, 92, 93, 94, 95))
    assert "10 rows (10%)" in finding.message
    assert "lines 4, 91" in finding.message
    assert "--repair drop --lines 91,92,93,94,95,96,97,98,99,100" in finding.fix
    assert finding.why


def test_most_of_a_file_made_of_copies_refuses_it(check: Check) -> None:
    rng = draws(2)
    copies = [(changed(asked, rng.choice(NOUNS), rng.randrange(99)), changed(told, rng.choice(NOUNS), rng.randrange(99))) for asked, told in ROWS[:12] * 6]
    finding = found(deep(check, chats([*ROWS[:30], *copies])), "D03")
    assert finding.severity is Severity.ERROR
    assert finding.count > 55


def test_one_row_told_a_hundred_times_with_small_changes(check: Check) -> None:
    """Every word stands in nearly all rows, and yet it is no template: each row differs at a place of its own."""
    rng = draws(3)
    rows = [(changed(ROWS[0][0], rng.choice(NOUNS), rng.randrange(99)), changed(ROWS[0][1], rng.choice(NOUNS), rng.randrange(99))) for _ in range(100)]
    finding = found(deep(check, chats(rows)), "D03")
    assert finding.severity is Severity.ERROR
    assert finding.count > 80


def test_copies_told_apart_by_a_number_only(check: Check) -> None:
    rows = chats([*((f"{ROWS[0][0]} (variant {number})", ROWS[0][1]) for number in range(60)), *ROWS[10:50]])
    finding = found(deep(check, rows), "D03")
    assert (finding.severity, finding.count) == (Severity.ERROR, 59)


def test_copies_without_commas_and_stops(check: Check) -> None:
    bare = [(asked.replace(",", "").replace(".", ""), told) for asked, told in ROWS[:4]]
    finding = found(deep(check, chats([*ROWS[:40], *bare])), "D03")
    assert (finding.count, finding.lines) == (4, (41, 42, 43, 44))


def test_two_copies_in_a_small_file(check: Check) -> None:
    finding = found(deep(check, chats([*ROWS[:18], *((changed(asked, "very", 5), told) for asked, told in ROWS[:2])])), "D03")
    assert (finding.severity, finding.count, finding.lines) == (Severity.WARNING, 2, (19, 20))


def test_copies_are_found_in_other_scripts(check: Check) -> None:
    letters = "春夏秋冬山川海空星月花鳥風雪雨雲木林森石火水土金犬猫馬牛魚米茶本紙筆門窓道橋町村"
    rng = draws(4)
    texts = ["".join(rng.choices(letters, k=60)) + "。" for _ in range(40)]
    rows = [chat(one, "".join(rng.choices(letters, k=30))) for one in texts]
    copies = [chat(json.loads(json.dumps(row))["messages"][0]["content"].replace("。", "。ね"), row["messages"][1]["content"]) for row in rows[:5]]  # type: ignore[index]
    assert found(deep(check, [*rows, *copies]), "D03").lines == (41, 42, 43, 44, 45)


def test_copies_hide_in_no_template(check: Check) -> None:
    """Rows that share a long system prompt are compared by what is their own."""
    system = " ".join(asked for asked, _ in ROWS[100:104])
    rows = chats([*ROWS[:60], *((changed(asked, "often", 11), told) for asked, told in ROWS[:6])], system)
    assert found(deep(check, rows), "D03").count == 6


# --- what is let pass


def _branches(count: int) -> list[object]:
    rng = draws(5)
    system = "You are a careful assistant of the city library. Answer in one sentence, never invent opening hours, always name the branch, be polite and short."
    asked = "Please look up the hours of the {} {} branch on weekday {} and tell me whether its reading room is open to visitors without a card."
    told = "The {} {} branch opens at {} and closes at {}; its reading room is open to visitors without a card from {} on."
    rows = []
    for number in range(count):
        place, noun = PLACES[number % 20], NOUNS[number // 20 % 40]
        rows.append((asked.format(place, noun, rng.randrange(7)), told.format(place, noun, rng.randrange(6, 11), rng.randrange(15, 22), rng.randrange(7, 12))))
    return chats(rows, system)


def _passages() -> list[object]:
    """Four questions about each passage: nearly all of a row is the passage."""
    rows: list[object] = []
    for passage, _ in ROWS[:25]:
        for noun in draws(len(passage)).sample(NOUNS, 4):
            text = f"{passage} {passage[::-1]} {passage.upper()} {passage.replace('a', 'o')}"
            rows.append(chat(f"{text}\n\nIs any {noun} mentioned here, and where does it come from?", "yes" if noun in passage else f"no {noun} at all"))
    return rows


def _reviews() -> list[object]:
    task = "Decide whether this review of a kitchen appliance is positive or negative. Answer with one word in lower case, without any explanation. Review: "
    return [chat(f"{task}{told}", draws(len(told)).choice(("positive", "negative"))) for _, told in ROWS[:60]]


def _patients() -> list[object]:
    rng = draws(6)
    record = (
        "Patient record. age: {}; sex: {}; blood pressure: {}; cholesterol: {}; smoker: {}; slope: {}. Predict the risk class of this patient for ten years."
    )
    rows = []
    for _ in range(150):
        values = (
            rng.randrange(20, 90),
            rng.choice("MF"),
            rng.choice(("low", "high")),
            rng.randrange(120, 300),
            rng.choice(("yes", "no")),
            rng.choice(("up", "flat")),
        )
        rows.append(chat(record.format(*values), rng.choice(("low", "medium", "high"))))
    return rows


def _forms() -> list[object]:
    form = "Extract the full name from this form. Form {}. First name: {}. Last name: {}. Department: accounting. Building: north wing, third floor, room 212."
    return [chat(form.format(number, NAMES[number % 20], PLACES[number // 20]), f"{NAMES[number % 20]} {PLACES[number // 20]}") for number in range(100)]


def _frequent_questions() -> list[object]:
    """Each answer under ten questions that ask for it in other words."""
    forms = (
        *(
            "How do I get my {} back?",
            "I lost a {}, what now?",
            "Where can someone report that their {} is gone?",
            "my {} was stolen!!",
            "{} missing since Monday",
        ),
        *(
            "Is there an office for lost things like a {}?",
            "Whom should we call about the {}?",
            "Can a {} be sent to me by post?",
            "What happens with a found {}?",
        ),
    )
    return [
        chat(form.format(noun), f"{told} {ROWS[place + 20][1]}")
        for place, (noun, (_, told)) in enumerate(zip(NOUNS[:12], ROWS, strict=False))
        for form in forms
    ]


def _sums() -> list[object]:
    rng = draws(7)
    rows = []
    for _ in range(100):
        left, right = rng.randrange(1000), rng.randrange(1000)
        rows.append(chat(f"What is {left} plus {right}? Write the sum and nothing else, please.", str(left + right)))
    return rows


VALID: dict[str, list[object]] = {
    "twelve rows of one template": _branches(12),
    "a file of one template": _branches(200),
    "a template beside other rows": [*_branches(30), *chats(ROWS[:30])],
    "several questions about each passage": _passages(),
    "labels behind a long task": _reviews(),
    "a table in words": _patients(),
    "forms that differ in a name": _forms(),
    "sums": _sums(),
    "one answer under many questions": _frequent_questions(),
    "rows of a few words": [chat(f"Colour of a {noun}?", f"The {noun} is grey.") for noun in NOUNS],
    "prose": chats(ROWS),
}


@pytest.mark.parametrize("rows", VALID.values(), ids=VALID)
def test_rows_that_are_no_copies_are_let_pass(rows: list[object], check: Check) -> None:
    assert near(deep(check, rows)) == []


def test_exact_copies_are_told_once_and_by_their_own_check(check: Check) -> None:
    report = deep(check, chats([*ROWS[:40], *ROWS[:20]]))
    assert near(report) == []
    assert found(report, "B02").count == 20


def test_the_same_question_with_other_tools_is_no_copy(check: Check) -> None:
    def row(asked: str, tools: list[str]) -> object:
        call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": tools[0], "arguments": "{}"}}]}
        declared = [{"type": "function", "function": {"name": name, "description": name, "parameters": {"type": "object", "properties": {}}}} for name in tools]
        return {"messages": [{"role": "user", "content": asked}, call], "tools": declared}

    rows = [row(f"{asked}{mark}", tools) for mark, tools in (("", ["find"]), (" ", ["find", "sell"])) for asked, _ in ROWS[:20]]
    assert near(deep(check, rows)) == []


def test_a_few_copies_in_a_large_file_are_told_as_a_figure_only(check: Check) -> None:
    report = deep(check, chats([*ROWS, (changed(ROWS[0][0], "really", 9), ROWS[0][1])]))
    assert near(report) == []
    assert report.stats["near_duplicates"]["rows"] == 1  # type: ignore[index]


# --- across drops


@pytest.mark.parametrize("signed", [True, False])
def test_rows_near_to_an_earlier_drop_are_a_warning(signed: bool, tmp_path: Path, check: Check) -> None:
    known = accepted_drop(tmp_path, chats(ROWS[:40]), signed=signed)
    rows = chats([*ROWS[50:80], *((changed(asked, "really", 9), told) for asked, told in ROWS[:30])])
    finding = found(deep(check, rows, around=Surroundings(known=(known,))), "D03")
    assert (finding.severity, finding.count, finding.lines) == (Severity.WARNING, 30, (31, 32, 33, 34, 35))
    assert "line 31 and line 1 of drop-1" in finding.message


def test_a_row_of_a_known_conversation_takes_the_older_ones_place(tmp_path: Path, check: Check) -> None:
    known = accepted_drop(tmp_path, chats(ROWS[:40]))
    better = chats([(asked, f"{told} Nobody had thought of that.") for asked, told in ROWS[:40]])
    assert near(deep(check, better, around=Surroundings(known=(known,)))) == []


def test_signatures_of_another_version_are_worked_out_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = accepted_drop(tmp_path, chats(ROWS[:20]))
    before = read_signatures(known)
    monkeypatch.setattr("validation.signatures.VERSION", 99_999)
    assert (read_signatures(known).exact == before.exact).all()


def test_the_same_drop_has_the_same_signatures(tmp_path: Path) -> None:
    one, other = accepted_drop(tmp_path, chats(ROWS[:30]), gate=(3, 4)), accepted_drop(tmp_path, chats(ROWS[:30]), "drop-2", gate=(3, 4))
    assert Path(one.folder, SIGNATURES).read_bytes() == Path(other.folder, SIGNATURES).read_bytes()
    stored = read_signatures(one)
    assert sorted({unit.line for unit in stored.gate.units}) == [4, 5]
    assert len(stored.lines) == len(stored.groups) == len(stored.signatures) == 30


def test_a_survey_gives_the_signatures_that_the_rows_give(tmp_path: Path) -> None:
    known = accepted_drop(tmp_path, chats(ROWS[:50]), gate=(1,))
    before = Path(known.folder, SIGNATURES).read_bytes()
    file = tmp_path / "rows.jsonl"
    file.write_bytes(as_bytes(chats(ROWS[:50])))
    surveyed = DataValidator(None).examine(file, "chat_sft_v1", "deep", name="rows.jsonl").surveyed
    assert surveyed is not None
    aside = tmp_path / "aside"
    aside.mkdir()
    write_signatures(aside, SPECS["chat_sft_v1"], surveyed.sheet, Path(known.folder))
    assert (aside / SIGNATURES).read_bytes() == before


def test_a_drop_that_cannot_be_read_is_noted_and_the_rest_goes_on(tmp_path: Path, check: Check) -> None:
    known = accepted_drop(tmp_path, chats(ROWS[:20]))
    Path(known.folder, SIGNATURES).write_bytes(b"PK\x03\x04 not whole")
    report = deep(check, chats(ROWS[30:60]), around=Surroundings(known=(known,)))
    assert "delete the file" in report.stats["checks_not_run"]["D03 across drops"]  # type: ignore[index]
    assert report.verdict == "accepted"


# --- words and grams


def test_words_are_runs_of_letters_and_digits_in_lower_case() -> None:
    one, other = words_of(["Hello, World: it's 3.5!"]), words_of(["hello world it s 3 5"])
    assert (one.hashes == other.hashes).all()
    assert words_of(["naïve café “quoted” — dash"]).counts.tolist() == [4]
    assert words_of(["", "?!", "x"]).counts.tolist() == [0, 0, 1]
    assert words_of(["漢字かな", "สวัสดี x"]).counts.tolist() == [4, 7]
    assert words_of(["שלום עולם", "نص عربي هنا", "हिन्दी में"]).counts.tolist() == [2, 3, 2]


def test_grams_never_go_over_the_end_of_a_text() -> None:
    grams = grams_of(words_of(["a b c", "d e", "f"]), 2)
    assert grams.offsets.tolist() == [0, 2, 3, 3]
    assert (grams.of(0) == grams_of(words_of(["a b c"]), 2).hashes).all()
    assert grams_of(words_of(["a"]), 5).hashes.size == 0


def test_many_texts_are_hashed_as_each_alone() -> None:
    texts = [asked for asked, _ in ROWS[:20]] + ["x" * 30 + " " + "y " * (CHUNK_BYTES // 2)]
    together, alone = words_of(texts), [words_of([text]) for text in texts]
    assert together.counts.tolist() == [int(words.counts[0]) for words in alone]
    assert (together.hashes[: together.offsets[20]].tolist()) == [value for words in alone[:20] for value in words.hashes.tolist()]
