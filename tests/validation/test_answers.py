"""Answers of a whole file: doubles, contradictions, placeholders, cuts, refusals, one answer for all, longer is better."""

import json
from pathlib import Path

import pytest
from content_rows import drawn, ids, prose, prose_pairs, question, sentence, standard
from gate_cases import Check, chat, found, pair, turns

from validation import DataValidator
from validation.context import Surroundings
from validation.examination import Setting

REAL = [json.loads(line) for line in (Path(__file__).parents[1] / "data" / "gate" / "gsm8k_40.jsonl").read_text().splitlines()]


def preference(number: int, chosen: str, rejected: str) -> dict[str, object]:
    return {"prompt": question(number), "chosen": chosen, "rejected": rejected}


# --- B01: one answer


def test_a_file_whose_answer_is_nearly_always_yes_is_named(check: Check) -> None:
    rows = [pair(question(number), ("Yes.", "yes", " YES!")[number % 3] if number % 4 else f"no {number}") for number in range(40)]
    finding = found(standard(check, rows, "completion_v1"), "B01")
    assert (finding.severity, finding.count, finding.lines[0]) == ("warning", 30, 2)
    assert "75% of the 40 rows answer 'yes'" in finding.message


def test_one_call_for_every_question_counts_as_one_answer(check: Check) -> None:
    tools = [{"type": "function", "function": {"name": "wave", "parameters": {"type": "object"}}}]
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "wave", "arguments": "{}"}}]}
    rows: list[object] = [{"messages": [{"role": "user", "content": question(number)}, call], "tools": tools} for number in range(20)]
    assert "make the same tool call" in found(standard(check, rows), "B01").message


@pytest.mark.parametrize("rows", [19, 12, 1])
def test_a_few_rows_may_all_say_yes(rows: int, check: Check) -> None:
    assert "B01" not in ids(standard(check, [chat(question(number), "yes") for number in range(rows)]))


def test_labels_in_like_shares_are_no_domination(check: Check) -> None:
    rows: list[object] = [chat(question(number), ("positive", "negative", "neutral")[drawn(number).randrange(3)]) for number in range(60)]
    assert "B01" not in ids(standard(check, rows))


# --- B02: doubles


def test_a_double_is_named_with_its_first_line_and_the_repair(check: Check) -> None:
    rows = prose(30)
    rows.append(chat(question(4).upper(), f"  {sentence(4)}\n\n", id="another id", metadata={"n": 1}))
    finding = found(standard(check, rows), "B02")
    assert (finding.severity, finding.lines, finding.count) == ("warning", (31,), 1)
    assert "line 31 repeats line 5" in finding.message
    assert finding.fix == "lorad fix rows.jsonl -o rows-fixed.jsonl --schema chat_sft_v1 --repair dedup"


def test_a_third_of_doubles_is_refused(check: Check) -> None:
    finding = found(standard(check, [*prose(14), *prose(6)]), "B02")
    assert (finding.severity, finding.count, finding.lines) == ("error", 6, (15, 16, 17, 18, 19))


def test_one_double_among_two_hundred_rows_is_let_pass(check: Check) -> None:
    assert "B02" not in ids(standard(check, [*prose(200), *prose(1)]))


@pytest.mark.parametrize(
    "rows",
    [
        [chat(f"Add {one} and {other}", "13") for one, other in ((1, 12), (11, 2), (112, 3), (1, 123))],
        [{"prompt": "p", "completion": "c", "label": label} for label in (True, False)],
        [{"prompt": "p", "chosen": "c", "rejected": rejected} for rejected in ("a", "b", "c d", "cd")],
        [{"prompt": "p", "model_output": output, "correction": "c"} for output in ("a", "b")],
        [turns(("user", "q"), ("assistant", first), ("user", "r"), ("assistant", "a")) for first in ("x", "y")],
        [
            {"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which flag?"}]}, chat()["messages"][1]], "images": [name]}
            for name in ("a.png", "b.png")
        ],
    ],
    ids=["sums", "labels", "worse answers", "outputs", "earlier turns", "pictures"],
)
def test_rows_that_differ_in_one_part_only_are_no_doubles(rows: list[dict[str, object]], check: Check) -> None:
    schemas = {"label": "unpaired_v1", "chosen": "preference_v1", "correction": "correction_v1", "images": "vision_v1"}
    schema = next((schema for key, schema in schemas.items() if key in rows[0]), "chat_sft_v1")
    assert "B02" not in ids(standard(check, [*rows], schema))


def test_template_rows_that_differ_in_a_slot_are_no_doubles(check: Check) -> None:
    rows: list[object] = [chat(f"Translate the word number {number} into French.", f"mot {number}") for number in range(50)]
    assert ids(standard(check, rows)) == set()


# --- B03: contradictions


def test_one_question_with_two_answers_is_named_with_both_lines(check: Check) -> None:
    rows = prose_pairs(30)
    rows.append(pair(question(2), "Something else."))
    finding = found(standard(check, rows, "completion_v1"), "B03")
    assert (finding.severity, finding.lines, finding.count) == ("warning", (3, 31), 2)
    assert "lines 3 and 31 ask the same and answer differently" in finding.message


