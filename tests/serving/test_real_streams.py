"""The routes over the real base: a stream says byte for byte what the whole answer says."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from route_client import ask, client_of, events, go_on, streamed

pytest.importorskip("torch")

from real_adapters import BASE, new_engine

pytestmark = [pytest.mark.model, pytest.mark.skipif(not (BASE / "SEALED").exists(), reason="the base was not pulled")]

FRUIT = [{"role": "user", "content": "Name three fruits, with an emoji each."}]


@pytest.fixture(scope="module")
def real() -> Iterator[tuple[TestClient, str]]:
    """A client over the real base, and the base's name."""
    engine = new_engine()
    engine.open()
    yield client_of(engine), engine.base.name
    engine.close()


@pytest.mark.parametrize("fields", [{"stop": ["a"]}, {"logprobs": True, "top_logprobs": 2}])
def test_a_stream_at_temperature_0_is_the_whole_answer(real: tuple[TestClient, str], fields: dict[str, Any]) -> None:
    client, model = real
    said = {"model": model, "messages": FRUIT, "temperature": 0, "max_tokens": 10} | fields
    whole = ask(client, **said).json()["choices"][0]
    assert whole["message"]["content"]
    assert streamed(client, **said) == (whole["message"]["content"], [], whole["finish_reason"])
    if "logprobs" in fields:
        assert bytes(byte for token in whole["logprobs"]["content"] for byte in token["bytes"]).decode().startswith(whole["message"]["content"])


@pytest.mark.full
def test_a_plain_text_streams_as_it_is_answered(real: tuple[TestClient, str]) -> None:
    client, model = real
    said = {"model": model, "prompt": "The capital of France is", "temperature": 0, "max_tokens": 8, "n": 2}
    whole = go_on(client, **said).json()["choices"]
    assert whole[0]["text"] == whole[1]["text"], "at temperature 0 a seed changes nothing"
    chunks = events(go_on(client, **said, stream=True))[:-1]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks if chunk["choices"][0]["index"] == 1) == whole[1]["text"]


@pytest.mark.full
def test_an_answer_that_must_be_a_call_is_one(real: tuple[TestClient, str]) -> None:
    client, model = real
    city = {"type": "string", "enum": ["Oslo", "Bergen"]}
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": city}, "required": ["city"]}}}
    said = {"model": model, "messages": [{"role": "user", "content": "Weather in Oslo?"}], "tools": [tool], "tool_choice": "required"}
    choice = ask(client, **said, temperature=0, max_tokens=64).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls", choice
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "weather"
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] in ('{"city": "Oslo"}', '{"city": "Bergen"}')
