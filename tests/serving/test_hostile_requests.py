"""Requests that are meant to hurt, on real connections: too large, too slow, two in one, by a foreign name. Attacks S23 and S24."""

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from guarded_box import CHAT, Guarded, body, certificate, guarded, heard, listening, say
from inference_box import World
from starlette.types import Receive, Scope, Send

from core.errors import ConfigError
from serving.access import connection as connections
from serving.access.exchange import Exchange
from serving.access.guard import Access, Guard

HOST = b"Host: localhost\r\n"
HIDDEN = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def box(world: World) -> Iterator[Guarded]:
    with guarded(world, max_body_kb=64) as made:
        yield made


@pytest.fixture
def port(box: Guarded) -> Iterator[int]:
    with listening(box) as made:
        yield made


def status(answer: bytes) -> int:
    """Of the first answer."""
    return int(answer.split(b" ", 2)[1]) if answer else 0


def post(*headers: bytes, content: bytes = b"") -> bytes:
    return b"POST " + CHAT.encode() + b" HTTP/1.1\r\n" + HOST + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + content


def answers(port: int) -> bool:
    return httpx.post(f"http://localhost:{port}{CHAT}", json=body()).status_code == 200


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("two lengths in one", post(b"Content-Length: 5", b"Transfer-Encoding: chunked", content=b"0\r\n\r\n" + HIDDEN)),
        ("two lengths", post(b"Content-Length: 0", b"Content-Length: 40", content=HIDDEN)),
        ("a list of lengths", post(b"Content-Length: 0, 40", content=HIDDEN)),
        ("a length with a sign", post(b"Content-Length: +0", content=HIDDEN)),
        ("an unknown coding", post(b"Transfer-Encoding: xchunked", content=b"0\r\n\r\n" + HIDDEN)),
        ("a coding in disguise", post(b"Transfer-Encoding : chunked", content=b"0\r\n\r\n" + HIDDEN)),
        ("a header that goes on in the next line", b"GET /health HTTP/1.1\r\n" + HOST + b"X: 1\r\n\x0bTransfer-Encoding: chunked\r\n\r\n" + HIDDEN),
        ("no host", b"GET /v1/models HTTP/1.1\r\n\r\n" + HIDDEN),
        ("two hosts", b"GET /v1/models HTTP/1.1\r\n" + HOST + b"Host: other\r\n\r\n" + HIDDEN),
        ("a NUL in a header", b"GET /v1/models HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n" + HIDDEN),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_request_that_could_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_answered(port: int, name: str, raw: bytes) -> None:
    answer = say(port, raw)
    assert status(answer) in (400, 501), name
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answers(port)


def test_heads_are_bounded(port: int) -> None:
    many = b"".join(b"X-%d: 1\r\n" % number for number in range(10_000))
    assert status(say(port, b"GET /health HTTP/1.1\r\n" + HOST + many + b"\r\n")) in (400, 431)
    assert status(say(port, b"GET /health HTTP/1.1\r\n" + HOST + b"X: " + b"y" * (1 << 20) + b"\r\n\r\n")) in (400, 431)
    few = b"".join(b"X-%d: 1\r\n" % number for number in range(101))
    assert status(say(port, b"GET /health HTTP/1.1\r\n" + HOST + few + b"Connection: close\r\n\r\n")) == 431
    assert answers(port)


def test_bodies_are_bounded_in_size_however_they_come(port: int) -> None:
    assert status(say(port, post(b"Content-Length: 99999999999"))) == 413, "by what it says of itself"
    chunk = b"2000\r\n" + b" " * 0x2000 + b"\r\n"
    assert status(say(port, post(b"Transfer-Encoding: chunked", content=chunk * 9))) == 413, "by what came"
    tiny = b"1\r\n \r\n" * 60_000 + b"0\r\n\r\n"
    assert status(say(port, post(b"Transfer-Encoding: chunked", b"Connection: close", content=tiny))) in (400, 413), "a bomb of small chunks"
    assert answers(port)


def test_a_body_that_drips_is_given_up(box: Guarded, port: int) -> None:
    box.opened.access.body_s = 0.2
    begun = time.monotonic()
    answer = say(port, post(b"Content-Length: 100", content=b"{"))
    assert status(answer) == 408
    assert b"body_too_slow" in answer
    assert time.monotonic() - begun < 5
    assert answers(port)


