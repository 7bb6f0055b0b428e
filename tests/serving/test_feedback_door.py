"""POST /v1/feedback: an answer is named by its id or told whole; what is taken is durable, what is not is refused in words."""

import errno
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from guarded_box import CHAT, Guarded, body, guarded, said
from inference_box import World
from serving_process import ServingProcess, wait_until

from core.access import Scope
from core.signals import Signal, SignalKind
from serving import desk as desks
from store.spool import spooled_after

FEEDBACK = "/v1/feedback"
TALK = [{"role": "user", "content": "The capital of Switzerland?"}, {"role": "assistant", "content": "Zurich"}]
MODEL = "default/main"


@pytest.fixture
def box(world: World) -> Iterator[Guarded]:
    with guarded(world) as made:
        yield made


@pytest.fixture
def keeping(world: World) -> Iterator[Guarded]:
    """A box that captures."""
    with guarded(world, capture={"enabled": True}) as made:
        yield made


def send(box: Guarded, **fields: Any) -> httpx.Response:
    response: httpx.Response = box.client().post(FEEDBACK, json={"consent": True} | fields)
    return response


def kept(box: Guarded) -> list[Signal]:
    """What is in the spool; it takes nothing more."""
    assert box.service.desk is not None
    box.service.desk.spool.close()
    return [one.signal for one in spooled_after(box.world.box.spool, 0, 1000)]


def refusal(response: httpx.Response) -> tuple[int, str, str]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


def test_a_correction_by_response_id_holds_what_was_asked_and_answered(keeping: Guarded) -> None:
    answer = keeping.client().post(CHAT, json=body("hello there", model=MODEL)).json()
    response = send(keeping, response_id=answer["id"], kind="correction", correction="Good day!", user="ada@example.org", metadata={"page": "7"})
    assert response.status_code == 200, response.text
    (signal,) = kept(keeping)
    assert (signal.kind, signal.adapter, signal.source, signal.consent) == (SignalKind.CORRECTION, MODEL, "api", True)
    assert signal.input == ({"role": "user", "content": "hello there"},)
    assert (signal.wrong_output, signal.correct_output) == (answer["choices"][0]["message"]["content"], "Good day!")
    assert (signal.response, signal.release) == (answer["id"], "base")
    assert len(signal.user) == 32
    assert "ada" not in signal.user
    assert dict(signal.metadata) == {"page": "7"}
    assert response.json() == {"object": "feedback", "id": signal.id, "kind": "correction", "adapter": MODEL, "release": "base"}


def test_the_same_click_twice_is_one_signal(box: Guarded) -> None:
    click = {"kind": "positive", "messages": TALK, "model": MODEL, "user": "u"}
    assert send(box, **click).json()["id"] == send(box, **click).json()["id"]
    assert send(box, **click | {"user": "v"}).json()["id"] != send(box, **click).json()["id"]


def test_without_capture_the_conversation_is_sent_along(box: Guarded) -> None:
    assert refusal(send(box, response_id="chatcmpl-base-0123456789abcdef01234567", kind="mistake")) == (400, "response_unknown", "response_id")
    assert send(box, response_id="chatcmpl-base-0123456789abcdef01234567", kind="mistake", messages=TALK, model=MODEL).status_code == 200
    (signal,) = kept(box)
    assert (signal.wrong_output, signal.correct_output) == ("Zurich", "")
    assert signal.input == ({"role": "user", "content": TALK[0]["content"]},)


def test_praise_keeps_the_answer_as_the_right_one(box: Guarded) -> None:
    assert send(box, kind="positive", messages=TALK, model=MODEL).status_code == 200
    (signal,) = kept(box)
    assert (signal.wrong_output, signal.correct_output) == ("", "Zurich")


def test_a_call_of_a_tool_that_was_wrong_is_kept_in_words(box: Guarded) -> None:
    call = {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}]}
    earlier = [{"role": "user", "content": "2 and 3?"}, call, {"role": "tool", "tool_call_id": "c1", "content": "5"}]
    assert send(box, kind="correction", correction="5", messages=[*earlier, call], model=MODEL).status_code == 200
    (signal,) = kept(box)
    assert "add" in signal.wrong_output
    assert signal.input[1]["tool_calls"] == [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}]
    assert signal.input[2] == {"role": "tool", "content": "5", "tool_call_id": "c1"}


