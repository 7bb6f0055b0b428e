"""The gRPC door: verified releases of this box alone, over a unix socket and over TLS with certificates on both sides (ATTACK-S35)."""

import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import Authority
from inference_box import World
from serving_process import ServingProcess, free_port, wait_until

from core.deployment import GrpcConfig
from core.errors import ConfigError, LoradError
from core.wire import Outcome
from rpc import lorad_pb2 as pb
from rpc.lorad_pb2_grpc import AdaptersStub
from serving.activation import Agent
from serving.rpcdoor import MESSAGE_BYTES, OPTIONS, Deadlines, RpcDoor
from serving.service import Service

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 30
Code = grpc.StatusCode


@pytest.fixture
def releases(world: World) -> list[str]:
    """Four releases of one adapter, live one after the other on this box; the last one is live, the one before it beside it."""
    agent = world.agent()
    made: list[str] = []
    for version in (1, 2, 3, 4):
        made.append(world.release(made[-1] if made else None, version=version))
        agent.tick()
    agent.engine.close()
    return made


@pytest.fixture
def agent(world: World, releases: list[str]) -> Iterator[Agent]:
    """An agent at work on its own thread, as in the server."""
    agent = world.agent()
    stop = threading.Event()
    thread = threading.Thread(target=agent.run, args=(stop, lambda: None))
    thread.start()
    yield agent
    stop.set()
    thread.join()
    agent.engine.close()


@contextmanager
def opened(agent: Agent, listen: str, deadlines: Deadlines | None = None, **config: Any) -> Iterator[Service]:
    """A door that listens there."""
    service = Service(engine=agent.engine, routes=agent.routes, agent=agent, is_ready=True)
    door = RpcDoor(service, GrpcConfig(listen=listen, **config), deadlines)
    door.open()
    try:
        yield service
    finally:
        door.close()


@pytest.fixture
def listen(tmp_path: Path) -> str:
    return f"unix:{tmp_path}/s"


@pytest.fixture
def stub(agent: Agent, listen: str) -> Iterator[Any]:
    """A client over a unix socket."""
    with opened(agent, listen, grace_s=60), grpc.insecure_channel(listen) as channel:
        yield AdaptersStub(channel)


def load(stub: Any, release: str, **fields: Any) -> pb.LoadAdapterResponse:
    return stub.LoadAdapter(pb.LoadAdapterRequest(adapter_id=release, **fields), timeout=WAIT_S)


def unload(stub: Any, name: str) -> float:
    left: float = stub.UnloadAdapter(pb.UnloadAdapterRequest(adapter_id=name), timeout=WAIT_S).leaves_in_s
    return left


def states(stub: Any) -> dict[str, str]:
    """Model name -> how it stands."""
    return {one.model: pb.State.Name(one.state) for one in stub.ListAdapters(pb.ListAdaptersRequest(), timeout=WAIT_S).adapters}


