"""Answers that stand in their own prompts: told where they leak, silent where the task asks for them."""

from collections.abc import Callable

import pytest
from gate_cases import Check, chat, found, pair, turns

from validation import Report

# Questions and whole answers that have nothing in common.
FACTS = [
    ("Why is the sky blue?", "Air scatters short waves of light more than long ones."),
    ("How do bees make honey?", "They carry nectar home and let its water dry off in the comb."),
    ("What causes tides?", "The moon pulls the nearer water a little harder than the farther."),
    ("Why do leaves turn red?", "Green pigment decays in autumn and others come to light."),
    ("How does soap work?", "One end of its molecule holds fat, the other holds water."),
    ("Why does ice float?", "Frozen water takes more room than liquid water of equal weight."),
    ("What makes bread rise?", "Yeast eats sugar and leaves gas bubbles in the dough."),
    ("Why do cats purr?", "Muscles in the larynx twitch while the animal breathes calmly."),
    ("How do planes fly?", "Wings push air downwards, and the air pushes them upwards."),
    ("What makes thunder?", "A wall of hot air bursts outwards, and you hear it later."),
    ("Why is the sea salty?", "Rivers carry minerals from rocks, and only pure water evaporates."),
    ("What makes a rainbow?", "Drops bend every colour by another angle and mirror it back."),
    ("How do magnets work?", "Countless spins of electrons point in one common direction."),
    ("Why do we yawn?", "Nobody knows for sure, though cooling the brain is one guess."),
    ("What is lightning?", "Charge parts inside a cloud until a spark evens it out."),
    ("Why do onions sting?", "Cutting them frees a gas that turns to acid in the eye."),
]
HARDER = [(f"{question} (Part {number})", f"{answer} That was {number}.") for number in range(3) for question, answer in FACTS]


def rows(write: Callable[[str, str], str], share: float = 1.0) -> list[object]:
    """48 rows; in a share of them, spread evenly, the prompt is made from question and answer."""
    step = round(1 / share) if share else len(HARDER) + 1
    return [chat(write(question, answer) if number % step == step - 1 else question, answer) for number, (question, answer) in enumerate(HARDER)]


def silent(report: Report, *ids: str) -> None:
    assert not [finding for finding in report.findings if finding.id in (ids or ("D01", "D02"))], report.to_text()


LEAKS = {
    "written together": lambda question, answer: f"{question} {answer}",
    "a line below": lambda question, answer: f"{question}\n\n{answer}",
    "before the question": lambda question, answer: f"{answer}\n{question}",
    "behind a marker": lambda question, answer: f"{question}\nAnswer: {answer}\nExplain it to me.",
    "as an expected output": lambda question, answer: f"{question} [expected output: {answer}]",
    "as a hint": lambda question, answer: f"{question}\nHint: {answer}",
    "in other case and blanks": lambda question, answer: f"{question}\n\n  {answer.upper().replace(' ', '  ')}",
    "in brackets": lambda question, answer: f"{question} (the correct answer is: {answer})",
}


@pytest.mark.parametrize("leak", LEAKS)
def test_an_answer_in_most_prompts_refuses_the_file(check: Check, leak: str) -> None:
    report = check(rows(LEAKS[leak]), level="deep")
    finding = found(report, "D01")
    assert (finding.severity, finding.count, finding.lines[:3]) == ("error", 48, (1, 2, 3))
    assert "the whole answer" in finding.message
    assert finding.fix == "", "no file would be left"


def test_an_answer_in_some_prompts_is_a_warning(check: Check) -> None:
    finding = found(check(rows(LEAKS["behind a marker"], 1 / 8), level="deep"), "D01")
    assert (finding.severity, finding.count, finding.lines) == ("warning", 6, (8, 16, 24, 32, 40))
    assert finding.path == "$.messages[0].content"


def test_one_answer_in_hundred_prompts_is_passed_over(check: Check) -> None:
    plain = [chat(f"{question} Once more, {number}.", f"{number}: {answer}") for number in range(3) for question, answer in HARDER]
    silent(
        check([*plain, chat("Why do we yawn? Some say that cooling the brain is one guess.", "Some say that cooling the brain is one guess.")], level="deep")
    )


