"""The daemon takes in what the links pull and what people say, once each, and acknowledges only what is durable."""

import json
import random
from pathlib import Path

import pytest
from signal_home import ADAPTER, SignalHome, signal

from core.signals import SignalKind, Standing
from store.feedback import Shelf
from store.targets import mirror


@pytest.fixture
def ground(tmp_path: Path) -> SignalHome:
    return SignalHome(tmp_path)


def stored(ground: SignalHome) -> list[int]:
    """The numbers of the signals on disk, in their order."""
    return [int(one.id, 16) for one in Shelf(ground.home).signals(ADAPTER, Standing.PENDING)]


def test_lines_of_a_spool_are_stored_in_order_then_acknowledged(ground: SignalHome) -> None:
    ground.spool([signal(1), signal(2)], first=1)
    ground.turn()
    assert (stored(ground), ground.ack()) == ([1, 2], 2)
    ground.spool([signal(3)], first=3, torn=b'{"number": 4, "signal"')
    ground.turn()
    assert (stored(ground), ground.ack()) == ([1, 2, 3], 3)
    assert json.loads((ground.home.root / "feedback" / "cursors.json").read_text()) == {"local": 3}


@pytest.mark.parametrize("seed", range(4))
def test_a_daemon_that_dies_between_any_two_steps_loses_and_doubles_nothing(ground: SignalHome, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is durable is cut off at a random step: before or after the shelf, the cursor, the acknowledgment."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    steps = ["daemon.spools.write_cursors", "daemon.spools.write", "store.feedback.sync_together", "store.signallog.SignalLog.append"]
    number, acked = 1, 0
    for _ in range(12):
        count = rng.randrange(1, 6)
        ground.spool([signal(one) for one in range(number, number + count)], first=number)
        number += count
        with monkeypatch.context() as patch:

            def dies(*given: object) -> None:
                raise KeyboardInterrupt

            patch.setattr(rng.choice(steps), dies)
            with pytest.raises(KeyboardInterrupt):
                ground.turn()
        ground.restart()
        assert ground.ack() >= acked, "an acknowledgment is never taken back"
        acked = ground.ack()
        assert set(range(1, acked + 1)) <= set(stored(ground)), "what is acknowledged is stored"
        ground.turn()
        assert stored(ground) == list(range(1, number))
        assert ground.ack() == number - 1


def test_lines_that_are_still_missing_are_waited_for(ground: SignalHome, monkeypatch: pytest.MonkeyPatch) -> None:
    ground.spool([signal(1)], first=1)
    ground.turn()
    ground.spool([signal(3)], first=3)
    ground.turn()
    assert (stored(ground), ground.ack()) == ([1], 1), "a pull that was cut brings line 2 with the next"
    ground.spool([signal(2)], first=2)
    ground.turn()
    assert (stored(ground), ground.ack()) == ([1, 2, 3], 3)
    monkeypatch.setattr("daemon.spools.GAP_S", 0)
    ground.spool([signal(4)], first=170_000)  # the box was set up anew
    ground.turn()
    assert (stored(ground), ground.ack()) == ([1, 2, 3, 4], 170_000)


def test_two_targets_have_a_cursor_each_and_a_click_that_both_saw_is_one(tmp_path: Path) -> None:
    targets = [{"name": "one", "kind": "local", "path": "serving"}, {"name": "two", "kind": "local", "path": "other"}]
    ground = SignalHome(tmp_path, {"deploy": {"targets": targets}})
    ground.spool([signal(1), signal(2)], first=1, target="one")
    ground.spool([signal(2), signal(3)], first=501, target="two")
    ground.turn()
    assert stored(ground) == [1, 2, 3]
    assert (ground.ack("one"), ground.ack("two")) == (2, 502)


def test_a_damaged_cursor_reads_everything_again_and_stores_nothing_twice(ground: SignalHome) -> None:
    ground.spool([signal(1), signal(2)], first=1)
    ground.turn()
    (ground.home.root / "feedback" / "cursors.json").write_text("{")
    ground.restart()
    ground.turn()
    assert (stored(ground), ground.ack()) == ([1, 2], 2)


def test_a_flood_takes_no_tick_for_long(ground: SignalHome) -> None:
    ground.spool([signal(number, user="bot") for number in range(1, 2001)], first=1)
    ground.turn(1)
    assert ground.counts().rows + ground.counts().capped == 500, "a tick stores a bounded piece"
    ground.turn(4)
    assert (ground.counts().rows, ground.counts().capped) == (200, 1800), "feedback.user_cap"
    assert ground.ack() == 2000


def test_a_flood_that_never_ends_fills_neither_disk_nor_memory_and_what_is_left_out_is_told(tmp_path: Path) -> None:
    ground = SignalHome(tmp_path, {"feedback": {"user_cap": 3, "waiting_cap": 10}})
    ground.spool([signal(number, user="bot") for number in range(1, 101)], first=1)
    ground.spool([signal(200, user="ada")], first=101)
    ground.turn()
    assert (ground.counts().rows, ground.counts().capped, ground.ack()) == (4, 10, 101), "nobody waits behind the flood"
    (told,) = [fields for action, fields in ground.told if action == "signals.left_out"]
    assert told == {"reason": "10 signals of support/tone wait over a cap, as many as feedback.waiting_cap lets wait", "count": 87}


def test_signals_weigh_no_more_than_their_origin(ground: SignalHome) -> None:
    from core.signals import Origin

    ground.spool([signal(1), signal(2, origin=Origin.AI), signal(3, origin=Origin.AUTOMATED, weight=0.2)], first=1)
    ground.turn()
    assert [one.weight for one in Shelf(ground.home).signals(ADAPTER, Standing.PENDING)] == [1.0, 0.5, 0.2]


# ---------------------------------------------------------------- people


def test_people_add_accept_edit_and_reject(ground: SignalHome) -> None:
    import msgspec

    added = ground.say("add", signal=msgspec.json.encode(signal(1, kind=SignalKind.MISTAKE, correct_output="")).decode())
    assert (added.ok, added.message) == (True, f"signal {signal(1).id} is review")
    refused = ground.say("edit", id=signal(1).id, correct_output=" ")
    assert (refused.ok, refused.code) == (False, "ANSWER_EMPTY")
    assert ground.say("edit", id=signal(1).id, correct_output="The right one.").ok
    assert ground.counts().rows == 1
    assert ground.say("reject", id=signal(1).id).ok
    assert ground.counts().rejected == 1
    assert ground.say("accept", id="nobody").code == "SIGNAL_UNKNOWN"
    assert ground.say("add", signal="{").code == "SIGNAL_SYNTAX"
    assert ground.say("dance").code == "COMMAND_UNKNOWN"
    assert not list(ground.home.commands.glob("command-*[0-9a-f].json")), "every command is consumed"


def test_an_import_is_stored_whole_also_where_the_daemon_dies_in_the_middle(ground: SignalHome, tmp_path: Path) -> None:
    from store.keys import ensure_keys

    ensure_keys(ground.home.keys)
    export = tmp_path / "chats.jsonl"
    rows = [{"kind": "import", "messages": [{"role": "user", "content": f"How many is {number}?"}], "answer": f"It is {number}."} for number in range(1200)]
    export.write_text("".join(json.dumps(row) + "\n" for row in rows))
    answer = ground.say("import", files=str(export), consent="yes")
    assert answer.ok, answer
    assert "1200 signals are stored" in answer.message
    first = ground.counts()
    again = ground.say("import", files=str(export), consent="yes")
    assert "0 signals are stored, 1200 were known" in again.message
    pending = next((ground.home.root / "feedback" / ADAPTER / "pending").iterdir())
    lines = [json.dumps(json.loads(line)["signal"]) for line in pending.read_text().splitlines()]
    (ground.home.root / "feedback" / ".coming" / "command-x.jsonl").write_text("\n".join(lines) + "\n")  # it died before the last was stored
    ground.restart()
    ground.turn(5)
    assert ground.counts() == first
    assert not list((ground.home.root / "feedback" / ".coming").iterdir())
    assert ground.say("import", files=str(tmp_path / "none.json")).ok is False


def test_a_broken_spool_line_holds_up_its_target_alone(ground: SignalHome) -> None:
    ground.spool([signal(1)], first=1)
    (mirror(ground.home, "local") / "spool" / f"{2:012d}.jsonl").write_text("no signal\n")
    ground.turn()
    assert (stored(ground), ground.ack()) == ([1], 1)
    assert ground.index.incident is not None
    assert ground.index.incident.code == "SPOOL_DAMAGED", "a person is told"
    assert ground.say("flush").ok
