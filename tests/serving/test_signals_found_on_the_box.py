"""What a box finds by itself in conversations and tool calls, through its doors; and what it leaves alone."""

import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from fastapi.testclient import TestClient
from inference_box import START, World
from route_client import CHAT, base_of, client_of
from scripted_engine import ScriptedEngine, call_text
from talking_box import TalkingBox, talking

from core.errors import LoradError
from core.fingerprints import mark_in
from core.learning import FeedbackConfig
from core.signals import Origin, Signal, SignalKind, signal_id
from rendering.specs import Message
from serving.access.filters import Filters
from serving.api import create_app
from serving.detection import CROWDED, LEAST_SENSE, LINE, MOST_CHARACTERS, Detector, Means, Spoken, open_detector
from serving.routing import Served, Table
from store.spool import SpoolFull

SYDNEY, NO = "The capital of Australia is Sydney.", "No, it's Canberra, not Sydney."
ASKED = {"role": "user", "content": "What is the capital of Australia?"}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}},
}


class Kept:
    """Where signals go. `found` waits until all that was heard was looked at."""

    def __init__(self, **means: Any) -> None:
        self.signals: list[Signal] = []
        self.detector = Detector(Means(put=self.put, now=lambda: START, hide=lambda user: f"hidden {user}", **means))

    def put(self, signals: Sequence[Signal]) -> "Future[int]":
        self.signals += signals
        taken: Future[int] = Future()
        taken.set_result(len(self.signals))
        return taken

    @property
    def found(self) -> list[Signal]:
        self.detector.close()
        return self.signals


@pytest.fixture
def kept() -> Iterator[Kept]:
    made = Kept()
    yield made
    made.detector.close()


def chat_client(kept: Kept, *texts: str) -> TestClient:
    """A client of a server that answers with these words, one a token."""
    engine = ScriptedEngine(lambda ask: texts)
    named = replace(base_of(engine), alias="support/tone")
    return client_of(engine, Table(base=base_of(engine), aliases={"support/tone": named}), detector=kept.detector)


def chat(client: TestClient, messages: Sequence[Any], **fields: Any) -> Any:
    response = client.post(CHAT, json={"model": "support/tone", "messages": list(messages)} | fields)
    assert response.status_code == 200, response.text
    return response.text if fields.get("stream") else response.json()


# ---------------------------------------------------------------- corrections


def conversing(box: TalkingBox, kept: Kept) -> TestClient:
    box.service.detector = kept.detector
    box.client = TestClient(create_app(box.service), raise_server_exceptions=False)
    return box.client


def test_a_correction_in_a_session_is_a_proposal_about_the_answer_before_it(world: World, kept: Kept) -> None:
    with talking(world, personas={"ada": "You are Ada."}) as box:
        conversing(box, kept)
        release = box.release(alias="ada/main")
        box.say("a word before", model="ada/main")
        first = box.say("Sydney is the capital", model="ada/main")
        box.say("No, it's Canberra, not Sydney.", session_id=first["session_id"], consent=True)
        box.say("Thanks, and of Austria?", session_id=first["session_id"])
        (signal,) = kept.found
        assert (signal.kind, signal.adapter, signal.source) == (SignalKind.CORRECTION, "ada/main", "detected")
        assert (signal.release, signal.response) == (release, first["response_id"])
        assert [dict(turn) for turn in signal.input] == [{"role": "system", "content": "You are Ada."}, {"role": "user", "content": "Sydney is the capital"}]
        assert signal.wrong_output == first["text"]
        assert signal.correct_output == first["text"].replace("Sydney", "Canberra")
        assert signal.context == "No, it's Canberra, not Sydney."
        assert (signal.is_proposal, signal.consent, signal.origin) == (True, True, Origin.HUMAN)
        assert 0.5 <= signal.confidence < 1
        assert signal.user == f"hidden {first['session_id']}"
        assert signal.id == signal_id(replace(signal, id=""))


def test_nobody_agreed_unless_they_said_so(world: World, kept: Kept) -> None:
    with talking(world) as box:
        conversing(box, kept)
        first = box.say("hello")
        box.say("that's wrong", session_id=first["session_id"])
        (signal,) = kept.found
        assert (signal.kind, signal.correct_output, signal.consent) == (SignalKind.MISTAKE, "", False)