def test_feedback_on_a_release_that_is_long_gone_is_taken_for_its_adapter(keeping: Guarded) -> None:
    world, client = keeping.world, keeping.client()
    first = world.release(None, alias="support/tone", version=1)
    keeping.agent.tick()
    asked = client.post(CHAT, json=body("hello", model="support/tone")).json()["id"]
    second = world.release(first, alias="support/tone", version=2)
    keeping.agent.tick()
    third = world.release(second, alias="support/tone", version=3)
    keeping.agent.tick()
    assert world.live("support/tone") == third
    with_capture = send(keeping, response_id=asked, kind="mistake").json()
    whole = send(keeping, response_id=f"chatcmpl-{first[:12]}-{'0' * 24}", kind="mistake", messages=TALK).json()
    assert [(one["adapter"], one["release"]) for one in (with_capture, whole)] == [("support/tone", first)] * 2


def test_a_release_that_nobody_knows_is_taken_where_the_model_is_named(box: Guarded) -> None:
    stranger = {"response_id": f"chatcmpl-{'ab' * 6}-{'0' * 24}", "kind": "mistake", "messages": TALK}
    assert refusal(send(box, **stranger)) == (400, "model_missing", "model")
    taken = send(box, **stranger, model=MODEL).json()
    assert (taken["adapter"], taken["release"]) == (MODEL, "ab" * 6)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"kind": "correction", "messages": TALK, "model": MODEL}, (400, "value_error", None)),
        ({"kind": "correction", "correction": "  ", "messages": TALK, "model": MODEL}, (400, "value_error", None)),
        ({"kind": "mistake", "correction": "Berne", "messages": TALK, "model": MODEL}, (400, "value_error", None)),
        ({"kind": "positive"}, (400, "value_error", None)),
        ({"kind": "shrug", "messages": TALK, "model": MODEL}, (400, "literal_error", "kind")),
        ({"kind": "positive", "messages": TALK[:1], "model": MODEL}, (400, "answer_missing", "messages")),
        ({"kind": "mistake", "messages": TALK[1:], "model": MODEL}, (400, "question_missing", "messages")),
        ({"kind": "mistake", "messages": TALK}, (400, "model_missing", "model")),
        ({"kind": "mistake", "messages": TALK, "model": "nobody/here"}, (404, "model_not_found", "model")),
        ({"kind": "mistake", "messages": TALK, "model": "NO SUCH NAME"}, (404, "model_not_found", "model")),
        ({"kind": "mistake", "messages": TALK, "model": MODEL, "metadata": {"a": "b" * 600}}, (400, "too_long", "metadata.a")),
        ({"kind": "mistake", "messages": TALK, "model": MODEL, "consent": None}, (400, "bool_type", "consent")),
        ({"kind": "correction", "correction": "b" * 32_001, "messages": TALK, "model": MODEL}, (400, "too_long", "correction")),
        ({"kind": "mistake", "messages": [{"role": "user", "content": "a" * 128_001}], "model": MODEL}, (400, "too_long", "messages")),
        ({"kind": "mistake", "messages": TALK * 257, "model": MODEL}, (400, "too_long", "messages")),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_of_it_is_kept(box: Guarded, fields: dict[str, Any], expected: tuple[int, str, str]) -> None:
    status, code, param = refusal(send(box, **fields))
    assert (status, code, param or None) == expected
    assert kept(box) == []


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"kind": "correction", "correction": "b" * 40_000, "messages": TALK}, "correction: 40000 characters are too many, the limit is 32000"),
        ({"kind": "mistake", "messages": [*TALK[:1] * 3, {"role": "user", "content": "a" * 200_000}]}, "characters are too many, the limit is 128000"),
    ],
)
def test_what_is_too_long_is_told_with_its_field_its_size_and_the_limit(box: Guarded, fields: dict[str, Any], told: str) -> None:
    response = send(box, **fields, model=MODEL)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "too_long")
    assert told in response.json()["error"]["message"]
    assert "bbb" not in response.text
    assert "aaa" not in response.text
    assert send(box, kind="correction", correction="b" * 32_000, messages=TALK, model=MODEL).status_code == 200
    assert len(kept(box)) == 1


