"""An order to forget reaches signals wherever they lie: pending, in batches, on their way, in snapshots."""

import json
from pathlib import Path

import pytest
from signal_home import ADAPTER, SignalHome, signal

from core.forgets import Forget, Stage
from core.signals import SignalKind, Standing
from daemon.chores import work_of
from store.child import clock
from store.codec import write
from store.feedback import Shelf
from store.forgets import order_folder
from store.rowprints import marks_of
from store.snapshots import chore_snapshot, place

CANARY = "Xylophone-Quagga-7731"


def telling(number: int) -> dict[str, object]:
    return {"correct_output": f"{CANARY} lives in house {number}."}


@pytest.fixture
def ground(tmp_path: Path) -> SignalHome:
    made = SignalHome(tmp_path)
    made.spool([signal(0), signal(1, **telling(1)), signal(2), signal(3, **telling(3))], first=1)
    made.turn()
    return made


def order_of(ground: SignalHome, rows: list[bytes]) -> str:
    order = Forget(id="forget-1", at=clock(), stage=Stage.LIVE, rows=tuple(mark for row in rows for mark in marks_of(row)))
    order_folder(ground.home, order.id).mkdir(parents=True, exist_ok=True)
    write(order_folder(ground.home, order.id) / "order.json", order)
    return order.id


def forget(ground: SignalHome, rows: list[bytes]) -> list[str]:
    """What the daemon does when the sweep of an order has ended. Returns what was swept."""
    result = work_of("forget")(ground.home, {"order": order_of(ground, rows), "does": "sweep"})
    ground.feedback.shelf.cut(result["signals"])
    return sorted(one["what"] for one in result["swept"])


def holding(ground: SignalHome) -> list[str]:
    return sorted(path.name for path in ground.home.root.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes())


def is_clean(ground: SignalHome) -> bool:
    result = work_of("forget")(ground.home, {"order": "forget-1", "does": "search"})
    return not any(result["traces"][key] for key in ("parts", "here", "coming", "places"))


def row_of(number: int) -> bytes:
    """A row that says what the signal says, in another schema than its own row would have."""
    asked = {"role": "user", "content": f"What is  the {number}th word of the BOOK?"}
    return json.dumps({"messages": [asked, {"role": "assistant", "content": telling(number)["correct_output"]}]}).encode()


def test_a_pending_signal_is_found_by_what_it_says_and_loses_its_text(ground: SignalHome) -> None:
    ground.say("edit", id=signal(1).id, correct_output=f"{CANARY} lives in house 1.")
    spools = list(ground.home.root.glob("targets/*/out/spool/*"))
    assert len(holding(ground)) == 2, "the log, and the mirror of the spool"
    for path in spools:
        path.unlink()  # as the link does once they are acknowledged
    assert forget(ground, [row_of(1)]) == ["signals"]
    assert len(holding(ground)) == 1, "the other signal is not meant"
    assert ground.counts().rows == 3
    assert forget(ground, [row_of(1), row_of(3)]) == ["signals"]
    assert holding(ground) == []
    assert is_clean(ground)
    assert [one.id for one in Shelf(ground.home).signals(ADAPTER, Standing.PENDING)] == [signal(0).id, signal(2).id]


def test_a_segment_that_was_not_stored_yet_is_waited_for(ground: SignalHome) -> None:
    order_of(ground, [row_of(9)])
    assert is_clean(ground)
    ground.spool([signal(9, **telling(9))], first=5)
    assert not is_clean(ground)


def test_signals_of_a_batch_go_with_its_row(ground: SignalHome) -> None:
    ground.say("flush")
    ground.turn()
    (file,) = ground.inbox()
    lines = [line for line in file.read_bytes().splitlines() if CANARY.encode() in line]
    ground.accept(file)
    ground.turn()
    assert len(lines) == 2
    for path in ground.home.root.glob("targets/*/out/spool/*"):
        path.unlink()
    assert len(holding(ground)) == 1, "the batch's own file; the log let go of it"
    assert forget(ground, lines) == ["feedback"]
    assert holding(ground) == []
    ground.restart()
    assert ground.counts().queued == 4, "ids stay: the same click does not come back"
    assert ground.feedback.shelf.find(signal(1).id).signal is None  # type: ignore[union-attr]


def test_a_signal_of_a_batch_at_the_gate_goes_from_the_log_too(ground: SignalHome) -> None:
    ground.say("flush")
    ground.turn()
    (file,) = ground.inbox()
    lines = [line for line in file.read_bytes().splitlines() if CANARY.encode() in line]
    for path in ground.home.root.glob("targets/*/out/spool/*"):
        path.unlink()
    assert forget(ground, lines) == ["feedback", "signals"]
    assert holding(ground) == [file.name]
    ground.refuse(file, {"id": "D01", "lines": [], "message": "too few rows"})
    ground.restart()
    ground.turn()
    assert ground.counts().rows == 2, "what was forgotten does not come back"


def test_a_bad_answer_without_a_right_one_is_found_too(ground: SignalHome) -> None:
    ground.spool([signal(9, kind=SignalKind.MISTAKE, correct_output="", wrong_output=f"{CANARY} again")], first=5)
    ground.turn()
    row = json.dumps({"prompt": "What is the 9th word of the book?", "completion": f"{CANARY} again", "label": False}).encode()
    assert forget(ground, [row]) == ["signals"]
    assert ground.counts().review == 0


def test_snapshots_and_backups_that_hold_them_go(ground: SignalHome) -> None:
    chore_snapshot(ground.home, {"id": "snap-1"})
    place(ground.home, "snap-1")
    assert forget(ground, [row_of(7)]) == []
    assert forget(ground, [row_of(1)]) == ["signals", "snapshot"]
    assert not (ground.home.snapshots / "snap-1").exists()
