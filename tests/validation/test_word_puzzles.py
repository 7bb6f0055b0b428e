"""Word puzzles: the form of the answer, its tiles, the figures in the metadata."""

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from content_rows import ids, standard
from gate_cases import Check, chat, found

WORDS = ("pa-tri-ot", "cap-i-tal", "pos-ter-i-ty", "ac-cuse", "den-tist", "mon-day", "cir-cus", "im-par-tial", "te-di-um", "hap-pi-ness", "ab-sent", "liv-er")


def puzzle(number: int, num_words: int = 4) -> dict[str, Any]:
    """A sound puzzle of some words."""
    words = [WORDS[(number + place) % len(WORDS)].split("-") for place in range(num_words)]
    bank = sorted(tile for word in words for tile in word)
    clues = "\n".join(f"{place}. The clue of row {number} (or so). ({len(word)} syllables)" for place, word in enumerate(words, 1))
    rules = f"SYLLO Puzzle {number}\nBuild {num_words} words. Use every syllable tile exactly once."
    prompt = f"{rules}\nSyllable bank: {', '.join(bank)}\nClues:\n{clues}\nAnswer with JSON only."
    solutions = [{"ans_num": place, "syllables": word, "answer": "".join(word).upper()} for place, word in enumerate(words, 1)]
    metadata = {"skill": "syllo", "puzzle_id": f"p{number}", "num_words": num_words, "syllable_bank_size": len(bank), "level": num_words - 3}
    return chat(prompt, json.dumps({"solutions": solutions}), metadata=metadata)


def puzzles(*more: object) -> list[object]:
    """Thirty sound ones, then these as line 31 and on."""
    return [*(puzzle(number, 4 + number % 5) for number in range(30)), *more]


def spoilt(change: Callable[[list[dict[str, Any]]], object], number: int = 99) -> dict[str, Any]:
    """A puzzle whose solutions were changed."""
    row = puzzle(number)
    answer = json.loads(row["messages"][1]["content"])
    change(answer["solutions"])
    row["messages"][1]["content"] = json.dumps(answer)
    return row


def answered(text: str) -> dict[str, Any]:
    row = puzzle(99)
    row["messages"][1]["content"] = text.replace("JSON", row["messages"][1]["content"])
    return row


def asked(before: str, after: str) -> dict[str, Any]:
    row = puzzle(99)
    assert before in row["messages"][0]["content"]
    row["messages"][0]["content"] = row["messages"][0]["content"].replace(before, after)
    return row


def noted(**figures: object) -> dict[str, Any]:
    row = puzzle(99)
    row["metadata"] |= figures
    return row


def test_sound_puzzles_say_nothing(check: Check) -> None:
    assert ids(standard(check, puzzles(), "syllo_v1")) == set()


# --- Y01


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("PATRIOT, CAPITAL", "not JSON"),
        ('{"solutions": [{"ans_num": 1, "syll', "not JSON"),
        ("```json\nJSON\n```", "Markdown fence"),
        ("Here you are: JSON", "words stand around the JSON: 'Here you are:'"),
        ("JSON Good luck!", "'Good luck!'"),
        ('["PATRIOT"]', "another shape"),
        ('{"answers": []}', "missing required field `solutions`"),
        ('{"solutions": [{"ans_num": "1", "syllables": ["a"], "answer": "A"}]}', "Expected `int`"),
        ('{"solutions": [{"ans_num": 1, "syllables": "a", "answer": "A"}]}', "Expected `array`"),
        ('{"solutions": []}', "4 clues, but 0 solutions"),
    ],
)
def test_an_answer_of_another_form_is_refused(answer: str, says: str, check: Check) -> None:
    finding = found(standard(check, puzzles(answered(answer)), "syllo_v1"), "Y01")
    assert (finding.severity, finding.lines, finding.path) == ("error", (31,), "$.messages[1].content")
    assert says in finding.message


def test_solutions_must_carry_the_numbers_of_the_clues(check: Check) -> None:
    twice = spoilt(lambda solutions: solutions[1].update(ans_num=1))
    assert "numbered [1, 1, 3, 4], the clues [1, 2, 3, 4]" in found(standard(check, puzzles(twice), "syllo_v1"), "Y01").message
    lost = spoilt(lambda solutions: solutions.pop())
    report = standard(check, puzzles(lost), "syllo_v1")
    assert "4 clues, but 3 solutions" in found(report, "Y01").message
    assert "Y02" not in ids(report), "one trouble, one finding"


def test_a_prompt_without_a_bank_is_no_puzzle(check: Check) -> None:
    finding = found(standard(check, puzzles(asked("Syllable bank:", "Words:")), "syllo_v1"), "Y01")
    assert (finding.path, finding.lines) == ("$.messages[0].content", (31,))


