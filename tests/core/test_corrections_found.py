"""What the rules make of a turn after an answer."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.corrections import FLOOR, LOOKED_AT, find_correction, is_open

SYDNEY = "The capital of Australia is Sydney."
ASKED = "Sure. Do you have any allergies?"


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("No, it's Canberra, not Sydney.", "The capital of Australia is Canberra."),
        ("not sydney but Canberra", "The capital of Australia is Canberra."),
        ("Canberra instead of Sydney", "The capital of Australia is Canberra."),
        ("Nein, nicht Sydney, sondern Canberra.", "The capital of Australia is Canberra."),
        ("no, actually it's Canberra", "It's Canberra"),
        ("That\u2019s wrong. The capital is Canberra.", "The capital is Canberra."),
        ("Hmm, I think that's incorrect. The right answer is Canberra", "Canberra"),
        ("Wrong, Canberra.", "Canberra."),
        ("Das stimmt nicht. Es ist Canberra.", "Es ist Canberra."),
        ("That's not what I asked.", ""),
        ("you forgot the population", ""),
        ("wrong answer!", ""),
        ("No, please check that again.", ""),
        ("No, isn't it Canberra?", ""),
        (r"No, it's \1\g<0>, not Sydney", r"The capital of Australia is \1\g<0>."),
    ],
)
def test_what_the_turn_says_is_right_becomes_the_right_answer(said: str, right: str) -> None:
    found = find_correction(SYDNEY, said)
    assert found is not None
    assert found.right == right
    assert FLOOR <= found.confidence < 1


@pytest.mark.parametrize(
    "said", ["No problem, thanks!", "No.", "no worries", "Nein danke", "You're right, I forgot.", "Correct. Next!", "Actually, can you add a map?", "", "  "]
)
def test_thanks_and_wishes_are_no_corrections(said: str) -> None:
    assert find_correction(SYDNEY, said) is None
    assert not is_open(SYDNEY, said) or said.startswith("Actually")


def test_a_no_that_answers_the_models_question_is_a_reply() -> None:
    assert find_correction(ASKED, "No, I don't have any.") is None
    assert find_correction("Shall I book a table **for eight?**", "No, it's for seven.") is None
    assert not is_open(ASKED, "I don't have any.")
    assert find_correction(ASKED, "That's wrong, I asked for a recipe.") is not None, "an objection stays one"


def test_a_question_leaves_doubt() -> None:
    sure, doubted = find_correction(SYDNEY, "That's wrong."), find_correction(SYDNEY, "That's wrong, isn't it?")
    assert sure is not None
    assert doubted is not None
    assert doubted.confidence < sure.confidence


def test_only_the_beginning_of_a_turn_is_looked_at() -> None:
    assert find_correction(SYDNEY, "Translate this for me: " + "x" * LOOKED_AT + " no, that's wrong, it is Canberra, not Sydney") is None
    assert not is_open(SYDNEY, "x" * (LOOKED_AT + 1))


@settings(max_examples=150, deadline=None)
@given(
    st.text(max_size=600),
    st.lists(st.sampled_from(["no", ",", " ", "not", "but", "it's", "a", ".", "instead of", "actually", "wrong", "?", "(", "\\"]), max_size=300),
)
def test_no_turn_is_too_strange_or_too_slow(answer: str, words: list[str]) -> None:
    begun = time.process_time()
    find_correction(answer, "".join(words))
    find_correction(answer or "x", answer)
    assert time.process_time() - begun < 0.5