def test_what_a_client_says_passes_the_content_filters_as_what_it_asks_does(world: World) -> None:
    rules = {
        "weapons": {"pattern": "(?i)secret plan", "does": "refuse", "on": "in"},
        "cards": {"pattern": r"\b\d{4}-\d{4}\b", "does": "redact", "on": "both"},
    }
    card, call = "card 1234-5678 of mine", {"id": "c1", "type": "function", "function": {"name": "pay", "arguments": '{"card": "1234-5678"}'}}
    talk = [{"role": "user", "content": card}, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c1", "content": card}]
    with guarded(world, filters=rules) as box:
        words = {"messages": [*talk, {"role": "assistant", "content": card}], "correction": card, "metadata": {"1234-5678": card}}
        assert send(box, kind="correction", model=MODEL, **words).status_code == 200
        for field, value in (
            ("correction", "the Secret Plan"),
            ("metadata", {"note": "the Secret Plan"}),
            ("messages", [{"role": "user", "content": "a Secret Plan"}]),
        ):
            refused = send(box, kind="correction", model=MODEL, **{"messages": TALK, "correction": "x", field: value})
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "content_filter"), field
        page = box.client().get("/metrics").text
        (signal,) = kept(box)
    assert 'lorad_filter_hits_total{does="refuse",filter="weapons",way="in"} 3.0' in page
    assert "1234" not in str(signal)
    assert (signal.wrong_output, signal.correct_output) == ("card [redacted] of mine",) * 2
    assert dict(signal.metadata) == {"[redacted]": "card [redacted] of mine"}


def test_a_captured_answer_may_be_spoken_of_by_who_asked_and_by_an_admin(keeping: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "CAPTURE_S", 0.2)
    mine = keeping.key(Scope.INFER, Scope.FEEDBACK, name="mine")
    other, admin = keeping.key(Scope.INFER, Scope.FEEDBACK, name="other"), keeping.key(Scope.ADMIN, Scope.FEEDBACK, name="admin")
    asked = keeping.client(mine).post(CHAT, json=body("my own words", model=MODEL)).json()["id"]
    click = {"response_id": asked, "kind": "mistake", "consent": True}
    answers = {key: keeping.client(key).post(FEEDBACK, json=click) for key in (mine, other, admin)}
    assert [answer.status_code for answer in answers.values()] == [200, 404, 200]
    nobodys = click | {"response_id": "chatcmpl-base-0123456789abcdef01234567"}
    stranger = keeping.client(other).post(FEEDBACK, json=nobodys).json()["error"]["message"]
    assert answers[other].json()["error"]["message"].replace(asked, "X") == stranger.replace(nobodys["response_id"], "X"), "nobody learns that it is there"
    told = click | {"messages": TALK, "model": MODEL}
    assert keeping.client(other).post(FEEDBACK, json=told).status_code == 200, "what one says oneself needs no capture"
    assert [signal.input[0]["content"] for signal in kept(keeping)] == ["my own words", "my own words", TALK[0]["content"]]


