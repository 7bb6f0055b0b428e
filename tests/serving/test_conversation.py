"""What the conversation service answers and keeps, in process, with the stub engine."""

import json
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from inference_box import World
from talking_box import CHAT, HISTORY, RESET, TalkingBox, talking, whole

from serving.conversation import health


@pytest.fixture
def box(world: World) -> Iterator[TalkingBox]:
    with talking(world, messages=4, tokens=40) as made:
        yield made


def error(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    code: str = response.json()["error"]["code"]
    return code


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in response.text.splitlines() if line]


def test_a_session_remembers_what_was_said(box: TalkingBox) -> None:
    first = box.say("my name is Ada")
    assert first["text"] == "[stub base] my name is Ada"
    second = box.say("what is my name", session_id=first["session_id"])
    assert second["session_id"] == first["session_id"]
    assert box.contents() == [("user", "my name is Ada"), ("assistant", first["text"]), ("user", "what is my name")]
    box.say("another session knows nothing")
    assert box.contents() == [("user", "another session knows nothing")]


def test_only_the_last_messages_go_along_and_no_more_tokens_than_allowed(box: TalkingBox) -> None:
    session = box.say("one")["session_id"]
    for text in ("two", "three", "four"):
        box.say(text, session_id=session)
    assert [content for role, content in box.contents() if role == "user"] == ["two", "three", "four"]
    box.say("long " * 40, session_id=session)
    box.say("five", session_id=session)
    assert box.contents() == [("user", "five")]  # what came before has more tokens than the budget
    told = box.client.get(HISTORY, params={"session_id": session}).json()
    assert len(told["messages"]) == 12  # the history has all of it


def test_what_does_not_fit_into_the_models_context_is_left_out_by_halves(world: World) -> None:
    with talking(world, messages=10, tokens=0) as box:
        session = box.say("one two three")["session_id"]
        for _ in range(3):
            box.say("one two three", session_id=session)
        box.engine.most_words = 12
        box.say("now", session_id=session)
        assert sum(len(content.split()) for _, content in box.contents()) <= 12
        assert box.contents()[0][0] == "user"
        box.engine.most_words = 1
        response = box.client.post(CHAT, json={"message": "two words", "session_id": session})
        assert error(response, 400) == "context_length_exceeded"


def test_a_persona_speaks_with_its_prompt_first(world: World) -> None:
    with talking(world, personas={"ada": "You are Ada."}) as box:
        release = box.release(alias="ada/main")
        answer = box.say("hello", model="ada/main")
        assert box.contents()[0] == ("system", "You are Ada.")
        assert (answer["release"], answer["model"], answer["fallback"]) == (release, "ada/main@v1", None)
        box.say("again", session_id=answer["session_id"])
        assert box.contents()[0] == ("system", "You are Ada.")  # the session keeps its model
        box.say("base", model="tiny")
        assert box.contents()[0][0] == "user"


def test_the_history_says_where_each_answer_came_from(box: TalkingBox) -> None:
    release = box.release()
    answer = box.say("hello", model="default/main")
    told = box.client.get(HISTORY, params={"session_id": answer["session_id"]}).json()
    asked, answered = told["messages"]
    assert (asked["role"], asked["content"]) == ("user", "hello")
    assert (answered["response_id"], answered["release"]) == (answer["response_id"], release)
    assert answer["response_id"].startswith(f"chatcmpl-{release[:12]}-")


def test_a_reset_session_begins_anew_and_keeps_its_history(box: TalkingBox) -> None:
    session = box.say("forget this")["session_id"]
    assert box.client.post(RESET, json={"session_id": session}).json() == {"session_id": session, "context_from": 2}
    box.say("hello", session_id=session)
    assert box.contents() == [("user", "hello")]
    assert len(box.client.get(HISTORY, params={"session_id": session}).json()["messages"]) == 4


def test_nothing_that_was_said_lies_on_the_disk_in_plain_and_a_deleted_session_is_gone(box: TalkingBox) -> None:
    session = box.say("my secret is xylophone")["session_id"]
    files = [path for path in box.world.box.root.rglob("*") if path.is_file()]
    assert any(path.parent.name == "histories" for path in files)
    for path in files:
        assert b"xylophone" not in path.read_bytes()
        assert session not in str(path)
    assert all(path.stat().st_mode & 0o077 == 0 for path in files if path.parent.name == "histories")
    assert box.client.delete(HISTORY, params={"session_id": session}).json()["deleted"] is True
    assert not list((box.world.box.root / "histories").iterdir())
    assert error(box.client.get(HISTORY, params={"session_id": session}), 404) == "session_unknown"


def test_a_session_expires(box: TalkingBox) -> None:
    session = box.say("hello")["session_id"]
    box.world.clock.seconds += 31 * 86400
    assert error(box.client.post(CHAT, json={"message": "hello", "session_id": session}), 404) == "session_unknown"


def test_what_has_expired_is_swept_from_the_disk_and_the_rest_stays(box: TalkingBox) -> None:
    old, young = box.say("old")["session_id"], box.say("young")["session_id"]
    clock, histories = box.world.clock, box.standing.histories
    paths = {session: histories._path(session) for session in (old, young)}
    os.utime(paths[old], (clock.now().timestamp(),) * 2)
    clock.seconds += 29 * 86400
    os.utime(paths[young], (clock.now().timestamp(),) * 2)
    assert histories.sweep() == 0
    clock.seconds += 2 * 86400
    assert histories.sweep() == 1
    assert (paths[old].exists(), paths[young].exists()) == (False, True)
    os.utime(paths[young], (0, 0))
    assert histories.sweep() == 0, "it looks once an hour"