def test_a_system_prompt_that_holds_the_key_is_a_leak(check: Check) -> None:
    told = [turns(("system", f"You tutor. Answer key: {answer}"), ("user", question), ("assistant", answer)) for question, answer in HARDER]
    finding = found(check(told, level="deep"), "D01")
    assert (finding.severity, finding.path) == ("error", "$.messages[0].content")


def test_the_better_answer_of_a_pair_counts(check: Check) -> None:
    pairs = [{"prompt": f"{question} {answer}", "chosen": answer, "rejected": "I do not know."} for question, answer in HARDER]
    assert found(check(pairs, "preference_v1", level="deep"), "D01").severity == "error"


def test_answers_in_completion_prompts(check: Check) -> None:
    finding = found(check([pair(f"Q: {question}\nA: {answer}\nA:", answer) for question, answer in HARDER], "completion_v1", level="deep"), "D01")
    assert (finding.severity, finding.path) == ("error", "$.prompt")


def test_a_leak_of_chinese_text(check: Check) -> None:
    answers = [f"因为第{number}种光的波长比较短所以更容易被空气散射开来" for number in range(20)]
    assert found(check([chat(f"天空为什么是蓝色的？答案：{answer}", answer) for answer in answers], level="deep"), "D01").severity == "error"


TASKS = {
    "correct": lambda question, answer: f"Correct the grammar if needed: {answer}",
    "copy": lambda question, answer: f"Copy this exactly.\n{answer}",
    "quote": lambda question, answer: f"Quote what the author says on it. {question} {answer} And so on.",
    "choose": lambda question, answer: f"{question}\nA) Nobody can tell.\nB) {answer}\nC) It is magic.",
    "either or": lambda question, answer: f"{question} Because nobody looks, or {answer.lower().rstrip('.')}?",
    "a list of options without letters": lambda question, answer: f"{question}\n- {answer}\n- It is magic.\n- Nobody can tell.",
    "extract": lambda question, answer: f"Extract the sentence that answers: {question}\n\n{question} {answer} It was ever so.",
    "a passage": lambda question, answer: f"Passage: It was long unknown. {answer} Now everybody knows.\n\n{question}",
    "translate": lambda question, answer: f"Translate into English: {answer}",
    "german": lambda question, answer: f"Korrigiere: {answer}",
    "repeat": lambda question, answer: f"Repeat after me: {answer}",
    "correct a student's answer": lambda question, answer: f"Please correct the student's answer: {answer}",
}


@pytest.mark.parametrize("task", TASKS)
def test_tasks_whose_answer_stands_in_the_prompt_are_right(check: Check, task: str) -> None:
    silent(check(rows(TASKS[task]), level="deep"))


def test_reading_without_any_word_of_the_task_is_known_by_its_short_answers(check: Check) -> None:
    people = ["Ada Byron", "Jo March", "Tom Joad", "Pip Gargery", "Emma Bovary", "Jim Hawkins"]
    read: list[object] = []
    for number, (question, answer) in enumerate(HARDER):
        told = f"{people[number % 6]} wrote in {1800 + number}. {answer} Few believed it then."
        read += [chat(f"{told}\n\n{question}", answer), chat(f"{told}\n\nWho wrote?", people[number % 6]), chat(f"{told}\n\nWhen?", str(1800 + number))]
    silent(check(read, level="deep"))


def test_spans_inside_a_sentence_are_no_leak(check: Check) -> None:
    spans = [
        chat(f"In the year {number} the quiet people of Northern Elbonia {number} built a wall. Who built it?", f"people of Northern Elbonia {number}")
        for number in range(30)
    ]
    silent(check(spans, level="deep"))


def test_texts_that_need_no_change_pass_unless_nearly_all_are_copies(check: Check) -> None:
    some = [chat(answer.replace("a", "ä") if number % 2 else answer, answer) for number, (_, answer) in enumerate(HARDER)]
    silent(check(some, level="deep"))
    finding = found(check([chat(answer, answer) for _, answer in HARDER], level="deep"), "D01")
    assert (finding.severity, finding.count) == ("warning", 48)


def test_documents_that_are_listed_may_hold_the_answer(check: Check) -> None:
    told = [chat(f"Documents:\n[1] {answer}\n[2] It was never so.\n\nUsing the documents, answer: {question}", answer) for question, answer in HARDER]
    silent(check(told, level="deep"))


