"""Who goes away gives their place to the next, in the line as well as in the middle of an answer. In process."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from inference_box import World
from serving_process import wait_until
from talking_box import CHAT, SOCKET, TalkingBox, talking


@pytest.fixture
def box(world: World) -> Iterator[TalkingBox]:
    with talking(world) as made:
        yield made


async def post_and_go(box: TalkingBox, body: dict[str, Any], mark: bytes) -> None:
    """A POST whose client goes as soon as it has read `mark`; at once for an empty one."""
    gone, given = asyncio.Event(), []
    if not mark:
        gone.set()

    async def receive() -> dict[str, Any]:
        if not given:
            given.append(True)
            return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if mark and mark in message.get("body", b""):
            gone.set()

    headers = [(b"content-type", b"application/json"), (b"host", b"testserver")]
    scope = {"type": "http", "method": "POST", "path": CHAT, "raw_path": CHAT.encode(), "query_string": b"", "headers": headers, "root_path": ""}
    scope |= {
        "scheme": "http",
        "server": ("testserver", 80),
        "client": ("127.0.0.1", 1),
        "http_version": "1.1",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
    }
    await box.client.app(scope, receive, send)  # type: ignore[arg-type]


@pytest.mark.parametrize(("stream", "mark"), [(True, b"queued"), (False, b"")])
def test_a_request_that_waits_and_is_given_up_leaves_the_line(box: TalkingBox, stream: bool, mark: bytes) -> None:
    held = box.line.join()
    before = time.monotonic()
    asyncio.run(asyncio.wait_for(post_and_go(box, {"message": "hello", "stream": stream}, mark), 30))
    assert time.monotonic() - before < 30
    assert (box.line.num_running, box.line.num_waiting) == (1, 0)
    assert not box.engine.asked
    held.leave()


def test_a_stream_that_is_given_up_lets_go_of_the_engine_and_keeps_nothing(box: TalkingBox) -> None:
    release, box.engine.stalls_after = box.release(), 3
    asyncio.run(asyncio.wait_for(post_and_go(box, {"message": "word " * 200, "stream": True}, b'"text"'), 30))
    assert (box.line.num_running, box.line.num_waiting) == (0, 0)
    assert not box.agent.routes.pinned().get(release)
    assert not (box.world.box.root / "histories").exists()


def test_a_websocket_that_is_closed_leaves_the_line_while_it_waits(box: TalkingBox) -> None:
    held = box.line.join()
    with box.client.websocket_connect(SOCKET) as socket:
        socket.send_json({"message": "hello"})
        assert socket.receive_json() == {"type": "queued", "position": 1}
        socket.close()
        wait_until(lambda: box.line.num_waiting == 0, "the place is free", 10)
    held.leave()
    assert box.say("hello")["text"] == "[stub base] hello"


def test_each_message_of_a_websocket_counts_as_a_request_of_its_own(box: TalkingBox) -> None:
    over = []
    box.service.access.over = over.append
    with box.client.websocket_connect(SOCKET) as socket:
        for _ in range(2):
            socket.send_json({"message": "hello"})
            while socket.receive_json()["type"] != "done":
                pass
        wait_until(lambda: len(over) == 2, "both are told", 10)
    assert all(one.response.startswith("chatcmpl-base-") and one.status == 200 and one.finish == "stop" for one in over[:2])
    assert len({one.response for one in over[:2]}) == 2