def test_changed_bytes_of_a_history_are_seen_and_nothing_is_made_up(box: TalkingBox) -> None:
    session = box.say("hello")["session_id"]
    (path,) = (box.world.box.root / "histories").iterdir()
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert error(box.client.get(HISTORY, params={"session_id": session}), 500) == "history_damaged"
    other = box.say("hello")["session_id"]
    (whole_one,) = (one for one in (box.world.box.root / "histories").iterdir() if one != path)
    path.write_bytes(whole_one.read_bytes())  # another session's bytes under this name
    assert error(box.client.get(HISTORY, params={"session_id": session}), 500) == "history_damaged"
    assert box.client.get(HISTORY, params={"session_id": other}).status_code == 200


def test_a_stream_tells_the_same_as_the_whole_answer(box: TalkingBox) -> None:
    answer = box.say("hello there")
    events = events_of(box.client.post(CHAT, json={"message": "hello there", "stream": True}))
    assert [event["type"] for event in events] == ["begun", "text", "text", "text", "done"]
    assert whole(events) == events[-1]["text"] == answer["text"]
    same = ("model", "release", "finish_reason", "usage", "system_fingerprint")
    assert [events[-1][key] for key in same] == [answer[key] for key in same]


def test_a_full_line_refuses_with_retry_after_and_nothing_is_kept(box: TalkingBox) -> None:
    held = [box.line.join() for _ in range(3)]
    for stream in (False, True):
        response = box.client.post(CHAT, json={"message": "hello", "stream": stream})
        assert error(response, 429) == "queue_full"
        assert int(response.headers["retry-after"]) >= 1
    assert not (box.world.box.root / "histories").exists()
    for ticket in held:
        ticket.leave()
    assert box.say("hello")["text"] == "[stub base] hello"


def test_a_sick_adapter_is_answered_for_by_the_base_and_the_answer_says_so(box: TalkingBox) -> None:
    release = box.release()
    box.engine.sick = {release}
    for _ in range(health.FAILURES):
        answer = box.say("hello")
        assert (answer["release"], answer["text"]) == ("base", "[stub base] hello")
        assert answer["fallback"] == {"wanted": "default/main", "release": release, "code": "ENGINE_FAILED", "reason": "the adapter broke"}
    asked = len(box.engine.asked)
    assert box.say("hello")["fallback"]["code"] == "ADAPTER_RESTS"
    assert len(box.engine.asked) == asked + 1  # it was not tried again
    box.engine.sick = set()
    assert box.say("hello")["release"] == "base"
    box.world.clock.seconds += health.REST_S
    assert box.say("hello")["release"] == release
    assert box.line.num_running == 0


def test_an_answer_that_breaks_in_the_middle_is_not_mended_by_the_base(box: TalkingBox) -> None:
    box.engine.sick, box.engine.breaks_after = {box.release()}, 2
    events = events_of(box.client.post(CHAT, json={"message": "hello there", "stream": True}))
    assert [event["type"] for event in events] == ["begun", "text", "text", "error"]
    assert events[-1]["code"] == "engine_failed"
    assert not (box.world.box.root / "histories").exists()
    assert box.line.num_running == 0


def test_a_name_without_a_release_is_answered_by_the_base_and_says_so(box: TalkingBox) -> None:
    assert box.say("hello")["fallback"]["code"] == "NO_RELEASE"
    assert box.say("hello", model="tiny")["fallback"] is None
    assert error(box.client.post(CHAT, json={"message": "hello", "model": "nobody/main"}), 404) == "model_not_found"


def test_the_answer_is_as_long_as_the_user_writes_and_ends_with_a_sentence(box: TalkingBox) -> None:
    text = "word " * 70 + "end. " + "more " * 30 + "stop."
    short = box.say(text, length="short")
    assert (short["finish_reason"], short["text"].split()[-1], short["aim_tokens"]) == ("adapted", "end.", 64)
    assert box.say(text)["finish_reason"] == "stop"  # who writes much is answered at length
    assert box.say("few words")["aim_tokens"] == 64
    whole_one = box.say(text, length="long", max_tokens=80)
    assert (whole_one["finish_reason"], whole_one["usage"]["completion_tokens"]) == ("length", 80)


def test_a_session_is_answered_once_at_a_time(box: TalkingBox) -> None:
    session = box.say("hello")["session_id"]
    with box.client.websocket_connect("/api/ai-echo/ws") as socket:
        held = box.line.join()
        socket.send_json({"message": "one", "session_id": session})
        assert socket.receive_json() == {"type": "queued", "position": 1}
        assert error(box.client.post(CHAT, json={"message": "two", "session_id": session}), 409) == "session_busy"
        assert error(box.client.delete(HISTORY, params={"session_id": session}), 409) == "session_busy"
        held.leave()
        assert [socket.receive_json()["type"] for _ in range(4)][-1] == "done"
    assert len(box.client.get(HISTORY, params={"session_id": session}).json()["messages"]) == 4


@pytest.mark.parametrize("body", [{}, {"message": ""}, {"message": 1}, {"message": "x", "length": "huge"}, {"message": "x", "session_id": "x" * 65}])
def test_a_body_that_does_not_fit_is_refused(box: TalkingBox, body: dict[str, Any]) -> None:
    assert box.client.post(CHAT, json=body).status_code == 400


def test_the_page_of_routes_names_the_conversation_and_what_it_answers(box: TalkingBox) -> None:
    paths = box.client.get("/openapi.json").json()["paths"]
    assert {CHAT, HISTORY, RESET, "/api/training/status"} <= set(paths)
    assert set(paths[HISTORY]) == {"get", "delete"}
    assert {"200", "404", "429"} <= set(paths[CHAT]["post"]["responses"])
    assert box.client.get(HISTORY).status_code == 400
    assert error(box.client.get(HISTORY, params={"session_id": "../../secret"}), 404) == "session_unknown"