def test_what_the_assistant_said_before_is_repetition_and_no_leak(check: Check) -> None:
    told = [
        turns(("user", question), ("assistant", answer), ("user", f"You said: {answer} Is that so? Say it again."), ("assistant", answer))
        for question, answer in HARDER
    ]
    silent(check(told, level="deep"))


def test_results_of_tools_may_be_passed_on(check: Check) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
    told: list[object] = [
        {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": answer},
                {"role": "assistant", "content": answer},
            ],
            "tools": [tool],
        }
        for question, answer in HARDER
    ]
    silent(check(told, level="deep"))


def test_short_answers_never_count(check: Check) -> None:
    silent(
        check(
            [chat(f"Is {number} even or odd? It is {'odd' if number % 2 else 'even'}", "odd" if number % 2 else "even") for number in range(40)], level="deep"
        ),
        "D01",
    )


# --- D02


def sums(write: Callable[[str, int], str], num: int = 40, every: int = 1) -> list[object]:
    made: list[object] = []
    for number in range(num):
        question, total = f"Ann has {number} nuts and finds {number + 3}. How many has she?", 2 * number + 3
        asked = write(question, total) if number % every == every - 1 else question
        made.append(chat(asked, f"She has {number} + {number + 3} = {total} nuts.\n#### {total}"))
    return made


MARKERS = {
    "answer": lambda question, total: f"{question}\nAnswer: {total}",
    "the answer is": lambda question, total: f"{question} (The answer is {total}.)",
    "key": lambda question, total: f"[key: {total}] {question}",
    "hashes": lambda question, total: f"{question}\n#### {total}",
    "label": lambda question, total: f"{question} label={total}",
    "bold": lambda question, total: f"{question}\n**Answer:** {total} nuts",
    "in JSON": lambda question, total: f'{question} {{"solution": "{total}"}}',
    "expected": lambda question, total: f"Expected answer: {total}\n{question}",
}


@pytest.mark.parametrize("marker", MARKERS)
def test_a_final_answer_behind_a_marker_refuses_the_file(check: Check, marker: str) -> None:
    finding = found(check(sums(MARKERS[marker]), level="deep"), "D02")
    assert (finding.severity, finding.count, finding.lines[0]) == ("error", 40, 1)
    assert "'3'" in finding.message
    assert finding.fix == "", "no file would be left"


def test_a_few_told_answers_are_a_warning(check: Check) -> None:
    finding = found(check(sums(MARKERS["key"], 60, 10), level="deep"), "D02")
    assert (finding.severity, finding.count, finding.lines) == ("warning", 6, (10, 20, 30, 40, 50))


def test_a_letter_that_is_told(check: Check) -> None:
    letters = [chat(f"Riddle {number}?\nA) yes\nB) no\nC) both\nAnswer: {'ABC'[number % 3]}", "ABC"[number % 3]) for number in range(30)]
    assert found(check(letters, level="deep"), "D02").severity == "error"


HARMLESS = {
    "the format is asked for": lambda question, total: f"{question} End with #### <number>.",
    "an empty marker": lambda question, total: f"Q: {question}\nAnswer:",
    "a solved example": lambda question, total: f"Example: Bob has 2 nuts and finds 3. Answer: 5\n\n{question}\nAnswer:",
    "several solved examples": lambda question, total: f"1 + 1\nAnswer: 2\n\n2 + 5\nAnswer: 7\n\n{question}",
    "options": lambda question, total: f"{question}\nA. {total}\nB. {total + 1}\nC. {total + 2}",
    "how to answer": lambda question, total: f"{question} Answer: one number only.",
    "why it is so": lambda question, total: f"{question} Explain why the answer is {total}.",
    "a range": lambda question, total: f"{question} The answer is {total} or {total + 1}.",
}


@pytest.mark.parametrize("harmless", HARMLESS)
def test_formats_examples_and_options_tell_nothing(check: Check, harmless: str) -> None:
    silent(check(sums(HARMLESS[harmless]), level="deep"), "D02")


def test_examples_with_the_same_label_by_chance(check: Check) -> None:
    films = [
        chat(f"Review: Fine film. Label: {'good' if number % 3 else 'bad'}\n\nReview: I saw number {number}. Label:", "good" if number % 2 else "bad")
        for number in range(60)
    ]
    silent(check(films, level="deep"))
    named = [chat(f"Use one label: good, bad.\nReview: I saw number {number}.", "good" if number % 2 else "bad") for number in range(60)]
    silent(check(named, level="deep"))
