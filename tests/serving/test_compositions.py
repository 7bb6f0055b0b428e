"""Adapters added up: by a request, and as a persona's set; what answers names every part."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from inference_box import START, World
from route_client import ask, base_of, client_of

from core.answering import AnswerRules
from core.wire import Desired
from serving.activation import Agent
from serving.api import Service, create_app
from serving.engines.port import Part
from serving.engines.stub import StubEngine
from serving.routing import Served, Table, mixed, sets_of

A, B, C = "a" * 64, "b" * 64, "c" * 64
RULED = AnswerRules(system="Be brief.")
ENGINE = StubEngine("tiny", max_new_tokens=16)
BASE = base_of(ENGINE)


def served(alias: str, release: str, **changes: object) -> Served:
    return Served(model=f"{alias}@v1", created=2, release=release, alias=alias, **changes)  # type: ignore[arg-type]


WORK, PLAY, TONE = served("ada/work", A), served("ada/play", B, rules=RULED), served("shared/tone", C)
ALIASES = {"ada/work": WORK, "ada/play": PLAY, "shared/tone": TONE, "bob/main": BASE}


def table(shared: dict[str, dict[str, float]] | None = None) -> Table:
    return Table(base=BASE, aliases=ALIASES, releases={one.model: one for one in (WORK, PLAY, TONE)}, sets=sets_of(BASE, ALIASES, shared or {}))


@pytest.fixture(scope="module")
def client() -> TestClient:
    for release in (A, B, C):
        ENGINE._loaded[release] = release
    return client_of(ENGINE, table({"ada": {"shared/tone": 0.5}}))


def test_a_request_adds_adapters_up(client: TestClient) -> None:
    response = ask(client, model="ada/work", adapters=[{"name": "shared/tone", "scale": 0.5}])
    answer = response.json()
    assert answer["choices"][0]["message"]["content"].startswith(f"[stub {A[:12]}+{C[:12]}*0.5]")
    assert answer["model"] == "ada/work@v1+shared/tone@v1*0.5"
    assert response.headers["x-lorad-release"] == f"{A}*1,{C}*0.5"
    assert answer["system_fingerprint"] == f"lorad-{A[:12]}", "the main one, which the history of releases knows"
    assert answer["id"].startswith(f"chatcmpl-{A[:12]}-")


def test_upon_the_base_the_first_adapter_is_the_main_one(client: TestClient) -> None:
    answer = ask(client, model="tiny", adapters=[{"name": "shared/tone@v1", "scale": 2}, {"name": "ada/play"}]).json()
    assert answer["model"] == "shared/tone@v1*2+ada/play@v1"
    assert answer["choices"][0]["message"]["content"].startswith(f"[stub {C[:12]}*2+{B[:12]}]")


def test_what_adds_up_to_one_release_is_that_release(client: TestClient) -> None:
    for adapters in ([{"name": "ada/work"}], [{"name": "ada/work", "scale": 0.25}, {"name": "ada/work@v1", "scale": 0.75}]):
        response = ask(client, model="tiny", adapters=adapters)
        assert (response.json()["model"], response.headers["x-lorad-release"]) == ("ada/work@v1", A)
    response = ask(client, model="ada/work", adapters=[{"name": "ada/work", "scale": -1}])
    assert (response.json()["model"], response.headers["x-lorad-release"]) == ("tiny", "base")


def test_an_adapter_that_is_not_here_is_named(client: TestClient) -> None:
    found = ask(client, model="ada/work", adapters=[{"name": "shared/wit"}])
    assert found.status_code == 404
    assert "'shared/wit'" in found.json()["error"]["message"]


def test_a_personas_name_is_its_adapters_and_the_shared_ones(client: TestClient) -> None:
    answer = ask(client, model="ada").json()
    assert answer["model"] == "ada/play@v1+ada/work@v1+shared/tone@v1*0.5"
    assert "ada" in [card["id"] for card in client.get("/v1/models").json()["data"]]
    assert client.get("/v1/models/ada").json()["parent"] == "tiny"
    assert ask(client, model="bob").json()["model"] == "tiny", "a persona without a release is answered by the base"


def test_a_set_of_which_a_part_is_missing_is_not_served() -> None:
    assert sets_of(BASE, ALIASES, {"ada": {"shared/wit": 1.0}}).keys() == {"bob"}
    assert sets_of(BASE, {"shared/tone": TONE}, {}) == {}, "shared adapters are nobody's persona"


def test_a_mixture_of_mixtures_keeps_the_names_of_its_parts() -> None:
    both = mixed(BASE, [(WORK, 1.0), (TONE, 0.5)])
    again = mixed(BASE, [(both, 2.0), (PLAY, 1.0), (TONE, -1.0)])
    assert again.mixture == (Part(release=A, scale=2.0), Part(release=B, scale=1.0))
    assert again.model == "ada/work@v1*2+ada/play@v1"
    assert again.rules == RULED, "the main one has none"


# ---------------------------------------------------------------- on a box


@pytest.fixture
def agent(world: World) -> Iterator[Agent]:
    agent = world.agent()
    yield agent
    agent.engine.close()


def test_a_set_is_swapped_as_one_and_stays_loaded_while_it_answers(world: World, agent: Agent) -> None:
    first, tone = world.release(None, alias="ada/work"), world.release(None, alias="shared/tone")
    world.fence += 1
    world.write_wish(Desired(fence=world.fence, aliases=dict(world.wishes), fences=dict(world.fences), made_at=START, sets={"ada": {"shared/tone": 0.5}}))
    agent.tick()
    with agent.routes.pin("ada") as pinned:
        assert pinned.blend == (Part(release=first), Part(release=tone, scale=0.5))
        second = world.pack(alias="ada/work", version=2)
        world.send(second)
        world.wish(second, first, alias="ada/work")
        third = world.pack(alias="ada/work", version=3)
        agent.tick()
        assert agent.routes.find("ada").model == "ada/work@v2", "the newer wish has no set: the persona's adapters alone"
        world.send(third)
        world.wish(third, second, alias="ada/work")
        agent.tick()
        assert {first, tone} <= set(agent._manifests), "a request still needs it"
    agent.tick()
    assert first not in agent._manifests


def test_the_service_says_which_releases_a_set_came_from(world: World, agent: Agent) -> None:
    work, tone = world.release(None, alias="ada/work"), world.release(None, alias="ada/play")
    agent.tick()
    client = TestClient(create_app(Service(engine=agent.engine, routes=agent.routes, is_ready=True)))
    assert ask(client, model="ada").headers["x-lorad-release"] == f"{tone}*1,{work}*1"
