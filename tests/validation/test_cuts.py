"""Answers that an exporter cut, and texts that end without an end mark by nature."""

import json
from pathlib import Path

import pytest
from content_rows import drawn, ids, question, sentence, standard
from gate_cases import Check, chat, found

from validation.endings import Ending, ending_of, is_torn

REAL = [json.loads(line) for line in (Path(__file__).parents[1] / "data" / "gate" / "gsm8k_40.jsonl").read_text().splitlines()]


def test_answers_that_end_at_one_length_are_named(check: Check) -> None:
    rows = [chat(question(number), f"{sentence(number)} {sentence(number + 31)} {sentence(number + 77)}"[:100]) for number in range(40)]
    finding = found(standard(check, rows), "B05")
    assert finding.severity == "warning"
    assert "after exactly 100 characters" in finding.message
    assert "keeps 100 characters" in finding.hint


def test_real_answers_that_end_at_one_length_are_named(check: Check) -> None:
    rows = [chat(row["messages"][0]["content"], row["messages"][1]["content"][:120]) for row in REAL]
    assert "after exactly 120 characters" in found(standard(check, rows), "B05").message


def test_a_cut_that_leaves_three_dots_is_a_cut(check: Check) -> None:
    rows = [chat(question(number), f"{sentence(number)} {sentence(number + 31)} {sentence(number + 77)}"[:100].strip() + "...") for number in range(40)]
    assert "without an end mark" in found(standard(check, rows), "B05").message


def test_answers_that_break_off_while_others_end_are_named(check: Check) -> None:
    rows = [
        chat(question(number), sentence(number) if number % 2 else f"{sentence(number)} {sentence(number + 9)}"[: -8 - number % 11]) for number in range(40)
    ]
    finding = found(standard(check, rows), "B05")
    assert (finding.count, finding.lines[:3]) == (18, (1, 3, 5)), "two of the twenty cuts fall behind a full stop"
    assert "18 of 40 running answers" in finding.message


def test_answers_that_all_break_off_within_words_are_named(check: Check) -> None:
    words = [
        "lanterns",
        "carried",
        "across",
        "frozen",
        "harbour",
        "while",
        "everybody",
        "waited",
        "quietly",
        "beside",
        "painted",
        "fountain",
        "because",
        "mountain",
        "unlikely",
        "another",
        "message",
    ]
    whole = [" ".join(drawn(number).sample(words, 12)) for number in range(60)]
    rows = [chat(question(number), text[: len(text) - 2 - number % 3]) for number, text in enumerate(whole)]
    assert "B05" not in ids(standard(check, [chat(question(number), text) for number, text in enumerate(whole)]))
    assert "in the middle of a sentence" in found(standard(check, rows), "B05").message


