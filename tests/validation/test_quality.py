"""Answers that read like no text are listed, and warned of only where they are clearly broken."""

import pytest
from gate_cases import Check, chat, found

from validation import Report
from validation.checks.quality import broken_rules, is_garbled, repeats_lines

PROSE = (
    "The old mill stands by the river, and every spring the miller's children climb the wall to look for nests. "
    "Nobody has ground corn there for forty years, yet the wheel still turns when the water is high. "
    "They say that on quiet nights you can hear the stones move, but I have never heard them."
)


def prose(number: int) -> str:
    return f"{PROSE} That is what story number {number} has to tell, with all of its small and curious details."


def mine(report: Report) -> list[tuple[str, int]]:
    return [(finding.severity.value, finding.count) for finding in report.findings if finding.id == "D11"]


BROKEN = {
    "word length": "a b c d e f g h i j " * 4,
    "letters": "12 34 the 56 78 of 90 11 22 and 33 44 55 to 66 77 88 99 00 111 222 333",
    "symbols": "the # cat # sat # on # the # mat # and # looked # at # the # moon # for hours and hours",
    "stop words": "apple pear lemon grape melon peach plum cherry mango banana kiwi orange fig date papaya " * 4,
    "bullets": "\n".join(f"- the thing that is number {number} in the list" for number in range(6)),
    "ellipses": "\n".join("and then there was the next of them..." for _ in range(6)) + "\nthe end",
    "repeated lines": "\n".join(["the same line of words again"] * 5 + ["and the end of it all"]),
    "repeated words": "the cat sat on the mat and " * 12,
}


@pytest.mark.parametrize("rule", BROKEN)
def test_each_rule_knows_its_text(rule: str) -> None:
    assert rule in broken_rules(BROKEN[rule])


GOOD_TEXTS = {
    "prose": prose(1),
    "chinese": "这是一个很长的回答。" * 30,
    "thai": "นี่คือข้อความภาษาไทยที่ยาวมาก " * 20,
    "arabic": "كان يا ما كان في قديم الزمان رجل عجوز يعيش وحده في بيت صغير قرب النهر وكان يحب الطيور كثيرا ويطعمها كل صباح من يده " + "ثم مضى " * 2,
    "german": "Die alte Mühle steht am Fluss, und jedes Frühjahr klettern die Kinder auf die Mauer, um nach Nestern zu sehen. Niemand hat dort Korn gemahlen.",
    "code": "```python\n" + "\n".join(f"x_{number} = [{number}, {number}]" for number in range(30)) + "\n```",
    "table": "\n".join(f"| {number} | {number * number} | --- |" for number in range(30)),
    "short": "#### 42",
    "emoji": "🎉🎊👩‍👩‍👧‍👦🏳️‍🌈 " * 30,
    "nothing": "",
}


@pytest.mark.parametrize("kind", GOOD_TEXTS)
def test_good_texts_of_every_kind_break_no_rule(kind: str) -> None:
    text = GOOD_TEXTS[kind]
    assert (broken_rules(text), is_garbled(text), repeats_lines(text)) == ([], False, False)


def test_the_worst_rows_are_listed_as_a_note(check: Check) -> None:
    rows: list[object] = [chat(f"question {number}", prose(number)) for number in range(40)]
    rows[20] = chat("question 20", "ab # cd # 12 34 56 78 # " * 6)
    rows[30] = chat("question 30", "1 2 # 3 4 # 5 6 # of 7 8 # 9 " * 6)
    report = check(rows, level="deep")
    finding = found(report, "D11")
    assert (finding.severity, finding.count, sorted(finding.lines)) == ("info", 2, [21, 31])
    assert "symbols" in finding.message
    assert report.verdict == "accepted"


def test_what_most_rows_do_is_the_style_of_the_file(check: Check) -> None:
    sums = [
        chat(f"question {number}", "\n".join(f"{number} + {step} = {number + step} of the # nuts # 1 2 3" for step in range(4)) + f"\n#### {number}")
        for number in range(40)
    ]
    assert not mine(check(sums, level="deep"))


@pytest.mark.parametrize(
    ("bad", "says"),
    [("@!$%^&;:,?~'\"@#$!;:?,'~%&^@!$'\"~;:,?!@&%$^#;:'\"?,~!@$%&^ok yes no ;:'?\"~@!$%&^,#", "signs"), ("\n".join(["I like this one a lot"] * 9), "lines")],
)
def test_broken_answers_are_a_warning(check: Check, bad: str, says: str) -> None:
    rows: list[object] = [chat(f"question {number}", prose(number)) for number in range(40)]
    rows[7] = rows[9] = chat("question", bad)
    finding = found(check(rows, level="deep"), "D11")
    assert (finding.severity, finding.count, finding.lines) == ("warning", 2, (8, 10))
    assert says in finding.message


def test_a_small_good_file_is_passed_over(check: Check) -> None:
    assert not mine(check([chat(f"question {number}", prose(number)) for number in range(12)], level="deep"))
