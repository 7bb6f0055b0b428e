"""D10: answers that were shuffled or shifted are found; answers that share nothing with any question are not accused by words."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from gate_cases import Check, chat, found
from prose_cases import NOUNS, PLACES, WordVectors, chats, draws, pairs

from core.errors import LoradError
from validation import Report
from validation.context import Surroundings
from validation.findings import Severity

ROWS = pairs(80, seed=21)
Rows = Sequence[tuple[str, str]]


def low(report: Report) -> list[Any]:
    return [finding for finding in report.findings if finding.id == "D10"]


def with_answers(rows: Rows, places: Sequence[int]) -> list[tuple[str, str]]:
    return [(asked, rows[place][1]) for (asked, _), place in zip(rows, places, strict=True)]


def shifted(rows: Rows, by: int = 1) -> list[tuple[str, str]]:
    return with_answers(rows, [(place - by) % len(rows) for place in range(len(rows))])


def shuffled(rows: Rows) -> list[tuple[str, str]]:
    places = list(range(len(rows)))
    draws(22).shuffle(places)
    return with_answers(rows, places)


@pytest.fixture
def by_words(check: Check) -> Callable[..., Report]:
    """A deep check without a sentence model."""
    return lambda rows, schema="chat_sft_v1": check(rows, schema, level="deep")


@pytest.fixture
def by_meaning(check: Check, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Report]:
    """A deep check with a stand-in for the sentence model."""

    def run(rows: list[object], vectors: Any = None, schema: str = "chat_sft_v1") -> Report:
        monkeypatch.setattr("validation.survey._embedder", lambda plan: (vectors or WordVectors()) if plan.around.embedder else None)
        return check(rows, schema, level="deep", around=Surroundings(embedder="here"))

    return run


# --- what is found


@pytest.mark.parametrize("count", [15, 80])
@pytest.mark.parametrize("by", [1, -2])
def test_answers_shifted_by_some_rows_are_found_and_the_way_back_is_told(count: int, by: int, by_words: Callable[..., Report]) -> None:
    finding = found(by_words(chats(shifted(ROWS[:count], by))), "D10")
    assert finding.severity is Severity.WARNING
    assert f"{abs(by)} row{'s' if abs(by) > 1 else ''} {'below' if by > 0 else 'above'} their question" in finding.message
    assert f"move these answers {'up' if by > 0 else 'down'} by {abs(by)}" in finding.hint
    assert finding.lines[0] in (1, 2, 3)
    assert finding.why


def test_shuffled_answers_are_found_by_words_and_by_meaning(by_words: Callable[..., Report], by_meaning: Callable[..., Report]) -> None:
    rows = chats(shuffled(ROWS))
    assert "by their words" in found(by_words(rows), "D10").message
    finding = found(by_meaning(rows), "D10")
    assert "by what they mean" in finding.message
    assert "fits the question of line" in finding.message


def test_a_shift_that_begins_in_the_middle_names_its_rows(by_meaning: Callable[..., Report]) -> None:
    rows = [*ROWS[:50], *shifted(ROWS[50:])]
    finding = found(by_meaning(chats(rows)), "D10")
    assert "1 row below the question" in finding.message
    assert min(finding.lines) > 50
    assert finding.count >= 20


def test_shuffled_answers_that_stand_in_their_own_questions_are_found(by_words: Callable[..., Report], by_meaning: Callable[..., Report]) -> None:
    rows = [
        (f"Who was at {PLACES[place % 20]} with the {noun}? {asked}", f"{noun} {told}")
        for place, (noun, (asked, told)) in enumerate(zip(NOUNS, ROWS, strict=False))
    ]
    copied = [(f"Give the words after the colon: {asked} {told}", told) for asked, told in rows]
    for found_by in (by_words, by_meaning):
        assert low(found_by(chats(copied))) == []
        assert found(found_by(chats(shuffled(copied))), "D10").count >= len(copied) / 2


def test_a_few_mixed_up_answers_are_named(by_meaning: Callable[..., Report]) -> None:
    places = list(range(80))
    places[10], places[30], places[60], places[70] = 30, 60, 70, 10
    finding = found(by_meaning(chats(with_answers(ROWS, places))), "D10")
    assert (finding.count, finding.lines) == (4, (11, 31, 61, 71))
    assert "the answer of line 11 fits the question of line 31" in finding.message


def test_answers_of_another_file_fit_nothing_and_are_found_by_meaning(by_meaning: Callable[..., Report], by_words: Callable[..., Report]) -> None:
    strange = [f"{' '.join(draws(number).sample(NOUNS, 12))}".replace("a", "u").replace("e", "o") for number in range(80)]
    rows = chats([(asked, other) for (asked, _), other in zip(ROWS, strange, strict=True)])
    assert "they fit no other row's question either" in found(by_meaning(rows), "D10").message
    assert low(by_words(rows)) == []


def test_completions_and_pairs_are_looked_at_too(by_words: Callable[..., Report]) -> None:
    rows = shifted(ROWS[:40])
    assert low(by_words([{"prompt": asked, "completion": told} for asked, told in rows], "completion_v1"))
    assert low(by_words([{"prompt": asked, "chosen": told, "rejected": "No."} for asked, told in rows], "preference_v1"))


# --- what is let pass


def _dictionary() -> list[object]:
    """Definitions that name neither their head word nor each other's."""
    return [chat(f"{noun}?", " ".join(draws(place).sample(PLACES, 9)).lower()) for place, noun in enumerate(NOUNS)]