def test_what_was_said_before_a_reset_is_not_corrected(world: World, kept: Kept) -> None:
    with talking(world) as box:
        client = conversing(box, kept)
        first = box.say("hello")
        client.post("/api/ai-echo/reset-context", json={"session_id": first["session_id"]})
        box.say("that's wrong", session_id=first["session_id"])
        assert kept.found == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_sends_the_conversation_back_names_the_answer_by_its_words(kept: Kept, stream: bool) -> None:
    client = chat_client(kept, "The capital of Australia ", "is Sydney.")
    answered = chat(client, [ASKED], stream=stream)
    response = json.loads(answered.split("\n")[0].removeprefix("data: "))["id"] if stream else answered["id"]
    chat(client, [ASKED, {"role": "assistant", "content": SYDNEY}, {"role": "user", "content": NO}], user="eve", store=True)
    (signal,) = kept.found
    assert (signal.response, signal.release, mark_in(signal.response)) == (response, "base", "base")
    assert (signal.adapter, signal.user, signal.consent) == ("support/tone", "hidden eve", True)
    assert signal.correct_output == "The capital of Australia is Canberra."
    assert [dict(turn) for turn in signal.input] == [ASKED]


def test_the_words_of_another_server_have_no_id(kept: Kept) -> None:
    client = chat_client(kept, "fine")
    chat(client, [ASKED, {"role": "assistant", "content": SYDNEY}, {"role": "user", "content": NO}])
    (signal,) = kept.found
    assert (signal.response, signal.release, signal.consent) == ("", "", False)


def test_only_the_newest_turn_is_looked_at_so_that_one_correction_is_found_once(kept: Kept) -> None:
    client = chat_client(kept, "fine")
    talk = [ASKED, {"role": "assistant", "content": SYDNEY}, {"role": "user", "content": NO}]
    chat(client, [*talk, {"role": "assistant", "content": "Canberra."}, {"role": "user", "content": "Thanks!"}])
    assert kept.found == []


def test_the_same_request_twice_is_the_same_signal(kept: Kept) -> None:
    client = chat_client(kept, "fine")
    for _ in range(2):
        chat(client, [ASKED, {"role": "assistant", "content": SYDNEY}, {"role": "user", "content": NO}])
    assert len({signal.id for signal in kept.found}) == 1


def test_what_a_content_filter_takes_out_stays_out() -> None:
    kept = Kept(clean=lambda message: msgspec.structs.replace(message, content=message.content.replace("4711", "[redacted]")))
    client = chat_client(kept, "fine")
    asked = {"role": "user", "content": "my pin is 4711"}
    chat(client, [asked, {"role": "assistant", "content": "It is not."}, {"role": "user", "content": "No, it is 4711."}])
    (signal,) = kept.found
    assert "4711" not in repr(signal)


# ---------------------------------------------------------------- the classifier


def spoken(answer: str = SYDNEY) -> Spoken:
    return Spoken(asked=(Message("user", "?"),), answer=Message("assistant", answer), adapter="support/tone")


def test_what_rules_leave_open_the_classifier_may_propose() -> None:
    asked: list[str] = []

    def sense(said: str) -> float:
        asked.append(said)
        return LEAST_SENSE + 0.05 if "ten years" in said else LEAST_SENSE - 0.05

    kept = Kept(sense=sense)
    for said in ("You are off by ten years.", "Tell me more.", "No problem!", "that's wrong"):
        kept.detector.hear_turn(spoken(), said)
    kept.detector.hear_turn(spoken("How old are you?"), "ten years")
    by_sense, by_rule = kept.found
    assert asked == ["You are off by ten years.", "Tell me more."], "rules come first, and say what is no correction"
    assert (by_sense.kind, by_sense.metadata["rule"], by_rule.metadata["rule"]) == (SignalKind.MISTAKE, "classifier", "denial")
    assert by_sense.confidence < by_rule.confidence


def test_a_sentence_model_that_fails_leaves_the_rules() -> None:
    asked: list[str] = []

    def sense(said: str) -> float:
        asked.append(said)
        raise LoradError("broken", hint="", code="EMBEDDER_FAILED")

    kept = Kept(sense=sense)
    for said in ("Hm.", "Hm hm.", "that's wrong"):
        kept.detector.hear_turn(spoken(), said)
    assert len(kept.found) == 1
    assert asked == ["Hm."]


# ---------------------------------------------------------------- tool calls


