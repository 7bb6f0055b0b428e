"""Asks the routes in process, and reads their streams."""

import json
from collections.abc import Sequence
from typing import Any

import httpx
from fastapi.testclient import TestClient

from serving.api import Service, create_app
from serving.engines.port import Engine
from serving.routing import Routes, Served, Table

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "hello there"}]


class LengthEmbedder:
    """A text's vector is its length and its words."""

    name = "lengths"

    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        return [[float(len(text)), float(len(text.split()))] for text in texts], sum(len(text.split()) for text in texts)


def base_of(engine: Engine) -> Served:
    """The base as it is served."""
    return Served(model=engine.base.name, created=1)


def client_of(engine: Engine, table: Table | None = None, **service: Any) -> TestClient:
    """A client of an application that answers by this engine; the base alone where no table is given."""
    routes = Routes(table or Table(base=base_of(engine)))
    return TestClient(create_app(Service(engine=engine, routes=routes, is_ready=True, **service)), raise_server_exceptions=False)


def ask(client: TestClient, **fields: Any) -> httpx.Response:
    """One chat request."""
    return client.post(CHAT, content=json.dumps({"model": "tiny", "messages": HELLO} | fields), headers={"content-type": "application/json"})


def go_on(client: TestClient, **fields: Any) -> httpx.Response:
    """One plain completion."""
    return client.post(TEXT, json={"model": "tiny", "prompt": "once upon"} | fields)


def events(response: httpx.Response) -> list[Any]:
    """The objects of a stream; [DONE] as it stands."""
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def streamed(client: TestClient, **fields: Any) -> tuple[str, list[dict[str, Any]], str]:
    """Text, calls and finish reason of a streamed chat answer."""
    *chunks, done = events(ask(client, stream=True, **fields))
    assert done == "[DONE]"
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons[:-1] == [None] * (len(chunks) - 1)
    return "".join(delta.get("content") or "" for delta in deltas), [call for delta in deltas for call in delta.get("tool_calls", [])], reasons[-1]
