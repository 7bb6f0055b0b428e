"""The OpenAI Python client, unmodified: against a real serving process, and against scripted answers over a socket."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from live_app import listening
from openai import OpenAI
from pydantic import BaseModel
from route_client import LengthEmbedder, base_of
from scripted_engine import ScriptedEngine, call_text
from serving_process import ServingProcess, wait_until

from core.errors import LoradError
from serving.api import Service, create_app
from serving.engines.port import Ask
from serving.routing import Routes, Table


@pytest.fixture(scope="module")
def release(running: ServingProcess) -> str:
    """A release that is live on the process."""
    release = running.world.release(None)
    wait_until(lambda: running.ask().headers["x-lorad-release"] == release, "the release is live")
    return release


@pytest.fixture(scope="module")
def client(running: ServingProcess) -> OpenAI:
    return OpenAI(base_url=f"{running.address}/v1", api_key="none", max_retries=0)


def test_it_lists_the_models(client: OpenAI, release: str) -> None:
    assert [model.id for model in client.models.list()] == ["tiny", "default/main", "default/main@v1"]
    assert client.models.retrieve("default/main@v1").owned_by == "lorad"


def test_it_chats(client: OpenAI, release: str) -> None:
    answer = client.chat.completions.create(model="default/main", messages=[{"role": "user", "content": "good morning"}], temperature=0)
    assert answer.choices[0].message.content == f"[stub {release[:12]}] good morning"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "default/main@v1"
    assert answer.system_fingerprint == f"lorad-{release[:12]}"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 5


def test_it_streams(client: OpenAI, release: str) -> None:
    stream = client.chat.completions.create(
        model="default/main", messages=[{"role": "user", "content": "good morning"}], stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == f"[stub {release[:12]}] good morning"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


def test_it_raises_its_own_errors(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="models here: tiny"):
        client.chat.completions.create(model="no/such", messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.BadRequestError, match=r"n: .*less than or equal to 16"):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x"}], n=17)


# ---------------------------------------------------------------- against an engine that says what the story wants


@pytest.fixture(scope="module")
def engine() -> ScriptedEngine:
    return ScriptedEngine(lambda ask: ["sunny"])


@pytest.fixture(scope="module")
def weather(engine: ScriptedEngine) -> Iterator[OpenAI]:
    """A client of an application with that engine and an embedder."""
    service = Service(engine=engine, routes=Routes(Table(base=base_of(engine))), embedder=LengthEmbedder(), is_ready=True)
    with listening(create_app(service)) as address, OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]


def test_it_calls_a_tool_and_hands_the_result_back(weather: OpenAI, engine: ScriptedEngine) -> None:
    engine.script = lambda ask: ["sunny in Oslo"] if ask.messages[-1].role == "tool" else [*call_text("weather", city="Oslo")]
    said: list[Any] = [{"role": "user", "content": "And in Oslo?"}]
    first = weather.chat.completions.create(model="tiny", messages=said, tools=TOOLS).choices[0]
    assert (first.finish_reason, first.message.content) == ("tool_calls", None)
    assert first.message.tool_calls is not None
    (call,) = first.message.tool_calls
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"city": "Oslo"}
    said += [first.message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call.id, "content": "sun"}]
    second = weather.chat.completions.create(model="tiny", messages=said, tools=TOOLS).choices[0]
    assert (second.finish_reason, second.message.content) == ("stop", "sunny in Oslo")


def test_its_stream_of_a_call_adds_up_to_the_whole_one(weather: OpenAI, engine: ScriptedEngine) -> None:
    engine.script = lambda ask: ["Let me see. ", *call_text("weather", city="Oslo")]
    with weather.chat.completions.stream(model="tiny", messages=[{"role": "user", "content": "?"}], tools=TOOLS) as stream:
        final = stream.get_final_completion().choices[0]
    assert (final.finish_reason, final.message.content) == ("tool_calls", "Let me see.")
    assert final.message.tool_calls is not None
    assert json.loads(final.message.tool_calls[0].function.arguments) == {"city": "Oslo"}


def test_it_parses_an_answer_by_a_schema(weather: OpenAI, engine: ScriptedEngine) -> None:
    class Forecast(BaseModel):
        city: str
        degrees: int

    engine.script = lambda ask: ['{"city": "Oslo", ', '"degrees": 7}']
    answer = weather.chat.completions.parse(model="tiny", messages=[{"role": "user", "content": "?"}], response_format=Forecast)
    assert answer.choices[0].message.parsed == Forecast(city="Oslo", degrees=7)
    schema = engine.asked.asks[-1].schema
    assert schema is not None
    assert list(schema["properties"]) == ["city", "degrees"]


def test_it_reads_log_probabilities_and_several_answers(weather: OpenAI, engine: ScriptedEngine) -> None:
    engine.script = lambda ask: ["it ", "is"]
    answer = weather.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "?"}], n=2, logprobs=True, top_logprobs=1)
    for choice in answer.choices:
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        assert [token.token for token in choice.logprobs.content] == ["it ", "is"]


def test_it_completes_plain_text(weather: OpenAI, engine: ScriptedEngine) -> None:
    engine.script = lambda ask: [" upon", " a time"]
    answer = weather.completions.create(model="tiny", prompt="once", logprobs=1)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (" upon a time", "stop")
    pieces = [chunk.choices[0].text for chunk in weather.completions.create(model="tiny", prompt="once", stream=True)]
    assert "".join(pieces) == " upon a time"


def test_it_embeds(weather: OpenAI) -> None:
    assert [one.embedding for one in weather.embeddings.create(model="lengths", input=["good morning"]).data] == [[12, 2]]
    with pytest.raises(openai.NotFoundError):
        weather.embeddings.create(model="other", input="x")


def test_an_engine_that_fails_raises_and_the_server_lives_on(weather: OpenAI, engine: ScriptedEngine) -> None:
    def breaks(ask: Ask) -> list[str]:
        raise LoradError("the adapter has gone bad", hint="roll back", code="LOGITS_NAN")

    engine.script = breaks
    with pytest.raises(openai.InternalServerError, match="gone bad"):
        weather.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "?"}])
    engine.script = lambda ask: ["well"]
    assert weather.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "?"}]).choices[0].message.content == "well"