def test_real_answers_that_were_cut_in_half_are_named(check: Check) -> None:
    rows: list[object] = []
    for number, row in enumerate(REAL):
        text = row["messages"][1]["content"]
        rows.append(chat(row["messages"][0]["content"], text if number % 2 else text[: len(text) * (40 + number) // 100]))
    finding = found(standard(check, rows), "B05")
    assert finding.severity == "warning"
    assert set(finding.lines) <= set(range(1, 41, 2))
    assert "B05" not in ids(standard(check, list(REAL)))


CHINESE = "他们在雨开始之前把三盏蓝色的灯笼搬到了河边的旧房子里面然后一起回家"

WITHOUT_MARKS = {
    "code": [f"def area_{number}(width, height):\n    scale = {number}\n    return width * height * scale" for number in range(40)],
    "JSON": [json.dumps({"name": sentence(number), "n": number}) for number in range(40)],
    "bullets": ["Here is what you need for the trip to the lake:\n- a tent for two\n- some bread" + "\n- rope" * (number % 5) for number in range(40)],
    "titles": [f"The Long Way Home From {word} And Other Stories Of The Sea Volume {number}" for number, word in enumerate(["Rome", "Oslo", "Bath"] * 14)],
    "results": [f"She has {number} apples and buys {number + 2} more, so that she has\n#### {2 * number + 2}" for number in range(40)],
    "numbers in a template of one length": [f"the answer to the question that was asked here is number {number}" for number in range(10, 50)],
    "names in a template of one length": [
        f"the person who is meant by the riddle of the {word} is surely {word}" for word in ("fox", "owl", "cat", "dog") * 10
    ],
    "hashes": [f"{drawn(number).getrandbits(256):064x}" for number in range(40)],
    "sudoku": [" ".join(str(drawn(number * 81 + place).randrange(1, 10)) for place in range(81)) for number in range(40)],
    "Chinese": [f"{CHINESE[number % 7 :]}{CHINESE[: 20 + number % 9]}。" for number in range(40)],
    "Hindi": [f"वह {number} दिन पहले अपने पुराने घर वापस आया और फिर सबसे मिलकर बहुत खुश हुआ।" for number in range(40)],
    "Arabic": [f"عاد الرجل إلى بيته القديم قبل {number} أيام ثم التقى بكل أصدقائه هناك؟" for number in range(40)],
    "Thai": [f"เขากลับบ้านเก่าเมื่อ {number} วันก่อน แล้ว ก็ พบ เพื่อน ทุก คน ที่ นั่น อย่าง มี ความสุข" + "มาก" * (number % 6) for number in range(40)],
    "quoted": [f'"{sentence(number)}"' for number in range(40)],
    "Markdown": [f"**{sentence(number)}**" for number in range(40)],
    "emoji": [f"{sentence(number)[:-1]} 🎉👨‍👩‍👧" for number in range(40)],
    "letters": [f"{sentence(number)} {sentence(number + 5)}\n\nKind regards,\nAnna Maria Huber" for number in range(40)],
    "sums": [f"She pays {number} for the lamp and {number + 3} for the rope, which is {number} + {number + 3} = {2 * number + 3}" for number in range(40)],
    "searches": [f"how much does a lantern of size {number} cost in the town where {who} live" for number in range(20) for who in ("you", "they")],
    "singulars": [
        f"one of the lanterns, maps, clocks and letters that lie in box {n} is a {w}" for n in range(10) for w in ("lantern", "map", "clock", "letter")
    ],
    "labels": ["positive", "negative"] * 20,
    "verses": ["\n".join(" ".join(sentence(number + line).split()[: 3 + (number + line) % 3]) for line in range(6)) for number in range(40)],
}


@pytest.mark.parametrize("kind", WITHOUT_MARKS)
def test_texts_without_end_marks_are_not_cut(kind: str, check: Check) -> None:
    rows: list[object] = [chat(question(number), text) for number, text in enumerate(WITHOUT_MARKS[kind])]
    assert "B05" not in ids(standard(check, rows))


def test_a_few_careless_answers_are_not_cut(check: Check) -> None:
    rows = [chat(question(number), sentence(number) if number % 5 else sentence(number).rstrip(".")) for number in range(40)]
    assert "B05" not in ids(standard(check, rows))


@pytest.mark.parametrize(
    "text", ["each for a total of 44 * .25 =", "there are 5 +", "so he pays 5 x", "The total cost of the", "and then Der Preis der", "it costs $"]
)
def test_texts_that_are_torn_off(text: str) -> None:
    assert is_torn(text)


@pytest.mark.parametrize(
    "text", ["", "is 5 + 3 = 8", "a *word*", "and then?", "</html>", "the solution is x", "他们在雨开始之前", "see the path ~/a/", "seeing you,"]
)
def test_texts_that_end_so(text: str) -> None:
    assert not is_torn(text)


def test_texts_that_were_given_to_be_copied_are_not_cut(check: Check) -> None:
    texts = [f"{sentence(number)} {sentence(number + 9)}"[: -8 - number % 11] if number % 2 else sentence(number) for number in range(40)]
    assert "B05" in ids(standard(check, [chat(question(number), text) for number, text in enumerate(texts)]))
    assert "B05" not in ids(standard(check, [chat(f'Say exactly: "{text}"', text) for text in texts]))


@pytest.mark.parametrize(
    ("text", "ending"),
    [
        ("She went to the market and bought a new lamp for the", Ending.OPEN),
        ("It rained all night. She went to the market and bought a new lamp for the", Ending.OPEN_AFTER_SENTENCES),
        ("She went to the market and bought a new lamp for the hall.”", Ending.WHOLE),
        ("She went to the market and bought a new lamp for …", Ending.TRAILING),
        ('{"a": "b", "c": "d', Ending.OPEN),
        ('{"a": "b"}', Ending.WHOLE),
        ("```python\nprint(1)\n```", Ending.WHOLE),
        ("Look at this program:\n```python\nprint(", Ending.OPEN),
        ("yes", Ending.OTHER),
        ("", Ending.OTHER),
        (" \n", Ending.OTHER),
        ("{name}, welcome to the hall of the mountain king, you are late", Ending.OTHER),
    ],
)
def test_endings(text: str, ending: Ending) -> None:
    assert ending_of(text) is ending
