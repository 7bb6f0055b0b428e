"""API keys: who has none, a wrong one, one of another role; every route stands in the table of scopes. Attacks S20 to S22."""

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from guarded_box import CHAT, Guarded, body, guarded
from inference_box import World
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from cli.main import lorad
from core.access import DOORS, SOCKET, Scope, door_of
from core.errors import ConfigError, LoradError
from serving.access.keyring import KeyRing
from serving.api import create_app
from serving.handover import require_keys
from serving.main import bind
from store.apikeys import add_api_key, keys_path, read_api_keys, revoke_api_key
from store.boxsecret import secret_path

SOCKET_PATH = "/api/ai-echo/ws"
UNSIGNED = "eyJhbGciOiJub25lIn0.eyJzY29wZSI6ImFkbWluIn0."  # a JWT with alg none that says of itself: admin


@pytest.fixture
def box(world: World) -> Iterator[Guarded]:
    with guarded(world) as made:
        yield made


def code_of(response: object) -> str:
    found: str = response.json()["error"]["code"]  # type: ignore[attr-defined]
    return found


def test_a_key_that_lorad_keys_made_opens_the_running_server_until_it_is_revoked(box: Guarded) -> None:
    assert box.client().post(CHAT, json=body()).status_code == 200, "nobody made a key yet"
    config = box.world.root / "config.json"
    config.write_text(json.dumps({"backend": "stub", "serving": {"home": str(box.world.box.root)}}))

    def lorad_keys(*words: str) -> str:
        done = CliRunner().invoke(lorad, ["keys", *words, "--config", str(config)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    key = lorad_keys("add", "office").splitlines()[0]
    assert box.client().post(CHAT, json=body()).status_code == 401
    assert box.client(key).post(CHAT, json=body()).status_code == 200
    with pytest.raises(LoradError, match="is in force"):
        lorad_keys("add", "office")

    listed = lorad_keys("list")
    assert "office" in listed
    assert "infer" in listed
    assert key.rsplit("_", 1)[-1] not in listed + keys_path(box.world.box).read_text(), "the key itself is kept nowhere"
    for path in (keys_path(box.world.box), secret_path(box.world.box)):
        assert path.stat().st_mode & 0o777 == 0o600

    lorad_keys("revoke", "office")
    assert box.client(key).post(CHAT, json=body()).status_code == 401, "at once, and the server is not open again"
    assert box.client().post(CHAT, json=body()).status_code == 401


def test_no_key_a_wrong_one_and_a_revoked_one_are_told_apart_by_nobody(box: Guarded) -> None:
    right = box.key()
    revoked = box.key(name="gone")
    revoke_api_key(box.world.box, "gone", box.world.clock.now())
    _, identity, secret = right.split("_", 2)
    wrong = ["", "nonsense", f"lorad_{identity}_{secret[:-1]}", f"lorad_00000000_{secret}", f"lorad_{identity}_", revoked, UNSIGNED, "zwölf"]
    headers = [{"authorization": f"Bearer {key}".encode()} for key in wrong] + [{}, {"authorization": f"Basic {right}"}, {"authorization": right}]
    answers = [box.client().post(CHAT, json=body(), headers=given) for given in headers]
    assert {(answer.status_code, answer.text) for answer in answers} == {(401, answers[0].text)}
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}
    assert box.client(right).post(CHAT, json=body()).status_code == 200
    assert box.client(right).get("/nowhere").status_code == 404
    assert box.client().get("/nowhere").status_code == 401, "who has no key does not learn which paths there are"


def test_a_flood_of_wrong_keys_is_slowed_down_and_a_right_one_is_not(box: Guarded) -> None:
    key = box.key()
    flood = box.client("lorad_00000000_guess")
    answers = [flood.get("/v1/models") for _ in range(70)]
    assert [answer.status_code for answer in answers] == [401] * 60 + [429] * 10
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert box.client(key).get("/v1/models").status_code == 200


def test_every_route_stands_in_the_table_and_every_row_has_a_route(box: Guarded) -> None:
    routes = {(path, method.upper()) for path, methods in create_app(box.service).openapi()["paths"].items() for method in methods}
    routes |= {(door.path, SOCKET) for door in DOORS if SOCKET in door.methods} | {("/openapi.json", "GET")}
    found = set()
    for path, method in routes:
        door = door_of(path.replace("{model}", "default/main").replace("{completion_id}", "x"), method)
        found.add(door)
        assert door is not None, f"{method} {path} needs a row in core.access.DOORS"
        assert method in door.methods, f"{method} {path} needs a row in core.access.DOORS"
    assert found == set(DOORS), "a row without a route"


@pytest.mark.parametrize("door", [door for door in DOORS if set(door.methods) != {SOCKET}], ids=lambda door: door.path)
def test_a_route_opens_to_its_scope_alone(box: Guarded, door: object) -> None:
    path, method = door.path.replace("*", "x"), door.methods[0]  # type: ignore[attr-defined]
    keys = {scope: box.key(scope, name=scope) for scope in Scope}
    statuses = {scope: box.client(key).request(method, path, json={} if method == "POST" else None).status_code for scope, key in keys.items()}
    nobody = box.client().request(method, path, json={} if method == "POST" else None).status_code
    if door.is_open:  # type: ignore[attr-defined]
        assert nobody not in (401, 403)
        return
    assert nobody == 401
    wanted = door.scope  # type: ignore[attr-defined]
    assert {scope: status == 403 for scope, status in statuses.items()} == {scope: wanted not in (None, scope) for scope in Scope}
    assert 401 not in statuses.values()


def test_without_any_key_what_an_admin_may_stays_shut(box: Guarded) -> None:
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
        assert code_of(box.client().post(path, json={"lora_name": "a", "lora_path": "b"})) == "invalid_api_key"


def test_a_damaged_or_a_missing_file_of_keys_opens_nothing(box: Guarded) -> None:
    key = box.key()
    assert box.client(key).get("/v1/models").status_code == 200
    path = keys_path(box.world.box)
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    assert box.client().get("/v1/models").status_code == 401
    assert box.client(key).get("/v1/models").status_code == 200, "the last keys that were read stay in force"
    path.unlink()
    assert box.client().get("/v1/models").status_code == 401
    path.write_bytes(whole[:20])
    with pytest.raises(LoradError, match="is not a"):
        KeyRing(box.world.box)


def test_keys_of_a_box_whose_secret_is_another_open_nothing(world: World) -> None:
    _, key = add_api_key(world.box, "one", (Scope.INFER,), world.clock.now())
    secret_path(world.box).write_bytes(b"x" * 32)
    assert KeyRing(world.box).find(f"Bearer {key}") is None
    secret_path(world.box).chmod(0o644)
    with pytest.raises(LoradError, match="may be read by others"):
        KeyRing(world.box)


def test_a_public_address_needs_a_key_in_force(world: World) -> None:
    with bind("0.0.0.0", 0) as public, bind("127.0.0.1", 0) as private:
        require_keys([private], KeyRing(world.box).num_keys)
        with pytest.raises(ConfigError, match="is a public address and no API key is in force") as caught:
            require_keys([public], KeyRing(world.box).num_keys)
        assert (caught.value.code, "lorad keys add" in caught.value.hint) == ("PUBLIC_WITHOUT_KEYS", True)
        made, _ = add_api_key(world.box, "one", (Scope.INFER,), world.clock.now())
        require_keys([public], KeyRing(world.box).num_keys)
        revoke_api_key(world.box, made.id, world.clock.now())
        with pytest.raises(ConfigError, match="public address"):
            require_keys([public], KeyRing(world.box).num_keys)


def test_two_people_who_make_keys_lose_none(world: World) -> None:
    for name in ("one", "two"):
        add_api_key(world.box, name, (Scope.ADMIN, Scope.INFER, Scope.INFER), world.clock.now())
    keys = read_api_keys(world.box) or ()
    assert [(key.name, key.scopes) for key in keys] == [("one", (Scope.ADMIN, Scope.INFER)), ("two", (Scope.ADMIN, Scope.INFER))]
    with pytest.raises(LoradError, match="names 0 keys in force"):
        revoke_api_key(world.box, "three", world.clock.now())


def test_a_websocket_needs_a_key_and_ends_with_it(box: Guarded) -> None:
    def refused(key: str, **headers: str) -> int:
        with pytest.raises(WebSocketDenialResponse) as caught, box.client(key, **headers).websocket_connect(SOCKET_PATH):
            pass
        return caught.value.status_code

    assert refused("", origin="https://evil.example") == 421, "a foreign page may not open one where no key is needed"
    key, other = box.key(), box.key(Scope.FEEDBACK, name="feedback")
    assert [refused(""), refused("lorad_x_y"), refused(other)] == [401, 401, 403]
    with box.client(key).websocket_connect(SOCKET_PATH) as socket:
        socket.send_json({"message": "hello", "model": "tiny"})
        while (event := socket.receive_json())["type"] != "done":
            assert event["type"] != "error", event
        revoke_api_key(box.world.box, "someone", box.world.clock.now())
        socket.send_json({"message": "hello again"})
        with pytest.raises(WebSocketDisconnect) as ended:
            socket.receive_json()
        assert ended.value.code == 1008
