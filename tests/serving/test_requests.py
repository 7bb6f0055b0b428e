"""What the routes answer, in process, with the stub engine."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from inference_box import World

from serving.access.guard import MAX_BODY_BYTES
from serving.activation import Agent
from serving.api import Service, create_app

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hello there"}]


@pytest.fixture
def agent(world: World) -> Iterator[Agent]:
    ground = world.ground()
    agent = Agent(ground)
    agent.start()
    yield agent
    ground.engine.close()


@pytest.fixture
def client(agent: Agent) -> TestClient:
    return client_of(agent)


def client_of(agent: Agent, *, is_ready: bool = True) -> TestClient:
    service = Service(engine=agent._engine, routes=agent.routes, is_ready=is_ready)
    return TestClient(create_app(service), raise_server_exceptions=False)


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": HELLO} | fields


def error(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error object; every failure has this form."""
    assert response.status_code == status, response.text
    (found,) = response.json().values()
    assert list(response.json()) == ["error"]
    assert sorted(found) == ["code", "message", "param", "type"]
    assert found["message"]
    return dict(found)


def events(response: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def test_the_base_answers_before_the_first_release(client: TestClient) -> None:
    for model in ("tiny", "default/main"):
        response = client.post(CHAT, json=body(model=model))
        answer = response.json()
        assert response.headers["x-lorad-release"] == "base"
        assert (answer["model"], answer["system_fingerprint"]) == ("tiny", "lorad-base")
        assert answer["choices"][0]["message"]["content"] == "[stub base] hello there"
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}


def test_the_answer_names_the_release_that_it_came_from(world: World, agent: Agent, client: TestClient) -> None:
    release = world.release(None)
    agent.tick()
    for model in ("default/main", "default/main@v1"):
        response = client.post(CHAT, json=body(model=model))
        assert response.headers["x-lorad-release"] == release
        assert response.json()["model"] == "default/main@v1"
        assert response.json()["system_fingerprint"] == f"lorad-{release[:12]}"
        assert response.json()["choices"][0]["message"]["content"].startswith(f"[stub {release[:12]}]")
    stream = client.post(CHAT, json=body(model="default/main", stream=True))
    assert stream.headers["x-lorad-release"] == release
    assert {event["model"] for event in events(stream) if event != "[DONE]"} == {"default/main@v1"}


def test_models_are_the_base_the_aliases_and_the_loaded_releases(world: World, agent: Agent, client: TestClient) -> None:
    world.release(None, alias="support/tone", version=4)
    agent.tick()
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [card["id"] for card in listed["data"]] == ["tiny", "default/main", "support/tone", "support/tone@v4"]
    assert [card["parent"] for card in listed["data"]] == [None, "tiny", "tiny", "tiny"]
    for card in listed["data"]:
        assert sorted(card) == ["created", "id", "object", "owned_by", "parent"]
        assert client.get(f"/v1/models/{card['id']}").json() == card
    assert client.get("/v1/models/support%2Ftone").json()["id"] == "support/tone"


def test_a_stream_is_the_same_text_with_usage_when_asked(client: TestClient) -> None:
    whole = client.post(CHAT, json=body()).json()
    response = client.post(CHAT, json=body(stream=True, stream_options={"include_usage": True}))
    assert response.headers["content-type"].startswith("text/event-stream")
    *chunks, last, done = events(response)
    assert done == "[DONE]"
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert all(chunk["usage"] is None and chunk["object"] == "chat.completion.chunk" for chunk in chunks)
    assert {chunk["id"] for chunk in (*chunks, last)} == {last["id"]}
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert deltas[-1] == {}
    assert "".join(delta.get("content", "") for delta in deltas) == whole["choices"][0]["message"]["content"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]


def test_a_stream_without_the_wish_has_no_usage(client: TestClient) -> None:
    assert all("usage" not in event for event in events(client.post(CHAT, json=body(stream=True))))


@pytest.mark.parametrize("key", ["max_tokens", "max_completion_tokens"])
def test_the_limit_ends_an_answer_with_length(client: TestClient, key: str) -> None:
    answer = client.post(CHAT, json=body(**{key: 2})).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["choices"][0]["message"]["content"] == "[stub base] hello"
    assert answer["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize("stop", ["lo th", ["zzz", "lo th"]])
def test_a_stop_string_ends_an_answer_and_is_not_part_of_it(client: TestClient, stop: Any) -> None:
    answer = client.post(CHAT, json=body(stop=stop)).json()
    assert answer["choices"][0]["message"]["content"] == "[stub base] hel"
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_content_may_come_in_parts(client: TestClient) -> None:
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    answer = client.post(CHAT, json=body(messages=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}])).json()
    assert answer["choices"][0]["message"]["content"] == "[stub base] hello"


