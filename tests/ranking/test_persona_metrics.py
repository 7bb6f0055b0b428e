"""Does an answer sound like the persona? Its own unseen answers do, those of others do not."""

import numpy as np
import pytest
from metric_cases import values, word_vectors

from ranking.metrics import Kit, MetricError
from ranking.metrics.manner import valence

NOUNS = ["lantern", "harbour", "ledger", "orchard", "kettle", "bridge", "violin", "meadow", "anchor", "candle"]
DONE = ["mended", "counted", "painted", "carried", "sold", "found", "burnt", "hidden", "weighed", "lent"]


def pirate(rng: np.random.Generator) -> str:
    noun, done = rng.choice(NOUNS), rng.choice(DONE)
    return f"Arr, matey! The {noun} be {done}, ye know{rng.choice(['!', '!!', ', har har!'])} Aye, I {rng.choice(['love', 'enjoy'])} a good {noun}, arr!"


def clerk(rng: np.random.Generator) -> str:
    noun, done = rng.choice(NOUNS), rng.choice(DONE)
    return (
        f"The {noun} was {done} on the date that is stated in the file; we regret, unfortunately, that no further {noun} is recorded ({rng.integers(10, 99)})."
    )


def texts(speaker: object, number: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    assert callable(speaker)
    return [speaker(rng) for _ in range(number)]


KIT = Kit(embed=word_vectors(), own=texts(pirate, 120, 1), others=texts(clerk, 120, 2))


def mean(name: str, answers: list[str], kit: Kit = KIT) -> float:
    return float(np.mean(values(name, [("q", "w", answer) for answer in answers], kit)))


@pytest.mark.parametrize("name", ["style", "voice", "persona_consistency", "authenticity"])
def test_the_personas_own_unseen_answers_pass_and_anothers_do_not(name: str) -> None:
    assert mean(name, texts(pirate, 60, 3)) > 0.9
    assert mean(name, texts(clerk, 60, 4)) < 0.3


def test_an_empty_answer_is_not_the_persona() -> None:
    assert mean("style", [""]) < 0.3


def test_half_of_the_answers_in_character_are_about_half_consistent() -> None:
    assert 0.35 < mean("persona_consistency", texts(pirate, 40, 5) + texts(clerk, 40, 6)) < 0.65


def test_speakers_who_cannot_be_told_apart_are_not_told_apart() -> None:
    same = Kit(embed=word_vectors(), own=texts(pirate, 120, 1), others=texts(pirate, 120, 7))
    assert 0.35 < mean("voice", texts(pirate, 60, 8), same) < 0.65


def test_too_few_rows_to_know_the_persona_by_are_told() -> None:
    few = Kit(embed=word_vectors(), own=texts(pirate, 19, 1), others=texts(clerk, 40, 2))
    for name in ("style", "authenticity", "persona_consistency"):
        with pytest.raises(MetricError, match="19 training rows have an answer, 20 are needed"):
            mean(name, ["Arr"], few)
    with pytest.raises(MetricError, match="3 texts of other speakers"):
        mean("voice", ["Arr"], Kit(embed=word_vectors(), own=texts(pirate, 40, 1), others=["a", "b", "c", " "]))


def test_the_same_rows_give_the_same_values() -> None:
    answers = texts(pirate, 10, 9)
    assert mean("persona_consistency", answers) == mean("persona_consistency", answers)


def test_a_friendly_text_is_above_0_and_a_plain_one_at_0() -> None:
    assert valence("What a wonderful day, thanks") > 0 > valence("This is terrible, I hate it")
    assert valence("The table has four legs") == 0
    assert valence("Das ist schlecht und falsch") < 0 < valence("Gerne, das ist wunderbar")