def test_a_call_that_was_never_declared_is_a_mistake_for_certain(kept: Kept) -> None:
    text = call_text("fly", to="Oslo")
    client = chat_client(kept, text)
    answered = chat(client, [ASKED], tools=[WEATHER])
    (signal,) = kept.found
    assert (signal.kind, signal.origin, signal.source, signal.weight) == (SignalKind.MISTAKE, Origin.AUTOMATED, "tool", 0.5)
    assert (signal.is_proposal, signal.response, signal.wrong_output) == (False, answered["id"], text)


def test_a_call_without_what_it_needs_is_a_mistake_also_in_a_stream(kept: Kept) -> None:
    client = chat_client(kept, call_text("weather"))
    chat(client, [ASKED], tools=[WEATHER], stream=True)
    (signal,) = kept.found
    assert "lacks its argument 'city'" in signal.context
    assert '"name": "weather"' in signal.wrong_output


def test_a_good_call_and_a_call_that_was_cut_off_are_none(kept: Kept) -> None:
    client = chat_client(kept, call_text("weather", city="Oslo"))
    chat(client, [ASKED], tools=[WEATHER])
    cut = chat_client(kept, "<tool_call>", '{"name": "weather", "arg', "uments")
    assert chat(cut, [ASKED], tools=[WEATHER], max_tokens=2)["choices"][0]["finish_reason"] == "length"
    assert kept.found == []


@pytest.mark.parametrize(("result", "is_found"), [('{"error": "unknown city Oslow"}', True), ('{"error": "timed out"}', False), ('{"celsius": 4}', False)])
def test_a_result_that_says_the_call_was_wrong_is_a_proposal(kept: Kept, result: str, is_found: bool) -> None:
    client = chat_client(kept, "sorry")
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslow"}'}}
    chat(
        client,
        [ASKED, {"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "tool_call_id": "abcdefghi", "content": result}],
        tools=[WEATHER],
    )
    found = kept.found
    assert [(one.is_proposal, one.source, [turn["role"] for turn in one.input]) for one in found] == [(True, "tool", ["user"])] * is_found
    assert all('"city": "Oslow"' in one.wrong_output for one in found)


# ---------------------------------------------------------------- what it costs nobody


def test_a_full_line_and_a_full_spool_lose_a_proposal_and_hold_nobody_up() -> None:
    gate = threading.Event()
    kept = Kept(sense=lambda said: float(not gate.wait(20)))
    for _ in range(LINE + 50):
        kept.detector.hear_turn(spoken(), "Hm.")
    gate.set()
    assert kept.found == []

    def full(signals: Sequence[Signal]) -> "Future[int]":
        taken: Future[int] = Future()
        taken.set_exception(SpoolFull("full", hint="", code="SPOOL_FULL"))
        return taken

    detector = Detector(Means(put=full, now=lambda: START))
    detector.hear_turn(spoken(), "that's wrong")
    detector.close()
    detector.hear_turn(spoken(), "after the end")


def test_whoever_may_only_chat_cannot_fill_the_spool(tmp_path: Path) -> None:
    taken: list[Signal] = []
    kept = Kept()

    def put(signals: Sequence[Signal]) -> "Future[int]":
        taken.extend(signals)
        return kept.put(signals)

    for room, count in ((CROWDED - 1, 0), (CROWDED, 1)):
        desk: Any = SimpleNamespace(spool=SimpleNamespace(room=room, put=put), now=lambda: START, hide=lambda user: user)
        detector = open_detector(FeedbackConfig(), desk, Filters({}, lambda *hit: None), tmp_path)
        detector.hear_turn(spoken(), "that's wrong")
        detector.close()
        assert len(taken) == count


def test_a_conversation_that_is_longer_than_any_row_is_left_alone(kept: Kept) -> None:
    kept.detector.hear_turn(replace(spoken(), asked=(Message("user", "x" * MOST_CHARACTERS),)), "that's wrong")
    assert kept.found == []


def test_feedback_on_a_model_is_for_its_adapter() -> None:
    base = Served(model="tiny", created=1)
    release = Served(model="ada/main@v1", created=1, release="r", alias="ada/main")
    table = Table(base=base, aliases={"ada/main": release}, releases={"ada/main@v1": release}, sets={"ada": release})
    names = {
        "ada/main": "ada/main",
        "ada/main@v1": "ada/main",
        "ada": "ada/main",
        "tiny": "default/main",
        "gone/tone@v2": "gone/tone",
        "shared/x": "default/main",
    }
    assert {name: table.adapter_of(name) for name in names} == names