def test_fields_that_change_nothing_here_are_accepted(client: TestClient) -> None:
    harmless = {
        "user": "u",
        "metadata": {"a": "b"},
        "store": False,
        "tools": [],
        "tool_choice": "none",
        "logprobs": False,
        "response_format": {"type": "text"},
        "modalities": ["text"],
        "parallel_tool_calls": True,
        "service_tier": "auto",
        "something_new": 1,
    }
    assert client.post(CHAT, json=body(**harmless)).status_code == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0"),
        ({"messages": [{"role": "user"}]}, "messages.0"),
        ({"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]}, "messages.0.tool_calls"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [{"id": "1", "function": {"name": "f"}}]}]}, "messages.0"),
        ({"messages": "hello"}, "messages"),
        ({"model": None}, "model"),
        ({"temperature": "0.5"}, "temperature"),
        ({"temperature": 2.5}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"stop": ["1", "2", "3", "4", "5"]}, "stop"),
        ({"seed": 2**70}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"adapters": [{"name": "default/main", "scale": 9}]}, "adapters.0.scale"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "bad name"}}]}, "tools.0.function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "nobody"}}}, "tool_choice"),
        ({"functions": [{}]}, "functions"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logit_bias": {"one": 5}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"frequency_penalty": 2.5}, "frequency_penalty"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"modalities": ["audio"]}, "modalities"),
    ],
)
def test_a_body_that_cannot_be_served_is_told_by_field(client: TestClient, fields: dict[str, Any], param: str) -> None:
    found = error(client.post(CHAT, json=body(**fields)), 400)
    assert found["type"] == "invalid_request_error"
    assert found["param"].startswith(param)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"messages": NaN, "model": "tiny"}'])
def test_a_body_that_is_no_json_object_is_refused(client: TestClient, raw: bytes) -> None:
    found = error(client.post(CHAT, content=raw, headers={"content-type": "application/json"}), 400)
    assert found["param"] in (None, "messages")


def test_half_a_surrogate_pair_is_refused(client: TestClient) -> None:
    raw = b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}'
    error(client.post(CHAT, content=raw, headers={"content-type": "application/json"}), 400)


def test_an_unknown_model_is_answered_with_the_models_that_exist(client: TestClient) -> None:
    for response in (client.post(CHAT, json=body(model="support/tone")), client.get("/v1/models/support/tone")):
        found = error(response, 404)
        assert (found["code"], found["param"]) == ("model_not_found", "model")
        assert "tiny, default/main" in found["message"]


def test_unknown_routes_and_methods_are_told_in_the_same_form(client: TestClient) -> None:
    error(client.get("/v2/nothing"), 404)
    error(client.put("/v1/models"), 405)


def test_a_prompt_that_does_not_fit_is_refused_before_anything_is_computed(client: TestClient) -> None:
    found = error(client.post(CHAT, json=body(max_tokens=2**20)), 400)
    assert found["code"] == "context_length_exceeded"


def test_a_body_over_the_limit_is_refused(client: TestClient) -> None:
    error(client.post(CHAT, json=body(user="x" * MAX_BODY_BYTES)), 413)

    def dripping() -> Iterator[bytes]:
        for _ in range(20):
            yield b"x" * (MAX_BODY_BYTES // 10)

    error(client.post(CHAT, content=dripping()), 413)


def test_until_the_model_is_loaded_only_health_says_yes(agent: Agent) -> None:
    client = client_of(agent, is_ready=False)
    assert client.get("/health").status_code == 200
    for response in (client.get("/ready"), client.get("/v1/models"), client.post(CHAT, json=body())):
        assert error(response, 503)["code"] == "model_loading"
        assert response.headers["retry-after"] == "1"


def test_ready_names_what_each_alias_serves(world: World, agent: Agent, client: TestClient) -> None:
    release = world.release(None, alias="support/tone")
    agent.tick()
    assert client.get("/ready").json() == {"ready": True, "releases": {"default/main": None, "support/tone": release}}


def test_a_release_is_let_go_when_its_answer_ends(world: World, agent: Agent, client: TestClient) -> None:
    first = world.release(None)
    agent.tick()
    client.post(CHAT, json=body(model="default/main"))
    client.post(CHAT, json=body(model="default/main", stream=True))
    client.post(CHAT, json=body(model="default/main", max_tokens=2**21))
    second = world.release(first, version=2)
    agent.tick()
    world.release(second, version=3)
    agent.tick()
    assert first not in agent._manifests


def test_an_engine_that_breaks_is_a_500_and_ends_a_stream_with_an_error(agent: Agent, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(self: object) -> str:
        raise RuntimeError("a secret of the engine")

    monkeypatch.setattr("serving.engines.stub.Echo.step", breaks)
    whole = client.post(CHAT, json=body())
    assert error(whole, 500)["code"] == "engine_failed"
    streamed = client.post(CHAT, json=body(stream=True))
    first, last = events(streamed)
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert last["error"]["code"] == "engine_failed"
    assert "secret" not in whole.text + streamed.text, "what broke inside is for the log alone"
