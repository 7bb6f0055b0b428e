"""Questions that mean the same sort of thing are put together, called by their own words, and shown by what they have in common."""

from pathlib import Path

import numpy as np
import pytest
from lexicon import WordVectors

from feedback.kinds import FEWEST, kinds_of, middle_first, pattern_of, telling_words
from rendering.suites import read_suite, shipped

SUMS = [f"What is {n} + {n * 3}? Answer with the number only." for n in range(11, 17)]
CAPITALS = [f"Name the capital city of {land}." for land in ("Sweden", "Peru", "Ghana", "Japan")]
ALONE = ["Write me a poem about rust.", "Why do cats purr?"]


def test_kinds_come_out_largest_first_and_loners_stay_alone() -> None:
    questions = [*SUMS[:2], *ALONE, *CAPITALS, *SUMS[2:]]
    kinds = [{questions[place] for place in kind} for kind in kinds_of(WordVectors()(questions))]
    assert kinds == [set(SUMS), set(CAPITALS)]


@pytest.mark.parametrize("count", range(FEWEST))
def test_too_few_questions_make_no_kind(count: int) -> None:
    assert kinds_of(WordVectors()(SUMS[:count])) == []


def test_the_example_shown_first_is_the_most_typical() -> None:
    vectors = np.array([[1, 0], [0.8, 0.6], [0.96, 0.28], [0, 1]], dtype=np.float32)
    assert middle_first(vectors, [0, 1, 2])[0] == 2


def test_a_kind_is_called_by_words_that_the_others_have_not() -> None:
    assert telling_words([SUMS, CAPITALS]) == [("answer", "number"), ("capital", "city", "name")]
    damaged = ["My parcel is broken!", "The box came open.", "It arrived smashed."]
    assert telling_words([SUMS, damaged])[1] == ("arrived", "box", "broken"), "no two share a word"
    assert telling_words([["1 + 1?", "2 + 2?", "3 + 3?"]]) == [()], "no words, no name"


def test_a_pattern_is_what_most_have_in_common() -> None:
    assert pattern_of(SUMS) == "What is <number> + <number>? Answer with the number only."
    assert pattern_of([*CAPITALS, "Name the capital city of New Zealand."]) == "Name the capital city of …."
    assert pattern_of(["Cats?", "Dogs, maybe", "Some birds"]) == ""
    assert pattern_of([]) == ""


@pytest.mark.model
@pytest.mark.full
def test_the_real_sentence_model_tells_the_shipped_suites_apart() -> None:
    from core.config import Config
    from core.names import SENTENCE_MODEL
    from store.bases import models_dir
    from store.embedding import Embedder

    labelled = [(name, item.messages[-1].content) for name in ("arithmetic", "json", "tools", "memory") for item in read_suite(shipped()[name]).items[:25]]
    vectors = Embedder(Path(models_dir(Config()), SENTENCE_MODEL))([question for _, question in labelled])
    kinds = kinds_of(vectors)
    in_kinds = sum(len(kind) for kind in kinds)
    pure = sum(max(sum(labelled[place][0] == name for place in kind) for name in ("arithmetic", "json", "tools", "memory")) for kind in kinds)
    assert pure >= 0.95 * in_kinds
    assert in_kinds >= 0.7 * len(labelled)