# --- Y02


def _foreign(solutions: list[dict[str, Any]]) -> None:
    solutions[0].update(syllables=["zz", *solutions[0]["syllables"][1:]], answer="".join(["zz", *solutions[0]["syllables"][1:]]))


def _twice(solutions: list[dict[str, Any]]) -> None:
    solutions[0] = {**solutions[0], "syllables": list(solutions[1]["syllables"]), "answer": solutions[1]["answer"]}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (spoilt(lambda solutions: solutions[0].update(answer="PATRIOTS")), "but its tiles make"),
        (spoilt(_foreign), "not in the bank: 'zz'"),
        (spoilt(_twice), "used more often than the bank holds them"),
        (asked("Syllable bank: ", "Syllable bank: zu, zu, "), "left over: 'zu' (2 times)"),
        (asked("(2 syllables)", "(5 syllables)"), "asks for 5 syllables"),
    ],
)
def test_an_answer_that_breaks_the_rules_is_refused(row: object, says: str, check: Check) -> None:
    report = standard(check, puzzles(row), "syllo_v1")
    finding = found(report, "Y02")
    assert (finding.severity, finding.lines, finding.path) == ("error", (31,), "$.messages[1].content")
    assert says in finding.message
    assert "Y01" not in ids(report)


def test_a_tile_of_which_the_bank_holds_two_may_be_used_twice(check: Check) -> None:
    row = puzzle(1)  # capital and posterity both need an "i"
    assert row["messages"][0]["content"].count(" i,") == 2
    assert ids(standard(check, puzzles(row), "syllo_v1")) <= {"B02"}


# --- Y03


@pytest.mark.parametrize(
    ("row", "says", "path"),
    [
        (noted(num_words=5), "metadata.num_words is 5; the prompt has 4 clues", "$.metadata.num_words"),
        (noted(syllable_bank_size=3), "metadata.syllable_bank_size is 3", "$.metadata.syllable_bank_size"),
        (noted(level=4), "metadata.level is 4 for a puzzle of 4 words; in the other rows it is 1", "$.metadata.level"),
        (asked("Build 4 words", "Build 6 words"), "asks for 6 words and gives 4 clues", "$.messages"),
    ],
)
def test_figures_that_disagree_are_named(row: object, says: str, path: str, check: Check) -> None:
    finding = found(standard(check, puzzles(row), "syllo_v1"), "Y03")
    assert (finding.severity, finding.lines, finding.path) == ("warning", (31,), path)
    assert says in finding.message


def _lower(row: dict[str, Any]) -> dict[str, Any]:
    row["messages"][1]["content"] = row["messages"][1]["content"].lower()
    return row


def _system(row: dict[str, Any]) -> dict[str, Any]:
    row["messages"].insert(0, {"role": "system", "content": "You solve word puzzles."})
    return row


def _umlauts(row: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(row, ensure_ascii=False)
    for plain, accented in (("den", "dén"), ("tist", "tißt"), ("DENTIST", "DÉNTISST")):
        text = text.replace(plain, accented)
    return dict(json.loads(text))


FINE = {
    "small letters": _lower(puzzle(98)),
    "a system message": _system(puzzle(98)),
    "no metadata": {"messages": puzzle(98)["messages"]},
    "other metadata": noted(puzzle_id=7, source="x", level=1),
    "pretty JSON": answered(json.dumps(json.loads(puzzle(99)["messages"][1]["content"]), indent=2)),
    "another key order": answered(json.dumps(json.loads(puzzle(99)["messages"][1]["content"]), sort_keys=True)),
    "solutions in another order": spoilt(lambda solutions: solutions.reverse()),
    "CRLF in the prompt": asked("\n", "\r\n"),
    "accents": _umlauts(puzzle(4, 4)),
    "clues that do not say how long": asked(" syllables)", " tiles)"),
}


@pytest.mark.parametrize("kind", FINE)
def test_puzzles_that_look_odd_and_are_right(kind: str, check: Check) -> None:
    report = standard(check, puzzles(deepcopy(FINE[kind])), "syllo_v1")
    assert ids(report) == set(), report.to_text()


def test_a_file_that_counts_levels_in_another_way_is_right(check: Check) -> None:
    rows = [puzzle(number, 4 + number % 5) for number in range(30)]
    for row in rows:
        row["metadata"]["level"] *= 10
    assert ids(standard(check, [*rows], "syllo_v1")) == set()


def test_other_specs_are_not_held_to_puzzles(check: Check) -> None:
    assert not {"Y01", "Y02", "Y03"} & ids(standard(check, [chat(f"q{number}", "no JSON") for number in range(12)]))