def test_connections_that_say_nothing_or_only_half_a_head_end(box: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.5)
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 30)
    with listening(box) as port:
        silent = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(60)]
        for connection in silent[::2]:
            connection.sendall(b"GET /health HTTP/1.1\r\nX-Slow: ")
        assert [heard(connection) for connection in silent] == [b""] * 60
        for connection in silent:
            connection.close()
        assert answers(port), "as soon as they have ended"


def test_a_head_that_drips_ends_though_every_byte_comes_in_time(box: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.3)
    with listening(box) as port, socket.create_connection(("127.0.0.1", port), timeout=0.05) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nX-Slow: ")
        deadline = time.monotonic() + 20
        ended = False
        while not ended and time.monotonic() < deadline:
            try:
                connection.sendall(b"a")
                ended = connection.recv(1) == b""
            except TimeoutError:  # nothing yet: the next byte
                continue
            except ConnectionError:
                ended = True
        assert ended


def test_a_page_that_points_its_own_name_at_us_is_refused(box: Guarded) -> None:
    client = box.client()
    for host in ("evil.example", "evil.example:8765", "localhost.evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "[::2]", ""):
        answer = client.post(CHAT, json=body(), headers={"host": host})
        assert (answer.status_code, answer.json()["error"]["code"]) == (421, "host_not_allowed"), host
    for host in ("localhost", "LOCALHOST:8765", "127.0.0.1:1", "[::1]:8765", "localhost."):
        assert client.post(CHAT, json=body(), headers={"host": host}).status_code == 200, host
    for origin in ("https://evil.example", "null", "http://localhost.evil.example"):
        assert client.post(CHAT, json=body(), headers={"origin": origin}).status_code == 421, origin
    assert client.post(CHAT, json=body(), headers={"origin": "http://localhost:3000"}).status_code == 200


def test_with_keys_any_name_will_do_unless_names_are_set(world: World) -> None:
    with guarded(world) as open_to_names:
        key = open_to_names.key()
        assert open_to_names.client(key, host="box.example").get("/v1/models").status_code == 200
    with guarded(world, hosts=["box.example"]) as strict:
        assert strict.client(key, host="BOX.example:443").get("/v1/models").status_code == 200
        assert strict.client(key, host="other.example").get("/v1/models").status_code == 421


def test_methods_that_no_route_has_are_refused(port: int, box: Guarded) -> None:
    for method in ("TRACE", "DELETE", "PUT", "PATCH", "FOO", "OPTIONS", "HEAD"):
        assert box.client().request(method, CHAT).status_code == 405, method
    assert status(say(port, b"CONNECT localhost:22 HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")) in (400, 404)


def test_rates_are_kept_by_key_and_by_route(world: World) -> None:
    with guarded(world, rates={"chat": "3/minute", "*": "5/minute"}) as box:
        one, two = box.client(box.key(name="one")), box.client(box.key(name="two"))
        statuses = [one.post(CHAT, json=body()).status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        refused = one.post(CHAT, json=body())
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert [one.get("/v1/models").status_code for _ in range(3)] == [200, 200, 429], "all routes together"
        assert two.post(CHAT, json=body()).status_code == 200, "another key has its own"
        assert one.get("/health").status_code == 200


@pytest.mark.parametrize("has_begun", [False, True])
def test_what_takes_too_long_is_ended_whatever_it_waits_for(has_begun: bool) -> None:
    async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
        if has_begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.Event().wait()  # as for a client that does not read

    ended: list[Exchange] = []
    client = TestClient(Guard(hangs, Access(timeout_s=0.1, over=ended.append)))
    if has_begun:
        with pytest.raises(TimeoutError):  # the server cuts the connection: half an answer is not taken for a whole one
            client.get("/health")
    else:
        answer = client.get("/health")
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
    assert [exchange.status for exchange in ended] == [200 if has_begun else 504]


def test_tls_is_1_3_by_the_files_of_the_config(world: World, tmp_path: Path) -> None:
    certificate(tmp_path)
    with guarded(world, tls_cert=str(tmp_path / "cert.pem"), tls_key=str(tmp_path / "key.pem")) as box, listening(box) as port:
        trusting = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        assert httpx.post(f"https://localhost:{port}{CHAT}", json=body(), verify=trusting).status_code == 200
        trusting.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"https://localhost:{port}/health", verify=trusting)
        assert not say(port, b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n").startswith(b"HTTP"), "nothing in plain"
    with (
        guarded(world, tls_cert=str(tmp_path / "key.pem"), tls_key=str(tmp_path / "key.pem")) as wrong,
        pytest.raises(ConfigError, match="cannot be used"),
        listening(wrong),
    ):
        pass