def test_an_answer_that_is_good_and_bad_is_named(check: Check) -> None:
    rows: list[object] = [{"prompt": question(number), "completion": sentence(number), "label": number % 2 == 0} for number in range(20)]
    rows.append({"prompt": question(3), "completion": sentence(3), "label": True})
    finding = found(standard(check, rows, "unpaired_v1"), "B03")
    assert finding.lines == (4, 21)
    assert "good and bad" in finding.message


@pytest.mark.parametrize(
    ("schema", "rows"),
    [
        ("preference_v1", [preference(number % 5, sentence(number), sentence(number + 50)) for number in range(20)]),
        ("unpaired_v1", [{"prompt": question(number % 5), "completion": sentence(number), "label": number % 2 == 0} for number in range(20)]),
        ("correction_v1", [{"prompt": question(number % 5), "model_output": f"m{number}", "correction": sentence(number)} for number in range(20)]),
        ("chat_sft_v1", [turns(("user", "hi"), ("assistant", sentence(n)), ("user", "more"), ("assistant", sentence(n + 90))) for n in range(20)]),
        ("chat_sft_v1", [chat(question(number), answer) for number in range(10) for answer in ("Yes", " yes. ")]),
    ],
    ids=["pairs", "labels", "corrections", "conversations that begin alike", "case and stops"],
)
def test_several_answers_may_be_right(schema: str, rows: list[object], check: Check) -> None:
    assert "B03" not in ids(standard(check, rows, schema))


# --- B04: placeholders

LOST = [
    "nan",
    "None",
    "NULL",
    "TODO",
    "N/A",
    "[object Object]",
    "#REF!",
    "undefined",
    "Lorem ipsum dolor sit amet, consectetur",
    "{{answer}}",
    "<NA>",
    "[removed]",
]


@pytest.mark.parametrize("lost", LOST)
def test_a_placeholder_is_named_wherever_it_stands(lost: str, check: Check) -> None:
    finding = found(standard(check, [*prose(30), chat("And then?", lost)]), "B04")
    assert (finding.severity, finding.lines, finding.path) == ("warning", (31,), "$.messages[1].content")
    assert "--repair drop --ids B04" in finding.fix


def test_many_placeholders_are_refused(check: Check) -> None:
    finding = found(standard(check, [*prose(36), *[chat(question(number), "nan") for number in (50, 51)]]), "B04")
    assert (finding.severity, finding.count, finding.lines) == ("error", 2, (37, 38))
    assert "'nan'" in finding.message


def test_one_placeholder_refuses_no_small_file(check: Check) -> None:
    assert found(standard(check, [*prose(12), chat(question(50), "nan")]), "B04").severity == "warning"


def test_a_rejected_answer_that_was_lost_is_named(check: Check) -> None:
    rows: list[object] = [preference(number, sentence(number), sentence(number + 40)) for number in range(30)]
    finding = found(standard(check, [*rows, preference(99, sentence(99), "null")], "preference_v1"), "B04")
    assert (finding.lines, finding.path) == ((31,), "$.rejected")


def test_none_as_one_of_a_few_labels_is_never_refused(check: Check) -> None:
    rows: list[object] = [chat(f"Which allergy does patient {number} have?", ("Nuts", "None", "Milk")[number % 3]) for number in range(45)]
    finding = found(standard(check, rows), "B04")
    assert (finding.severity, finding.count) == ("warning", 15)
    assert "label" in finding.hint


def test_labels_that_are_all_lost_are_refused(check: Check) -> None:
    rows: list[object] = [chat(f"Which allergy does patient {number} have?", "None") for number in range(45)]
    assert found(standard(check, rows), "B04").severity == "error"


def test_null_as_the_right_answer_is_never_refused(check: Check) -> None:
    rows: list[object] = []
    for number in range(15):
        rows += [chat(f"What is JSON for nothing, case {number}?", "null"), chat(f"What does SQL give for {number} + NULL?", "NULL")]
    finding = found(standard(check, rows), "B04")
    assert (finding.severity, finding.count) == ("warning", 15)


def test_a_label_that_most_rows_have_is_never_refused(check: Check) -> None:
    rows: list[object] = [chat(f"Which allergy does patient {number} have?", "None" if number % 10 else "Nuts") for number in range(40)]
    assert found(standard(check, rows), "B04").severity == "warning"


def test_nothing_among_open_answers_is_refused(check: Check) -> None:
    rows: list[object] = [chat(question(number), "None" if number % 3 else sentence(number)) for number in range(42)]
    assert found(standard(check, rows), "B04").severity == "error"


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Answer with the name of the drug, or N/A: the text names no drug.", "N/A"),
        ("Positive, Negative or None?", "None"),
        ("What does print(None) write?", "None"),
        ("Is 0/0 NaN or 0 in floating point?", "NaN"),
        ("Which symbol has sodium?", "Na"),
        ("Who has never lied?", "None of us."),
        ("What is on the list?", "TODO: buy milk, call Ann"),
        ("Which language spells nothing as null?", "Java writes null."),
    ],
)
def test_words_that_are_asked_for_are_answers(prompt: str, answer: str, check: Check) -> None:
    assert "B04" not in ids(standard(check, [*prose(15), chat(prompt, answer)]))