def refusal(call: Callable[[], Any]) -> tuple[Any, str]:
    """(gRPC code, lorad's code) that a call fails with."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), dict(caught.value.trailing_metadata() or ()).get("lorad-code", "")


def folder_of(world: World, release: str) -> Path:
    return next(world.box.releases.glob(f"*/*/v*-{release[:12]}"))


# What it does


def test_a_release_is_loaded_listed_and_let_go_after_its_grace_and_no_name_moves(world: World, agent: Agent, releases: list[str], stub: Any) -> None:
    lines = len(world.ledger)
    assert states(stub) == {"default/main@v1": "STORED", "default/main@v2": "STORED", "default/main@v3": "LOADED", "default/main@v4": "LIVE"}
    answer = load(stub, "default/main@v1", adapter_path=f"{folder_of(world, releases[0])}/")
    assert (answer.model, answer.release) == ("default/main@v1", releases[0])
    assert load(stub, releases[0], scale=1.0) == answer, "a repeat is harmless"
    assert states(stub)["default/main@v1"] == "LOADED"
    assert unload(stub, releases[0]) == 60
    world.clock.seconds = 50
    assert unload(stub, "default/main@v1") == 10, "a repeat does not put it off"
    assert states(stub)["default/main@v1"] == "LEAVING"
    assert agent.routes.find("default/main@v1").release == releases[0], "it answers until it leaves"
    load(stub, "default/main@v1")
    world.clock.seconds = 70
    assert states(stub)["default/main@v1"] == "LOADED", "who loads it again keeps it"
    unload(stub, "default/main@v1")
    world.clock.seconds = 131
    wait_until(lambda: states(stub)["default/main@v1"] == "STORED", "it has left")
    assert unload(stub, "default/main@v1") == 0, "what is gone is gone"
    assert len(world.ledger) == lines


def test_a_scale_is_remembered_under_a_name_of_its_own(agent: Agent, releases: list[str], stub: Any) -> None:
    assert load(stub, releases[0], scale=0.5).model == "default/main@v1*0.5"
    served = agent.routes.find("default/main@v1*0.5")
    assert [(part.release, part.scale) for part in served.blend] == [(releases[0], 0.5)]
    assert (served.label, served.fingerprint) == (f"{releases[0]}*0.5", agent.routes.find("default/main@v1").fingerprint)
    assert states(stub)["default/main@v1*0.5"] == "LOADED"
    assert unload(stub, "default/main@v1*0.5") == 60
    for scale in (5.0, float("nan"), float("inf"), 0.12345678):
        assert refusal(lambda scale=scale: load(stub, releases[0], scale=scale)) == (Code.INVALID_ARGUMENT, "scale_unfit")
    assert refusal(lambda: load(stub, releases[0], scale=0.5, replace_id="default/main")) == (Code.INVALID_ARGUMENT, "scale_unfit")


def test_an_admin_moves_a_name_and_the_ledger_says_who(world: World, agent: Agent, releases: list[str], stub: Any) -> None:
    assert load(stub, releases[0], replace_id=releases[3]).model == "default/main@v1"
    line = world.ledger[-1]
    assert (line.event, line.alias, line.release, line.previous, line.version, line.fence) == ("moved", "default/main", releases[0], releases[3], 1, 4)
    assert line.actor.endswith(f"at unix:{world.root}/s")
    assert line.reason == f"moved by {line.actor}"
    assert (agent.routes.find("default/main").release, world.live()) == (releases[0], releases[0])
    assert (world.state().outcome, world.state().code, world.state().wanted) == (Outcome.REFUSED, "MOVED", releases[3]), "the wish is overruled"
    lines = len(world.ledger)
    for name in (releases[3], "default/main", releases[0]):
        load(stub, releases[0], replace_id=name)
    assert len(world.ledger) == lines, "a repeat writes nothing"
    assert states(stub)["default/main@v3"] == "LEAVING", "what was beside the live one has its grace"
    assert refusal(lambda: load(stub, releases[1], replace_id=releases[3])) == (Code.FAILED_PRECONDITION, "incumbent_changed")
    assert refusal(lambda: load(stub, releases[1], replace_id="ada/home")) == (Code.FAILED_PRECONDITION, "adapter_mismatch")
    load(stub, releases[1], replace_id="default/main")
    assert world.live() == releases[1]


def test_what_was_moved_is_served_after_a_restart_and_a_wish_for_it_makes_peace(world: World, agent: Agent, releases: list[str], stub: Any) -> None:
    load(stub, releases[0], replace_id="default/main")
    again = world.agent()
    assert (again.routes.find("default/main").release, world.ledger[-1].event) == (releases[0], "restored")
    world.wish(releases[0], releases[0])  # as the training box does for a wish that was overruled
    again.tick()
    assert (world.state().outcome, world.live()) == (Outcome.LIVE, releases[0])
    again.engine.close()


# What it refuses


@pytest.mark.parametrize("name", ["", "/etc", "../../etc/passwd", "default/main", "x" * 70_000, "default/main@v1*0.5"])
def test_what_names_no_release_is_an_invalid_argument(stub: Any, name: str) -> None:
    assert refusal(lambda: load(stub, name)) == (Code.INVALID_ARGUMENT, "adapter_id")


def test_a_path_is_that_releases_own_or_none(world: World, releases: list[str], stub: Any) -> None:
    for path in ("/etc", str(folder_of(world, releases[1])), f"{folder_of(world, releases[0])}/../", "adapter"):
        assert refusal(lambda path=path: load(stub, releases[0], adapter_path=path)) == (Code.INVALID_ARGUMENT, "adapter_path")
    assert states(stub)["default/main@v1"] == "STORED"


def test_what_is_not_here_what_is_live_and_what_has_rotted(world: World, releases: list[str], stub: Any) -> None:
    for name in ("0" * 64, "default/main@v9"):
        assert refusal(lambda name=name: load(stub, name)) == (Code.NOT_FOUND, "release_missing")
        assert refusal(lambda name=name: unload(stub, name)) == (Code.NOT_FOUND, "release_missing")
    assert refusal(lambda: unload(stub, "default/main@v4")) == (Code.FAILED_PRECONDITION, "not_loaded")
    weights = folder_of(world, releases[0]) / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(b"other")
    assert refusal(lambda: load(stub, releases[0])) == (Code.DATA_LOSS, "release_missing")
    assert refusal(lambda: load(stub, releases[0], replace_id="default/main")) == (Code.NOT_FOUND, "release_missing"), "it was dropped"
    assert world.live() == releases[3]


def test_what_the_guard_rolled_back_stays_out(agent: Agent, releases: list[str], stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent.ledger, "is_refused", lambda release: release == releases[0])
    assert refusal(lambda: load(stub, releases[0])) == (Code.FAILED_PRECONDITION, "refused_before")
    assert refusal(lambda: load(stub, releases[0], replace_id="default/main")) == (Code.FAILED_PRECONDITION, "refused_before")


def test_no_memory_is_told_as_such(agent: Agent, releases: list[str], stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(release: str, folder: Path) -> None:
        raise MemoryError

    monkeypatch.setattr(agent.engine.inner, "load", fail)
    assert refusal(lambda: load(stub, releases[0])) == (Code.RESOURCE_EXHAUSTED, "out_of_memory")


def test_health_is_answered_while_the_base_is_loaded_and_nothing_else(agent: Agent, listen: str) -> None:
    with opened(agent, listen) as service, grpc.insecure_channel(listen) as channel:
        stub = AdaptersStub(channel)
        service.is_ready = False
        told = stub.Health(pb.HealthRequest(), timeout=WAIT_S)
        assert (told.ready, told.engine, told.base) == (False, "stub", "tiny")
        assert refusal(lambda: states(stub)) == (Code.UNAVAILABLE, "not_ready")
        service.is_ready = True
        assert stub.Health(pb.HealthRequest(), timeout=WAIT_S).ready


# ATTACK-S35


def test_attack_s35_no_reflection_no_message_over_4_mb_and_a_deadline_of_the_servers_own(
    agent: Agent, listen: str, releases: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()
    monkeypatch.setattr(agent.engine.inner, "load", lambda release, folder: free.wait(WAIT_S))
    bounds = [("grpc.max_send_message_length", -1)]
    with opened(agent, listen, Deadlines(read_s=0.3, answer_s=0.5)), grpc.insecure_channel(listen, options=bounds) as channel:
        for name in ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"):
            ask = channel.stream_stream(name, request_serializer=bytes, response_deserializer=bytes)
            assert refusal(lambda ask=ask: list(ask(iter([b""]), timeout=WAIT_S)))[0] == Code.UNIMPLEMENTED
        stub = AdaptersStub(channel)
        assert refusal(lambda: load(stub, "x" * MESSAGE_BYTES))[0] == Code.RESOURCE_EXHAUSTED
        assert refusal(lambda: load(stub, "x" * (MESSAGE_BYTES - 100))) == (Code.INVALID_ARGUMENT, "adapter_id")
        assert refusal(lambda: stub.LoadAdapter(pb.LoadAdapterRequest(adapter_id=releases[0])))[0] == Code.DEADLINE_EXCEEDED, "the client set none"
        free.set()
        wait_until(lambda: states(stub)["default/main@v1"] == "LOADED", "the load went on")
        silent = channel.stream_unary("/lorad.v1.Adapters/Health", request_serializer=bytes, response_deserializer=bytes)
        held = threading.Event()

        def nothing() -> Iterator[bytes]:
            held.wait(WAIT_S)
            yield from ()

        assert refusal(lambda: silent(nothing(), timeout=WAIT_S))[0] == Code.DEADLINE_EXCEEDED, "a request that never comes holds nothing for long"
        held.set()
        assert refusal(lambda: silent(iter([b"\xff\xff"]), timeout=WAIT_S))[0] in (Code.INTERNAL, Code.INVALID_ARGUMENT), "no message at all"
        assert stub.Health(pb.HealthRequest(), timeout=WAIT_S).ready
    assert dict(OPTIONS)["grpc.max_receive_message_length"] == 4 * 1024 * 1024


# Who may come in


def test_only_its_owner_opens_the_socket_and_no_second_server_takes_it(agent: Agent, listen: str) -> None:
    path = Path(listen.removeprefix("unix:"))
    with opened(agent, listen):
        found = path.stat()
        assert (stat.S_ISSOCK(found.st_mode), found.st_mode & 0o177, found.st_uid) == (True, 0, os.geteuid())
        with pytest.raises(LoradError, match="another program listens") as caught:
            RpcDoor(Service(engine=agent.engine, routes=agent.routes), GrpcConfig(listen=listen)).open()
        assert caught.value.code == "PORT_IN_USE"
    assert not path.exists()


def test_over_a_network_both_sides_show_a_certificate(world: World, agent: Agent, releases: list[str]) -> None:
    ours, foreign = Authority(world.root / "ours"), Authority(world.root / "foreign")
    files = {"cert": ours.issue("localhost"), "key": ours.folder / "localhost.key", "client_ca": ours.certificate}
    address = f"127.0.0.1:{free_port()}"
    with opened(agent, address, **{name: str(path) for name, path in files.items()}):
        target, options = address, (("grpc.ssl_target_name_override", "localhost"),)

        def ask(channel: grpc.Channel) -> Any:
            with channel:
                return load(AdaptersStub(channel), releases[0], replace_id="default/main")

        assert ask(grpc.secure_channel(target, ours.client("ops\n{}"), options)).release == releases[0]
        assert world.ledger[-1].actor.startswith("ops?{} (certificate ")
        for credentials in (foreign.client("ops", trusts=ours), ours.client(None)):
            assert refusal(lambda credentials=credentials: ask(grpc.secure_channel(target, credentials, options)))[0] == Code.UNAVAILABLE
        assert refusal(lambda: ask(grpc.insecure_channel(target)))[0] == Code.UNAVAILABLE
        second = RpcDoor(Service(engine=agent.engine, routes=agent.routes), GrpcConfig(listen=address, **{name: str(path) for name, path in files.items()}))
        with pytest.raises(LoradError, match="cannot listen") as caught:
            second.open()
        assert caught.value.code == "ADDRESS_UNUSABLE"


@pytest.mark.parametrize(
    ("listen", "files", "code"),
    [
        ("127.0.0.1:50051", (), "GRPC_FILES"),
        ("127.0.0.1:50051", ("cert", "key"), "GRPC_FILES"),
        ("127.0.0.1:50051", ("cert", "key", "client_ca"), "GRPC_FILES"),
        ("unix:relative", (), "GRPC_ADDRESS"),
        ("unix:/" + "x" * 107, (), "GRPC_ADDRESS"),
        ("unix-abstract:name", (), "GRPC_ADDRESS"),
        ("dns:///example.org", (), "GRPC_ADDRESS"),
        ("localhost:70000", (), "GRPC_ADDRESS"),
        ("unix:/dev/null", (), "GRPC_ADDRESS"),
    ],
)
def test_a_door_that_cannot_be_locked_is_not_opened(agent: Agent, tmp_path: Path, listen: str, files: tuple[str, ...], code: str) -> None:
    (tmp_path / "empty.pem").touch()
    config = GrpcConfig(listen=listen, **{name: str(tmp_path / "empty.pem") for name in files})
    with pytest.raises(ConfigError, match=r"grpc|is no socket") as caught:
        RpcDoor(Service(engine=agent.engine, routes=agent.routes), config).open()
    assert caught.value.code == code


# The whole


def test_the_server_opens_the_door_and_closes_it_when_it_ends(process: ServingProcess) -> None:
    path = process.config.parent / "s"
    process.write_config(serving={"grpc": {"listen": f"unix:{path}"}})
    process.start()
    release = process.world.release(None)
    with grpc.insecure_channel(f"unix:{path}") as channel:
        stub = AdaptersStub(channel)
        wait_until(lambda: states(stub) == {"default/main@v1": "LIVE"}, "the release is live")
        assert load(stub, release, scale=0.5).model == "default/main@v1*0.5"
    assert process.ask(model="default/main@v1*0.5").json()["model"] == "default/main@v1*0.5"
    process.terminate()
    assert process.wait() == 0
    assert not path.exists()
    assert '"method": "LoadAdapter"' in process.log.read_text()


def test_the_stubs_are_those_of_the_proto(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("grpc_tools")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    sys.modules.pop("stubs", None)
    import stubs

    assert stubs.stale() == [], "run scripts/stubs.py"
    fields = [(field.name, field.number) for field in pb.LoadAdapterRequest.DESCRIPTOR.fields]
    assert fields == [("adapter_path", 1), ("adapter_id", 2), ("scale", 3), ("replace_id", 4)]
