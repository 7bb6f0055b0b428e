"""vLLM's two routes: verified releases of this box alone, by their own names, and no alias moves."""

import threading
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from inference_box import World
from route_client import ask

from core.access import Scope, door_of
from serving.activation import Agent
from serving.api import Service, create_app

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


@pytest.fixture
def agent(world: World) -> Iterator[Agent]:
    """An agent at work on its own thread, as in the server."""
    agent = world.agent()
    stop = threading.Event()
    thread = threading.Thread(target=agent.run, args=(stop, lambda: None))
    thread.start()
    yield agent
    stop.set()
    thread.join()
    agent.engine.close()


@pytest.fixture
def client(agent: Agent) -> TestClient:
    return TestClient(create_app(Service(engine=agent.engine, routes=agent.routes, agent=agent, is_ready=True)), raise_server_exceptions=False)


@pytest.fixture
def releases(world: World) -> list[str]:
    """Three releases of one adapter, live one after the other on this box, before the agent starts; the last one is live."""
    agent = world.agent()
    made: list[str] = []
    for version in (1, 2, 3):
        made.append(world.release(made[-1] if made else None, version=version))
        agent.tick()
    agent.engine.close()
    return made


def folder_of(world: World, release: str) -> str:
    return str(next(world.box.releases.glob(f"*/*/v*-{release[:12]}")))


def models(client: TestClient) -> list[str]:
    return [card["id"] for card in client.get("/v1/models").json()["data"]]


def test_a_release_of_this_box_is_loaded_asked_and_let_go_and_no_alias_moves(world: World, releases: list[str], client: TestClient) -> None:
    before = world.live()
    assert "default/main@v1" not in models(client)
    response = client.post(LOAD, json={"lora_name": "default/main@v1", "lora_path": folder_of(world, releases[0])})
    assert (response.status_code, response.headers["content-type"].split(";")[0]) == (200, "text/plain"), response.text
    assert ask(client, model="default/main@v1").headers["x-lorad-release"] == releases[0]
    assert ask(client, model="default/main").headers["x-lorad-release"] == releases[2]
    again = client.post(LOAD, json={"lora_name": "default/main@v1", "lora_path": releases[0]})
    assert again.status_code == 200, "a repeat is harmless"
    assert client.post(UNLOAD, json={"lora_name": "default/main@v1", "lora_int_id": 1}).status_code == 200
    assert "default/main@v1" not in models(client)
    assert world.live() == before


@pytest.mark.parametrize("path", ["/etc", "../../etc/passwd", "", "v1-000000000000", "0" * 64])
def test_nothing_else_is_loaded(releases: list[str], client: TestClient, path: str) -> None:
    response = client.post(LOAD, json={"lora_name": "x", "lora_path": path})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "release_missing")


def test_a_name_never_stands_for_other_bytes(world: World, releases: list[str], client: TestClient) -> None:
    for name in ("default/main@v3", "default/main", "tiny", "mine"):
        response = client.post(LOAD, json={"lora_name": name, "lora_path": releases[0]})
        assert (response.status_code, response.json()["error"]["param"]) == (400, "lora_name")
    inplace = client.post(LOAD, json={"lora_name": "default/main@v1", "lora_path": releases[0], "load_inplace": True})
    assert (inplace.status_code, inplace.json()["error"]["param"]) == (400, "load_inplace")
    assert models(client) == ["tiny", "default/main", "default/main@v2", "default/main@v3"], "nothing was loaded"


def test_a_release_whose_bytes_have_changed_is_refused(world: World, releases: list[str], client: TestClient) -> None:
    weights = next(world.box.releases.glob(f"*/*/v1-{releases[0][:12]}")) / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(b"other")
    response = client.post(LOAD, json={"lora_name": "default/main@v1", "lora_path": releases[0]})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "release_missing"), response.text
    assert "default/main@v1" not in models(client)


def test_what_is_live_is_not_unloaded_by_request(releases: list[str], client: TestClient) -> None:
    for name in ("default/main@v3", "default/main", "nobody"):
        response = client.post(UNLOAD, json={"lora_name": name})
        assert (response.status_code, response.json()["error"]["code"]) == (404, "not_loaded")
    assert ask(client, model="default/main").headers["x-lorad-release"] == releases[2]


def test_both_routes_need_the_scope_admin() -> None:
    assert [door.scope for path in (LOAD, UNLOAD) if (door := door_of(path, "POST"))] == [Scope.ADMIN, Scope.ADMIN]
