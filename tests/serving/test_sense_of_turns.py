"""The classifier of turns: what it learns from, and with the real sentence model, what it finds beyond the rules."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from labelled_turns import CORRECTS, OTHERS

from core.corrections import find_correction, is_open
from core.names import SENTENCE_MODEL
from serving.detection import LEAST_SENSE
from serving.meanings import Meanings, MeaningsError, sentence_model_in
from serving.sense import TURNS, Sense, fitted

MODELS = Path.home() / ".cache" / "lorad" / "models"


def test_of_labelled_turns_rules_alone_find_half_of_the_corrections_and_nothing_else() -> None:
    assert [said for answer, said in OTHERS if find_correction(answer, said)] == []
    found = sum(find_correction(*turn) is not None for turn in CORRECTS)
    assert found >= 0.5 * len(CORRECTS), f"{found} of {len(CORRECTS)}"


def test_no_turn_is_learnt_twice_or_also_tested() -> None:
    turns = [json.loads(line) for line in TURNS.read_text().splitlines()]
    texts = [turn["text"] for turn in turns]
    assert len(set(texts)) == len(texts)
    assert not set(texts) & {said for _, said in (*CORRECTS, *OTHERS)}
    assert {turn["corrects"] for turn in turns} == {True, False}


def test_the_weights_tell_apart_what_they_have_learnt() -> None:
    draw = np.random.default_rng(0)
    vectors = np.concatenate([draw.normal(1, 1, (30, 8)), draw.normal(-1, 1, (90, 8))]).astype(np.float32)
    labels = [True] * 30 + [False] * 90
    scores = np.column_stack([vectors, np.ones(120)]) @ fitted(vectors, labels)
    assert np.mean((scores > 0) == labels) > 0.95


def test_a_turn_near_a_learnt_correction_is_likely_one() -> None:
    asked: list[int] = []

    def embed(texts: Sequence[str]) -> "np.typing.NDArray[np.float32]":
        asked.append(len(texts))
        return np.array([[1.0, 0.0] if "wrong" in text or "mistake" in text else [0.0, 1.0] for text in texts], dtype=np.float32)

    sense = Sense(Path("unused"), embed)
    assert sense("what a mistake") > 0.5 > sense("thanks")
    assert asked == [1, len(TURNS.read_text().splitlines()), 1], "it learns once"


def test_a_folder_without_a_model_is_none_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    assert sentence_model_in(tmp_path) is None
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(MeaningsError, match="cannot be read"):
        Meanings(tmp_path)


def test_the_servers_sense_brings_no_torch_with_it() -> None:
    code = "import sys, serving.detection, serving.sense, serving.meanings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.model
def test_with_the_sentence_model_three_of_four_corrections_are_found_and_hardly_anything_else() -> None:
    sense = Sense(MODELS / SENTENCE_MODEL)

    def is_found(turn: tuple[str, str]) -> bool:
        return find_correction(*turn) is not None or (is_open(*turn) and sense(turn[1]) >= LEAST_SENSE)

    found, wrong = sum(map(is_found, CORRECTS)), sum(map(is_found, OTHERS))
    assert found >= 0.7 * len(CORRECTS), f"{found} of {len(CORRECTS)}"
    assert wrong <= 0.02 * len(OTHERS), f"{wrong} of {len(OTHERS)}"


@pytest.mark.model
@pytest.mark.full
def test_both_forms_of_the_sentence_model_mean_the_same() -> None:
    from serving.engines.sentences import SentenceModel

    texts = ["Hello.", "A cat sleeps on the sofa, and nobody knows why.", "Nein, das stimmt nicht. " * 4]
    ours, theirs = Meanings(MODELS / SENTENCE_MODEL)(texts), SentenceModel(MODELS / SENTENCE_MODEL, 1).vectors(texts)[0]
    assert np.abs(ours - np.array(theirs)).max() < 1e-5
