"""The OpenAPI page is true: schemathesis asks what the page allows, and what it does not, and finds no server error."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from inference_box import World
from route_client import client_of
from scripted_engine import ScriptedEngine

from core.config import Config
from core.deployment import ConversationConfig
from serving.access.filters import Filters
from serving.api import Service, create_app
from serving.conversation.histories import Histories
from serving.conversation.talk import Standing
from serving.main import open_desk

schemathesis = pytest.importorskip("schemathesis")

from schemathesis.checks import (  # noqa: E402 - behind the skip
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


class FixedEmbedder:
    """Every text is the same three numbers."""

    name = "fixed"

    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        return [[0.6, 0.0, 0.8] for _ in texts], len(texts)


@pytest.fixture
def page(world: World) -> Iterator[Any]:
    """The page of an application with all routes, over a box with one release."""
    engine = ScriptedEngine(lambda ask: ["said"])
    agent = world.agent(engine)
    world.release(None)
    agent.tick()
    now = world.clock.now
    talk = Standing(box=world.box, config=ConversationConfig(), histories=Histories(world.box, 30, now), count=len, longest=16, now=now)
    service = Service(engine=engine, routes=agent.routes, agent=agent, embedder=FixedEmbedder(), timeout_s=5, is_ready=True, conversation=talk)
    desk = service.desk = open_desk(Config(), world.box, agent, service.access, Filters({}, lambda *hit: None))
    yield schemathesis.openapi.from_asgi("/openapi.json", create_app(service))
    desk.spool.close()
    engine.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_no_request_makes_the_server_fail(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.openai.adapters.LOAD_S", 0.01)  # nobody carries errands out here
    asked, answered, names = set(), Counter[int](), {"/v1/embeddings": FixedEmbedder.name}
    for found in page.get_all_operations():
        operation = found.ok()

        @settings(max_examples=15, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy() | operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))
        def ask(case: Any) -> None:
            if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
                case.body["model"] = names.get(case.path, "tiny")  # a name made up is always unknown
            response = case.call()
            answered[response.status_code] += 1
            if response.status_code == 503 and "look at /v1/models" in response.text:
                return
            case.validate_response(response, checks=CHECKS)

        ask()
        asked.add(operation.path)
    assert answered[200] > 10, answered
    assert {"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models/{model}", "/v1/load_lora_adapter"} <= asked
    assert {"/api/ai-echo/chat", "/v1/feedback"} <= asked


def test_the_page_names_every_route_and_no_status_that_is_never_answered() -> None:
    page = client_of(ScriptedEngine(lambda ask: ["x"])).get("/openapi.json").json()
    assert {"/health", "/ready", "/v1/models", "/v1/models/{model}", "/v1/chat/completions", "/v1/completions", "/v1/embeddings"} <= set(page["paths"])
    assert "422" not in page["paths"]["/v1/chat/completions"]["post"]["responses"]
    body = page["components"]["schemas"]["ChatRequest"]["properties"]
    assert {"tools", "response_format", "logprobs", "n", "adapters"} <= set(body)
    assert page["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"].keys() == {"application/json", "text/event-stream"}