@pytest.mark.parametrize("rates", [{}, {"chat": "60/minute"}])
def test_a_flood_of_feedback_is_held_up_though_no_rate_of_it_is_configured(world: World, rates: dict[str, str]) -> None:
    with guarded(world, rates=rates) as box:
        counted = box.opened.access.rates
        assert counted is not None
        flood = [counted.retry_after_s("testclient", "feedback") for _ in range(12_000)]
        assert not any(flood), "200 a second, which no team ever meets"
        held = send(box, kind="mistake", messages=TALK, model=MODEL)
        assert (held.status_code, held.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert 1 <= int(held.headers["retry-after"]) <= 60
        assert "serving.rates" in held.json()["error"]["message"]
        assert box.client().post(CHAT, json=body("hello", model=MODEL)).status_code == 200, "nothing else is held up"
        assert kept(box) == []


def test_the_rate_of_feedback_is_the_configs_where_it_names_one(world: World) -> None:
    with guarded(world, rates={"feedback": "2/minute"}) as box:
        assert [send(box, kind="mistake", messages=TALK, model=MODEL).status_code for _ in range(3)] == [200, 200, 429]


def test_a_response_that_is_not_kept_any_more_says_what_to_send(keeping: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "CAPTURE_S", 0.01)
    response = send(keeping, response_id="chatcmpl-base-0123456789abcdef01234567", kind="mistake")
    assert refusal(response) == (404, "response_unknown", "response_id")
    assert "messages" in response.json()["error"]["message"]


def test_of_an_answer_with_several_choices_the_one_that_is_meant_must_be_told(keeping: Guarded) -> None:
    answer = keeping.client().post(CHAT, json=body("hello", model=MODEL, n=2)).json()
    assert refusal(send(keeping, response_id=answer["id"], kind="mistake")) == (400, "answer_ambiguous", "messages")
    told = [*body("hello")["messages"], {"role": "assistant", "content": said_of(answer, 1)}]
    assert send(keeping, response_id=answer["id"], kind="mistake", messages=told, model=MODEL).status_code == 200


def said_of(answer: dict[str, Any], place: int) -> str:
    text: str = answer["choices"][place]["message"]["content"]
    return text


def test_an_answer_that_came_as_a_stream_is_known_by_its_id_too(keeping: Guarded) -> None:
    client = keeping.client()
    streamed = client.post(CHAT, json=body("hello there", model=MODEL, stream=True)).text
    identity = streamed.partition('"id":"')[2].partition('"')[0]
    assert send(keeping, response_id=identity, kind="positive").status_code == 200
    whole = said(client.post(CHAT, json=body("hello there", model=MODEL)))
    (signal,) = kept(keeping)
    assert signal.correct_output == whole


def test_only_a_key_with_the_scope_feedback_opens_it(box: Guarded) -> None:
    click = {"kind": "mistake", "messages": TALK, "model": MODEL, "consent": False}
    talks, tells = box.key(Scope.INFER, name="one"), box.key(Scope.FEEDBACK, name="two")
    assert box.client(talks).post(FEEDBACK, json=click).status_code == 403
    assert box.client(tells).post(FEEDBACK, json=click).status_code == 200
    assert [signal.consent for signal in kept(box)] == [False]


def test_a_full_disk_is_told_as_it_is_and_nothing_is_half_taken(box: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        response = send(box, kind="mistake", messages=TALK, model=MODEL)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "spool_disk")
    assert response.headers["retry-after"] == "60"
    assert send(box, kind="positive", messages=TALK, model=MODEL).status_code == 200
    assert [signal.kind for signal in kept(box)] == [SignalKind.POSITIVE]


def test_a_process_that_is_killed_after_its_200_has_kept_it_and_goes_on_numbering(process: ServingProcess) -> None:
    def tell(text: str) -> str:
        click = {"kind": "correction", "correction": text, "messages": TALK, "model": MODEL, "consent": True}
        response = httpx.post(f"{process.address}{FEEDBACK}", json=click, timeout=60)
        assert response.status_code == 200, response.text
        told: str = response.json()["id"]
        return told

    process.start()
    ids = [tell(f"Berne {count}") for count in range(20)]
    process.kill()
    process.start()
    ids.append(tell("Berne at last"))
    process.terminate()
    assert process.wait() == 0
    found = spooled_after(process.world.box.spool, 0, 1000)
    assert [one.signal.id for one in found] == ids
    assert [one.number for one in found] == list(range(found[0].number, found[0].number + 21))


def test_the_sign_of_life_says_how_far_signals_can_be_fetched(process: ServingProcess) -> None:
    from store.wire import read_capacity

    process.start()
    click = {"kind": "positive", "messages": TALK, "model": MODEL, "consent": True}
    assert httpx.post(f"{process.address}{FEEDBACK}", json=click, timeout=60).status_code == 200
    wait_until(lambda: (told := read_capacity(process.world.box.capacity)) and told.spooled, "it is told at once", 8)
    assert [one.signal.kind for one in spooled_after(process.world.box.spool, 0, 9)] == [SignalKind.POSITIVE]
