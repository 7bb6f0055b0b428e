"""The process: its locks, its port, its end; and requests that go on while releases change under them."""

import json
import ssl
import threading
from functools import partial
from pathlib import Path

import httpx
from guarded_box import certificate
from serving_process import ServingProcess, wait_until

from core.access import Scope
from store.apikeys import add_api_key
from store.wire import read_capacity

LONG = " ".join(["word"] * 30_000)  # a stream of it is larger than the buffers between server and client


def test_two_commands_make_keys_and_a_box(process: ServingProcess) -> None:
    process.write_config(serving={"home": "", "trust": ""})
    process.start()
    home = process.config.parent / "var"
    assert (home / "keys" / "release.key").stat().st_mode & 0o077 == 0
    capacity = read_capacity(home / "serving" / "out" / "capacity.json")
    assert capacity is not None
    assert (capacity.engine, capacity.base_sha256) == ("stub", "stub")
    assert process.child is not None
    assert capacity.pid == process.child.pid
    process.terminate()
    assert process.wait() == 0


def test_a_box_with_only_the_public_key_makes_no_private_one(process: ServingProcess) -> None:
    (process.world.keys / "release.key").unlink()
    process.start()
    assert [path.name for path in process.world.keys.iterdir()] == ["release.pub"]


def test_a_second_server_of_the_home_is_refused(process: ServingProcess) -> None:
    process.start()
    second = ServingProcess(process.config.parent)
    child = second.launch()
    assert child.wait(60) == 75
    assert process.child is not None
    assert f"pid {process.child.pid}" in second.log.read_text()
    assert process.ask().status_code == 200


def test_a_port_in_use_is_named_before_the_model_is_loaded(process: ServingProcess, tmp_path: Path) -> None:
    process.start()
    other = ServingProcess(tmp_path / "other")
    other.port = process.port
    other.write_config(backend="peft", models_dir="nothing here")
    child = other.launch()
    assert child.wait(60) == 1
    assert f"port {process.port} on 127.0.0.1 is in use" in other.log.read_text()
    assert "PORT_IN_USE" in other.log.read_text()


def test_a_missing_base_is_told_with_what_to_do(process: ServingProcess) -> None:
    process.write_config(backend="peft", models_dir="nothing here")
    process.launch()
    assert process.wait() == 1
    assert "lorad models pull" in process.log.read_text()


def is_live(process: ServingProcess, release: str) -> bool:
    return process.world.live() == release


def has_more(answers: list[httpx.Response], count: int) -> bool:
    return len(answers) > count


def stream(process: ServingProcess, client: httpx.Client) -> httpx.Response:
    """A long stream of which nothing but the headers was read yet."""
    body = {"model": "default/main", "messages": [{"role": "user", "content": LONG}], "stream": True, "max_tokens": 200_000}
    return client.send(client.build_request("POST", f"{process.address}/v1/chat/completions", json=body), stream=True)


def text_of(response: httpx.Response) -> str:
    chunks = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert chunks[-1] == "[DONE]"
    return "".join(json.loads(chunk)["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1])


def test_a_stream_that_runs_during_a_swap_ends_as_it_began(process: ServingProcess) -> None:
    process.start()
    first = process.world.release(None)
    wait_until(lambda: process.ask().headers["x-lorad-release"] == first, "the first release is live")
    with httpx.Client(timeout=60) as client:
        response = stream(process, client)
        previous, releases = first, [first]
        for version in (2, 3):
            previous = process.world.release(previous, version=version)
            releases.append(previous)
            wait_until(lambda: process.ask().headers["x-lorad-release"] == releases[-1], "the next release is live")
        assert response.headers["x-lorad-release"] == first
        text = text_of(response)
    assert text == f"[stub {first[:12]}] {LONG}"


def test_no_request_is_dropped_or_mixed_while_releases_change(process: ServingProcess) -> None:
    process.start()
    stop = threading.Event()
    answers: list[httpx.Response] = []
    lost: list[httpx.Response] = []

    def ask() -> None:
        with httpx.Client(timeout=60) as client:
            body = {"model": "default/main", "messages": [{"role": "user", "content": "a b c d e f g h"}]}
            while not stop.is_set():
                response = client.post(f"{process.address}/v1/chat/completions", json=body)
                (answers if response.status_code == 200 else lost).append(response)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    live: str | None = None
    for version in range(1, 6):
        live = process.world.release(live, version=version)
        wait_until(partial(is_live, process, live), "the release is live")
        wait_until(partial(has_more, answers, len(answers) + 8), "requests go on")
    stop.set()
    for asker in askers:
        asker.join(60)
    assert lost == []
    assert len({answer.headers["x-lorad-release"] for answer in answers}) == 6, "the base and five releases answered"
    for answer in answers:
        mark = answer.headers["x-lorad-release"][:12]
        assert answer.json()["choices"][0]["message"]["content"] == f"[stub {mark}] a b c d e f g h"
        assert answer.json()["system_fingerprint"] == f"lorad-{mark}"


def test_sigterm_lets_a_stream_finish_and_ends_with_0(process: ServingProcess) -> None:
    process.start()
    with httpx.Client(timeout=60) as client:
        response = stream(process, client)
        process.terminate()
        wait_until(lambda: "Shutting down" in process.log.read_text(), "it shuts down")
        assert text_of(response).endswith("word")
    assert process.wait() == 0


def test_a_client_that_goes_away_lets_its_release_go(process: ServingProcess) -> None:
    process.start()
    with httpx.Client(timeout=60) as client:
        stream(process, client).close()
    assert process.ask().status_code == 200
    process.terminate()
    assert process.wait() == 0, "no abandoned stream holds the end back"


def test_killed_while_serving_it_serves_the_same_release_again(process: ServingProcess) -> None:
    process.start()
    release = process.world.release(None)
    wait_until(lambda: process.ask().headers["x-lorad-release"] == release, "the release is live")
    process.kill()
    process.start()
    assert process.ask().headers["x-lorad-release"] == release
    assert [line.event for line in process.world.ledger] == ["live", "restored"]


def test_a_process_with_keys_and_tls_logs_each_request_as_json(process: ServingProcess) -> None:
    certificate(process.config.parent)
    process.write_config(serving={"tls_cert": "cert.pem", "tls_key": "key.pem"})
    _, key = add_api_key(process.world.box, "one", (Scope.INFER,), process.world.clock.now())
    trusting = ssl.create_default_context(cafile=str(process.config.parent / "cert.pem"))
    process.launch()
    with httpx.Client(base_url=f"https://localhost:{process.port}", verify=trusting, timeout=60) as client:
        wait_until(lambda: "ready at https://127.0.0.1" in process.log.read_text(), "it is ready")
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code == 200
    process.terminate()
    assert process.wait() == 0
    lines = [json.loads(line) for line in process.log.read_text().splitlines()]
    assert [(line["path"], line["status"]) for line in lines if line.get("action") == "request"] == [("/v1/models", 401), ("/v1/models", 200)]
    assert key not in process.log.read_text()
