"""A person's wish about signals that takes longer than a tick: a daemon that dies in the middle goes on with it, however late, and does nothing twice."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from filled_index import facts_of
from signal_home import ADAPTER, SignalHome, replace, signal

from core.commands import Answer
from core.requests import decide_requests
from core.signals import SignalKind, Standing
from store.commands import put_command, read_answer, read_commands
from store.feedback import Shelf
from store.keys import ensure_keys

ROWS = 1200


@pytest.fixture
def ground(tmp_path: Path) -> SignalHome:
    made = SignalHome(tmp_path)
    made.spool([signal(number) for number in range(6)], first=1)
    made.turn()
    return made


def ask(ground: SignalHome, what: str, **details: str) -> Path:
    """Say it; the daemon hears it and does not answer yet. Where the answer will be."""
    path = put_command(ground.home, ground.command(what, **details))
    hear(ground)
    assert read_answer(path) is None
    return path


def hear(ground: SignalHome) -> None:
    """What a tick does with the commands that wait."""
    facts = replace(facts_of(ground.index), commands=tuple(read_commands(ground.home)))
    for step in decide_requests(facts, ground.now):
        ground.feedback.apply(step.command, ground.now)  # type: ignore[union-attr]


def dies(ground: SignalHome) -> None:
    """Killed; it starts again an hour later."""
    ground.now += timedelta(hours=1)
    ground.restart()
    hear(ground)


def answer_of(ground: SignalHome, path: Path) -> Answer:
    for _ in range(10):
        if (found := read_answer(path)) is not None:
            return found
        hear(ground)
        ground.turn(1)
    raise AssertionError("nobody answers")


def export(folder: Path, ground: SignalHome) -> str:
    ensure_keys(ground.home.keys)
    rows = [{"kind": "import", "messages": [{"role": "user", "content": f"How many is {number}?"}], "answer": f"It is {number}."} for number in range(ROWS)]
    path = folder / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_decision_that_waits_for_the_end_of_a_batch_is_carried_out_by_the_next_daemon(ground: SignalHome) -> None:
    ground.feedback.begin_batch(ADAPTER, "enough", "key-1", ground.now)
    ground.worker.is_stuck = True
    ground.turn(1)  # the chore is at it
    path = ask(ground, "reject", id=signal(5).id)
    ground.turn()
    assert read_answer(path) is None
    dies(ground)
    assert answer_of(ground, path).ok
    ground.turn()
    assert (ground.counts().rejected, ground.counts().queued) == (1, 5), "the batch is made without it"
    assert list(ground.home.commands.rglob("*.json")) == [path], "the command is consumed"


def test_a_decision_is_carried_out_once_where_the_daemon_dies_before_it_can_answer(ground: SignalHome, monkeypatch: pytest.MonkeyPatch) -> None:
    ground.spool([signal(50, kind=SignalKind.MISTAKE, correct_output="")], first=7)
    ground.turn()
    ground.feedback.begin_batch(ADAPTER, "enough", "key-1", ground.now)
    ground.worker.is_stuck = True
    ground.turn(1)
    path = ask(ground, "edit", id=signal(50).id, correct_output="The right one.")

    def cut(*given: object) -> None:
        raise KeyboardInterrupt

    ground.worker.is_stuck = False
    with monkeypatch.context() as patch:
        patch.setattr("daemon.feedback.put_answer", cut)
        with pytest.raises(KeyboardInterrupt):
            ground.turn()
    dies(ground)
    assert answer_of(ground, path).ok
    right = [one for one in Shelf(ground.home).signals(ADAPTER, Standing.PENDING) if one.correct_output == "The right one."]
    assert len(right) == 1
    ground.restart()
    assert ground.counts() == Shelf(ground.home).counts()[ADAPTER]


def test_an_import_goes_on_where_the_daemon_dies_while_its_file_is_read(ground: SignalHome, tmp_path: Path) -> None:
    ground.worker.is_stuck = True
    path = ask(ground, "import", files=export(tmp_path, ground), consent="yes")
    dies(ground)
    assert f"{ROWS} signals are stored, 0 were known" in answer_of(ground, path).message
    assert ground.counts().rows == ROWS + 6


def test_an_import_is_answered_once_where_the_daemon_dies_while_its_signals_are_stored(ground: SignalHome, tmp_path: Path) -> None:
    path = ask(ground, "import", files=export(tmp_path, ground), consent="yes")
    ground.turn(1)
    assert 6 < ground.counts().rows < ROWS
    dies(ground)
    assert "700 signals are stored, 500 were known" in answer_of(ground, path).message
    assert (ground.counts().rows, ground.counts().arrived) == (ROWS + 6, ROWS + 6)
    path.unlink()
    dies(ground)
    ground.turn(5)
    assert not path.exists(), "what was answered is not answered again"
    assert not list(ground.home.commands.rglob("*.json"))
    assert not list((ground.home.root / "feedback" / ".coming").iterdir())


def test_an_import_whose_answer_lies_there_is_not_done_again(ground: SignalHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ask(ground, "import", files=export(tmp_path, ground), consent="yes")

    def dies_between(self: Path, missing_ok: bool = False) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("store.commands.Path.unlink", dies_between)
        with pytest.raises(KeyboardInterrupt):
            ground.turn(8)
    dies(ground)
    ground.turn(8)
    assert f"{ROWS} signals are stored" in answer_of(ground, path).message
    assert list(ground.home.commands.rglob("*.json")) == [path]
    assert ground.counts().rows == ROWS + 6


def test_an_import_that_cannot_be_read_is_refused_and_forgotten(ground: SignalHome, tmp_path: Path) -> None:
    ground.worker.is_stuck = True
    path = ask(ground, "import", files=str(tmp_path / "none.json"))
    dies(ground)
    assert not answer_of(ground, path).ok
    path.unlink()
    dies(ground)
    assert not list(ground.home.commands.rglob("*.json"))
