"""POST /v1/embeddings."""

import base64
import math
import struct
from pathlib import Path
from typing import Any

import pytest
from route_client import LengthEmbedder, client_of
from scripted_engine import ScriptedEngine

from core.names import SENTENCE_MODEL
from serving.embeddings import Sentences, embedder_in
from store.paths import default_models_dir

EMBEDDINGS = "/v1/embeddings"
MODELS = default_models_dir()


def post(embedder: Any, **fields: Any) -> Any:
    return client_of(ScriptedEngine(lambda ask: []), embedder=embedder).post(EMBEDDINGS, json={"model": "lengths", "input": "good morning"} | fields)


def test_texts_come_back_as_vectors_in_order() -> None:
    answer = post(LengthEmbedder(), input=["good morning", "hi"]).json()
    assert [(one["index"], one["embedding"]) for one in answer["data"]] == [(0, [12, 2]), (1, [2, 1])]
    assert (answer["object"], answer["model"], answer["usage"]) == ("list", "lengths", {"prompt_tokens": 3, "total_tokens": 3})


def test_in_base64_they_are_the_same_numbers() -> None:
    (one,) = post(LengthEmbedder(), encoding_format="base64").json()["data"]
    assert struct.unpack("<2f", base64.b64decode(one["embedding"])) == (12, 2)


@pytest.mark.parametrize("fields", [{"input": ""}, {"input": []}, {"input": ["a", ""]}, {"input": [1, 2]}, {"dimensions": 8}, {"encoding_format": "int8"}])
def test_what_cannot_be_embedded_is_told(fields: dict[str, Any]) -> None:
    response = post(LengthEmbedder(), **fields)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"].split(".")[0] == next(iter(fields))


def test_another_model_and_a_box_without_one_are_told() -> None:
    for embedder, told in ((LengthEmbedder(), "lengths"), (None, "lorad models pull")):
        response = post(embedder, model="other")
        assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
        assert told in response.json()["error"]["message"]


def test_a_box_that_never_pulled_the_model_has_none(tmp_path: Path) -> None:
    assert embedder_in(tmp_path, 1) is None


@pytest.mark.model
@pytest.mark.skipif(not (MODELS / SENTENCE_MODEL / "SEALED").exists(), reason="the sentence model was not pulled")
def test_meanings_that_are_near_have_vectors_that_are_near() -> None:
    pytest.importorskip("torch")
    texts = ["A cat sleeps on the sofa.", "Interest rates rose in March.", "The kitten naps on the couch."]
    embedder = Sentences(MODELS / SENTENCE_MODEL, threads=1)
    (cat, rates, kitten), tokens = embedder.embed(texts)
    assert tokens > 15
    assert all(math.isclose(sum(x * x for x in vector), 1, abs_tol=1e-5) for vector in (cat, rates, kitten))
    near, far = sum(map(float.__mul__, cat, kitten)), sum(map(float.__mul__, cat, rates))
    assert near > 0.5 > far + 0.3
    (alone,), _ = embedder.embed(texts[:1])
    assert max(abs(one - other) for one, other in zip(alone, cat, strict=True)) < 1e-5, "its neighbours change nothing"
