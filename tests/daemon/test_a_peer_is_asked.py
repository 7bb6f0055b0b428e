"""The daemon has a peer model asked about mistakes: once each, whatever dies, and a proposal comes of each answer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from signal_home import ADAPTER, SignalHome, signal

from core.signals import Origin, Signal, SignalKind, Standing
from daemon import clock
from daemon.peers import LOOK_EVERY_S, REST_S, Peers
from feedback import peers
from store.endpoint import Endpoint, EndpointError

PEER = {"feedback": {"peer_url": "http://127.0.0.1:9/v1", "peer_model": "big"}}


class Asking:
    """A home whose daemon asks a peer; `answer` is what it says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **config: Any) -> None:
        self.asked: list[str] = []
        self.answer: Callable[[Signal], object] = lambda mistake: f"right {mistake.id}"
        self._s = 1000.0
        monkeypatch.setattr(clock, "monotonic_s", lambda: self._s)
        monkeypatch.setattr(peers, "corrected", self._corrected)
        folder.mkdir(exist_ok=True)
        self.ground = SignalHome(folder, config=config)
        self.restart()

    def _corrected(self, peer: Endpoint, mistake: Signal) -> object:
        self.asked.append(mistake.id)
        return self.answer(mistake)

    def restart(self) -> None:
        self.ground.restart()
        self.ground.worker.is_busy = lambda kind: any(one.kind == kind for one in self.ground.worker.waiting)  # type: ignore[attr-defined]
        self.ground.turn(1)  # the first tick finds what a former daemon left
        self.peers = Peers(self.ground.index, self.ground.worker, self.ground.feedback, self._tell)  # type: ignore[arg-type]

    def _tell(self, now: object, action: str, **fields: object) -> None:
        self.ground.told.append((action, fields))

    def later(self, seconds: float = LOOK_EVERY_S) -> None:
        self._s += seconds
        self.peers.look(self.ground.now)
        self.ground.turn()

    def review(self) -> list[Signal]:
        return [one for one in self.ground.feedback.shelf.signals(ADAPTER, Standing.REVIEW) if one.origin is Origin.AI]

    def mistakes(self, *numbers: int) -> None:
        said = [signal(number, kind=SignalKind.MISTAKE, correct_output="") for number in numbers]
        self.ground.feedback.shelf.add(said, self.ground.now, self.ground.index.config.feedback)


@pytest.fixture
def asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asking:
    return Asking(tmp_path, monkeypatch, **PEER)


def test_each_mistake_is_asked_about_once_and_its_answer_waits_for_a_person(asking: Asking) -> None:
    asking.mistakes(1, 2)
    for _ in range(4):
        asking.later()
    assert len(asking.asked) == 2
    assert sorted(one.correct_output for one in asking.review()) == [f"right {1:032x}", f"right {2:032x}"]
    assert asking.ground.counts().rows == 0, "nobody has decided yet"
    asking.mistakes(3)
    asking.later()
    asking.restart()
    for _ in range(3):
        asking.later()
    assert len(asking.asked) == 3
    assert len(asking.review()) == 3
    said = asking.ground.say("accept", id=asking.review()[0].id)
    assert said.ok, said.message
    assert asking.ground.counts().rows == 1


def test_what_died_before_it_was_written_down_is_asked_again_and_stored_once(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    asking.mistakes(1)

    def dies(*words: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("daemon.peers.write_asked", dies)
        with pytest.raises(KeyboardInterrupt):
            asking.later()
    asking.restart()
    asking.answer = lambda mistake: "another answer this time"
    for _ in range(3):
        asking.later()
    assert len(asking.asked) == 2
    (proposal,) = asking.review()
    assert proposal.correct_output == f"right {1:032x}"


def test_a_peer_that_is_away_is_left_alone_for_a_while(asking: Asking) -> None:
    asking.mistakes(1)

    def away(mistake: Signal) -> object:
        raise EndpointError("nobody there")

    before, asking.answer = asking.answer, away
    asking.later()
    assert [action for action, _ in asking.ground.told if action.startswith("peers.")] == ["peers.failed"]
    asking.answer = before
    asking.later(REST_S / 2)
    assert len(asking.asked) == 1
    asking.later(REST_S)
    assert len(asking.asked) == 2
    assert len(asking.review()) == 1


def test_nobody_is_asked_without_a_peer_or_without_consent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = Asking(tmp_path / "without", monkeypatch)
    without.mistakes(1)
    without.later()
    assert without.asked == []
    shy = Asking(tmp_path / "shy", monkeypatch, **PEER)
    said = signal(1, kind=SignalKind.MISTAKE, correct_output="", consent=False)
    shy.ground.feedback.shelf.add([said], shy.ground.now, shy.ground.index.config.feedback)
    shy.later()
    assert shy.asked == []