def test_a_prompt_that_was_lost_too_asks_for_nothing(check: Check) -> None:
    assert found(standard(check, [*prose(15), chat("nan", "nan")]), "B04").lines == (16,)


# --- B10: refusals

REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "As an AI language model, I do not have opinions.",
    "I cannot assist with this request.",
    "I’m afraid I’m not able to provide that information.",
    "Als KI kann ich dazu nichts sagen.",
    "En tant que modèle de langage, je ne peux pas répondre.",
    "作为一个人工智能语言模型，我无法回答。",
]


def test_boilerplate_refusals_are_named(check: Check) -> None:
    rows: list[object] = [*prose(40), *[chat(question(number + 90), text) for number, text in enumerate(REFUSALS)]]
    finding = found(standard(check, rows), "B10")
    assert (finding.severity, finding.count, finding.lines) == ("warning", 7, (41, 42, 43, 44, 45))
    assert "15% of the answers refuse" in finding.message


def test_two_refusals_in_a_small_file_are_wanted(check: Check) -> None:
    rows: list[object] = [*prose(12), *[chat(question(number + 90), REFUSALS[number]) for number in range(2)]]
    assert "B10" not in ids(standard(check, rows))


@pytest.mark.parametrize(
    "answer",
    [
        "As an AI researcher she read the paper twice.",
        "I can't help but laugh at that story.",
        "Sorry, I couldn't find any restaurants in San Jose. Shall I look elsewhere?",
        "Sorry, I cannot find the letter you want.",
        "The door won't open, as an aide told him.",
        "I am an airline pilot.",
    ],
)
def test_answers_that_only_sound_like_a_refusal(answer: str, check: Check) -> None:
    rows: list[object] = [chat(question(number), f"{answer} {sentence(number)}") for number in range(30)]
    assert "B10" not in ids(standard(check, rows))


def test_a_preferred_refusal_is_legitimate_up_to_half_of_the_pairs(check: Check) -> None:
    def pairs(refused: int) -> list[object]:
        return [
            preference(number, f"{REFUSALS[0]} {sentence(number)}" if number < refused else sentence(number), sentence(number + 70)) for number in range(40)
        ]

    assert "B10" not in ids(standard(check, pairs(18), "preference_v1"))
    assert "preferred answers" in found(standard(check, pairs(24), "preference_v1"), "B10").message


def test_refusals_that_are_marked_as_bad_do_not_count(check: Check) -> None:
    rows: list[object] = [{"prompt": question(number), "completion": f"{REFUSALS[0]} {number}", "label": False} for number in range(30)]
    assert "B10" not in ids(standard(check, rows, "unpaired_v1"))


# --- B13: length of pairs


def test_the_longer_answer_that_always_wins_is_named(check: Check) -> None:
    rows: list[object] = [preference(number, f"{sentence(number)} And so on it went, day by day.", sentence(number)) for number in range(30)]
    finding = found(standard(check, rows, "preference_v1"), "B13")
    assert (finding.severity, finding.count) == ("warning", 30)
    assert "longer than the rejected one in 100% of 30 rows" in finding.message


def test_conversations_are_measured_by_their_answers(check: Check) -> None:
    def said(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    rows: list[object] = [
        {
            "prompt": said("user", question(number) * 20),
            "chosen": said("assistant", f"{sentence(number)} Truly, and for a long time."),
            "rejected": said("assistant", sentence(number)),
        }
        for number in range(20)
    ]
    assert "1.3 times as long" in found(standard(check, rows, "preference_v1"), "B13").message


@pytest.mark.parametrize(("longer", "of"), [(24, 40), (9, 10), (9, 11), (32, 40)])
def test_chance_and_a_light_lean_are_let_pass(longer: int, of: int, check: Check) -> None:
    rows: list[object] = [preference(number, "yes indeed" if number < longer else "yes", f"no {number}") for number in range(of)]
    assert "B13" not in ids(standard(check, rows, "preference_v1"))


# --- all of them


@pytest.mark.parametrize("rows", [12, 25, 50, 300])
def test_plain_rows_say_nothing(rows: int, check: Check) -> None:
    assert ids(standard(check, prose(rows))) == set()
    assert ids(standard(check, prose_pairs(rows), "completion_v1")) == set()


def test_real_rows_say_nothing(check: Check) -> None:
    assert ids(standard(check, [*REAL])) == set()


def test_a_profile_moves_the_limits(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*prose(30), *prose(1)]))
    around = Surroundings(limits={"B02": {"warn_share": 0.1}})
    assert ids(DataValidator(setting=Setting(around=around)).check_file(path, level="standard")) == set()
    assert ids(DataValidator(setting=Setting(off=frozenset({"B02"}))).check_file(path, level="standard")) == set()
