"""What a peer model says is right: proposals, and nothing that is no answer."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from feedbackhome import home_with
from said import ADAPTER, NOON

from core.errors import LoradError
from core.signals import Origin, Signal, SignalKind, Standing
from feedback import peers
from feedback.peers import chore_peers, read_reply
from store import endpoint
from store.feedback import Shelf
from store.paths import Home
from store.peers import read_asked, write_asked
from store.signallog import signals_in

Reply = Callable[[dict[str, Any]], tuple[int, str]]


class Peer:
    """A model's endpoint. `reply` gives status and text; `asked` holds what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.reply: Reply = lambda asked: (200, json.dumps({"is_wrong": True, "answer": f"right: {asked['said_of_it']}"}))
        self.url = ""


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    monkeypatch.setattr(endpoint, "WAITS_S", (0.0, 0.0))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with answering() as running:
        yield running


@contextmanager
def answering() -> Iterator[Peer]:
    made = Peer()

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            made.asked.append(body)
            made.keys.append(self.headers.get("authorization", ""))
            status, text = made.reply(json.loads(body["messages"][1]["content"]))
            raw = json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def mistake(number: int, **changes: Any) -> Signal:
    persona, _, domain = ADAPTER.partition("/")
    said = Signal(
        id=f"mistake-{number}",
        kind=SignalKind.MISTAKE,
        persona=persona,
        domain=domain,
        input=({"role": "user", "content": f"question {number}"},),
        wrong_output="wrong",
        context=f"remark {number}",
        at=NOON,
        release="r1",
        response=f"chatcmpl-base-{number:024x}",
        user="someone",
        consent=True,
    )
    return replace(said, **changes)


def run(home: Home, peer: Peer, **changes: Any) -> tuple[dict[str, Any], list[Signal]]:
    """The chore, and the signals that it left for the daemon."""
    out = home.root / "feedback" / ".coming" / ".peers.part"
    out.parent.mkdir(exist_ok=True)
    out.unlink(missing_ok=True)
    spec = {"adapter": ADAPTER, "url": peer.url, "model": "big", "key_file": "", "weight": 0.5, "demands_consent": True, "asked": [], "at": NOON.isoformat()}
    result = chore_peers(home, spec | {"out": str(out)} | changes)
    return result, list(signals_in(out)) if out.exists() else []


def test_a_right_answer_is_a_proposal_of_another_model_with_its_weight(tmp_path: Path, peer: Peer) -> None:
    home = home_with(tmp_path / "home", [mistake(1)])
    result, (signal,) = run(home, peer)
    assert (signal.kind, signal.origin, signal.source, signal.weight, signal.is_proposal) == (SignalKind.CORRECTION, Origin.AI, "peer", 0.5, True)
    assert (signal.correct_output, signal.wrong_output, signal.response, signal.release) == ("right: remark 1", "wrong", mistake(1).response, "r1")
    assert (signal.metadata["about"], signal.user) == ("mistake-1", ""), "it does not count against the cap of the user who complained"
    assert result["asked"] == ["mistake-1"]
    shelf = Shelf(home)
    assert shelf.add([signal], NOON, shelf.limits).standings == {signal.id: Standing.REVIEW}
    assert run(home, peer)[1][0].id == signal.id, "asked again after a crash, it is stored once"


def test_only_what_users_agreed_to_and_what_lacks_its_answer_goes_out(tmp_path: Path, peer: Peer) -> None:
    signals = [
        mistake(1, consent=False),
        mistake(2, kind=SignalKind.CORRECTION, correct_output="known"),
        mistake(3, kind=SignalKind.POSITIVE),
        mistake(4, wrong_output='<tool_call>\n{"name": "f"}\n</tool_call>'),
        mistake(5),
        mistake(6, is_proposal=True),
        mistake(7),
    ]
    home = home_with(tmp_path / "home", signals)
    result, found = run(home, peer, asked=["mistake-7"])
    assert sorted(result["asked"]) == ["mistake-5", "mistake-6"]
    assert "question 1" not in json.dumps(peer.asked)
    assert len(run(home, peer, demands_consent=False)[0]["asked"]) == 4
    assert len(found) == 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"is_wrong": false, "answer": ""}', peers.NOT_WRONG),
        ('{"is_wrong": true, "answer": "  "}', peers.NOT_WRONG),
        ('{"is_wrong": true, "answer": "wrong"}', peers.NOTHING_NEW),
        ("I think the answer is 12.", peers.NO_FORM),
        ('{"is_wrong": "yes", "answer": "x"}', peers.NO_FORM),
        ('{"is_wrong": true, "answer": "x", "and": 1}', peers.NO_FORM),
        ("<html>busy</html>", peers.NO_FORM),
        (json.dumps({"is_wrong": True, "answer": "x" * (peers.MOST_CHARACTERS + 1)}), peers.TOO_LONG),
    ],
)
def test_a_reply_in_another_form_is_no_answer(tmp_path: Path, peer: Peer, text: str, why: str) -> None:
    home = home_with(tmp_path / "home", [mistake(1)])
    peer.reply = lambda asked: (200, text)
    result, found = run(home, peer)
    assert (result["left_out"], found, result["asked"]) == ({why: 1}, [], ["mistake-1"])


def test_a_fence_around_the_reply_is_read() -> None:
    reply = read_reply('```json\n{"is_wrong": true, "answer": "12"}\n```')
    assert reply is not None
    assert reply.answer == "12"


def test_a_peer_that_is_not_there_is_told_and_asked_again_later(tmp_path: Path, peer: Peer) -> None:
    home = home_with(tmp_path / "home", [mistake(number) for number in range(9)])
    peer.reply = lambda asked: (503, "")
    with pytest.raises(LoradError, match="HTTP 503") as caught:
        run(home, peer)
    assert caught.value.code == "PEER_FAILED"
    assert len(peer.asked) == 3 * peers.MOST_FAILED, "three tries each, then it is given up"


def test_what_was_answered_before_the_peer_went_away_is_kept(tmp_path: Path, peer: Peer) -> None:
    home = home_with(tmp_path / "home", [mistake(number) for number in range(9)])
    before = peer.reply
    peer.reply = lambda asked: before(asked) if len(peer.asked) <= 2 else (503, "")
    result, found = run(home, peer)
    assert len(result["asked"]) == len(found) == 2


def test_the_key_comes_from_its_file_and_one_that_is_not_there_is_told(tmp_path: Path, peer: Peer) -> None:
    home = home_with(tmp_path / "home", [mistake(1)])
    (tmp_path / "key").write_text("secret\n")
    run(home, peer, key_file=str(tmp_path / "key"))
    assert peer.keys == ["Bearer secret"]
    with pytest.raises(LoradError, match="peer_key_file cannot be read"):
        run(home, peer, key_file=str(tmp_path / "none"))


def test_what_was_asked_is_remembered_and_a_damaged_file_is_an_empty_one(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert read_asked(home) == {}
    write_asked(home, {ADAPTER: ["a", "b"]})
    assert read_asked(home) == {ADAPTER: ["a", "b"]}
    (tmp_path / "feedback" / "peers.json").write_text("[1]")
    assert read_asked(home) == {}