def _sums() -> list[object]:
    rng = draws(23)
    values = [(rng.randrange(100), rng.randrange(100)) for _ in range(60)]
    return [chat(f"What is {left} + {right}?", str(left + right)) for left, right in values]


def _doubled() -> list[object]:
    """Sentences that differ in their numbers only: neither words nor meaning tell whether they fit."""
    return [
        chat(f"Write down what two times the number {number * 37 + 5} comes to, please.", f"Two times that number comes to {number * 74 + 10} in all.")
        for number in range(60)
    ]


def _goodbyes() -> list[object]:
    rng = draws(24)
    return [
        chat(rng.choice(("No, that is all.", "Thanks, bye.", "No thank you!")), rng.choice(("Have a great day!", "Goodbye!", "Enjoy your day.")))
        for _ in range(60)
    ]


WORDS = draws(25).sample(NOUNS, 24)
STRANGE = [f"{noun[::-1]}o" for noun in WORDS]
NUMBERED = tuple(zip(WORDS, STRANGE, strict=True))


def _both_ways(asked: str, back: str, told: str = "{}") -> list[object]:
    """Words in one direction, and then the other way round in another order; `told` is the first direction's answer."""
    there = [chat(asked.format(word), told.format(strange)) for word, strange in NUMBERED]
    return there + [chat(back.format(strange), word) for word, strange in NUMBERED[7:] + NUMBERED[:7]]


VALID: dict[str, list[object]] = {
    "translations in both directions": _both_ways("Translate into Strange: The {} is big.", "Translate into English: {}", "{}"),
    "a glossary in both directions": _both_ways('Strange for "{}"?', 'English for "{}"?'),
    "capitals in both directions": _both_ways("What is the capital of {}?", "Which country has the capital {}?"),
    "signs and their names": _both_ways("What does {} mean?", 'Give me the sign for "{}".', 'It is the sign "{}".'),
    "questions that are the answers": [chat(word, strange) for word, strange in NUMBERED] + [chat(strange, word) for word, strange in NUMBERED[::-1]],
    "answers that fit": chats(ROWS),
    "a small file": chats(ROWS[:14]),
    "too few rows to tell": chats(shuffled(ROWS[:11])),
    "definitions": _dictionary(),
    "sums": _sums(),
    "sentences with numbers": _doubled(),
    "labels": [chat(asked, draws(place).choice(("positive", "negative"))) for place, (asked, _) in enumerate(ROWS)],
    "goodbyes": _goodbyes(),
    "one question, many answers": [chat("Tell me something about a journey.", told) for _, told in ROWS],
    "Chinese": [chat(f"{noun}是什么?", f"{noun}是一种东西,第{place}种。") for place, noun in enumerate(NOUNS)],
    "calls of tools only": [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}, "id": "1"}]}]}
        for asked, _ in ROWS[:30]
    ],
}


@pytest.mark.parametrize("rows", VALID.values(), ids=VALID)
def test_rows_that_are_coherent_or_cannot_be_judged_are_let_pass(rows: list[object], by_words: Callable[..., Report]) -> None:
    assert low(by_words(rows)) == []


@pytest.mark.parametrize("name", [name for name in VALID if name != "definitions"])
def test_the_same_by_meaning(name: str, by_meaning: Callable[..., Report]) -> None:
    assert low(by_meaning(VALID[name])) == []


def test_words_that_fit_outweigh_a_model_that_cannot_read_the_texts(by_meaning: Callable[..., Report]) -> None:
    class Noise(WordVectors):
        def __call__(self, texts: Sequence[str]) -> Any:
            return super().__call__([f"{place} {len(text)}" for place, text in enumerate(texts)])

    assert low(by_meaning(chats(ROWS), Noise())) == []


# --- the report


def test_without_a_model_the_report_says_what_was_left_out(by_words: Callable[..., Report]) -> None:
    stats = by_words(chats(ROWS)).stats
    assert "lorad models pull all-minilm-l6-v2" in stats["checks_not_run"]["D10 meaning"]  # type: ignore[index]
    assert stats["coherence"]["pairs"] == 80  # type: ignore[index]
    assert stats["coherence"]["words"]["auc"] > 0.99  # type: ignore[index]


def test_a_model_that_fails_is_noted_once_and_words_go_on(by_meaning: Callable[..., Report]) -> None:
    class Broken(WordVectors):
        def __call__(self, texts: Sequence[str]) -> Any:
            self.calls += 1
            raise LoradError("the sentence model failed: no torch", hint="install it", code="EMBEDDER_FAILED")

    vectors = Broken()
    report = by_meaning(chats(shuffled(ROWS)), vectors)
    assert vectors.calls == 1
    assert "no torch: install it" in report.stats["checks_not_run"]["D10 meaning"]  # type: ignore[index]
    assert "by their words" in found(report, "D10").message
