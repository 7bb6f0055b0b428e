"""Pending signals become a drop, exactly one; and what the gate says of it comes back to them."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from signal_home import ADAPTER, SignalHome, signal

from core.records import Deep
from core.signals import Batch, Standing
from daemon.chores import work_of
from store.feedback import Shelf

TWELVE = [signal(number) for number in range(12)]


@pytest.fixture
def ground(tmp_path: Path) -> SignalHome:
    made = SignalHome(tmp_path)
    made.spool(TWELVE, first=1)
    made.turn()
    return made


def batches(ground: SignalHome) -> list[Batch]:
    return ground.feedback.shelf.batches(ADAPTER)


def standing(ground: SignalHome) -> dict[str, int]:
    """As memory has it, and as a restart would find it."""
    counts = ground.counts()
    assert Shelf(ground.home).counts()[ADAPTER] == counts
    told = {"rows": counts.rows, "queued": counts.queued, "quarantined": counts.quarantined}
    return {name: count for name, count in told.items() if count}


def test_a_batch_is_one_drop_and_the_same_key_is_the_same_batch(ground: SignalHome) -> None:
    first = ground.feedback.begin_batch(ADAPTER, "enough", "key-1", ground.now)
    assert ground.feedback.begin_batch(ADAPTER, "enough", "key-1", ground.now) == first
    assert ground.counts().rows == 12, "nothing is taken before it is made"
    ground.turn()
    (file,) = ground.inbox()
    (batch,) = batches(ground)
    assert batch.id.startswith(first)
    assert len(file.read_text().splitlines()) == len(batch.rows) == 12
    sidecar = json.loads(file.with_name(file.name.removesuffix(".jsonl") + ".job.json").read_text())
    assert (sidecar["lineage"]["batch"], sidecar["lineage"]["trigger"], len(sidecar["lineage"]["signals"])) == (batch.id, "enough", 12)
    assert standing(ground) == {"queued": 12}
    ground.restart()
    assert ground.feedback.begin_batch(ADAPTER, "enough", "key-1", ground.now) == first
    ground.turn()
    assert len(ground.inbox()) == 1
    assert not list(ground.home.root.glob("feedback/*/*/queued/*.wanted.json"))


def test_a_wish_outlives_the_daemon_and_a_chore_that_fails(ground: SignalHome, monkeypatch: pytest.MonkeyPatch) -> None:
    ground.worker.is_stuck = True
    ground.feedback.begin_batch(ADAPTER, "enough", "key-1", ground.now)
    ground.turn()
    ground.restart()
    with monkeypatch.context() as patch:
        patch.setattr("feedback.batch.rows_of", lambda *given: 1 // 0)
        ground.turn()
    assert ("batch.failed" in [action for action, _ in ground.told], ground.inbox()) == (True, [])
    ground.restart()
    ground.turn()
    assert len(ground.inbox()) == 1
    assert standing(ground) == {"queued": 12}


@pytest.mark.parametrize("dies_before", ["replace_file", "os.rename", "after"])
def test_a_chore_that_dies_anywhere_is_repeated_into_exactly_one_drop(ground: SignalHome, monkeypatch: pytest.MonkeyPatch, dies_before: str) -> None:
    id = ground.feedback.begin_batch(ADAPTER, "enough", "key-1", ground.now)
    spec = {"adapter": ADAPTER, "id": id}

    def dies(*given: object, **more: object) -> None:
        raise KeyboardInterrupt

    if dies_before == "after":
        work_of("batch")(ground.home, spec)
    else:
        with monkeypatch.context() as patch:
            patch.setattr(f"feedback.batch.{dies_before}", dies)
            with pytest.raises(KeyboardInterrupt):
                work_of("batch")(ground.home, spec)
    ground.restart()
    ground.turn()
    assert len(ground.inbox()) == 1
    assert standing(ground) == {"queued": 12}


def test_what_the_gate_accepts_stays_queued_and_leaves_the_log(ground: SignalHome) -> None:
    assert ground.say("flush").ok
    ground.turn()
    (file,) = ground.inbox()
    drop = ground.accept(file)
    ground.turn()
    assert standing(ground) == {"queued": 12}
    assert [batch.drop for batch in batches(ground)] == [drop]
    assert list(ground.home.root.glob("feedback/*/*/pending/*")) == []
    ground.spool([signal(3)], first=13)
    ground.turn()
    assert standing(ground) == {"queued": 12}, "what was learnt is not learnt again"
    refused = ground.say("flush")
    assert (refused.ok, refused.code) == (False, "NOTHING_PENDING")


def test_rows_that_the_gate_puts_aside_are_quarantined_with_its_words(ground: SignalHome) -> None:
    ground.say("flush")
    ground.turn()
    (batch,) = batches(ground)
    ground.accept(ground.inbox()[0], aside={4: ["P03", "P01"]})
    ground.turn()
    assert standing(ground) == {"queued": 11, "quarantined": 1}
    (held,) = ground.feedback.shelf.notes(ADAPTER, Standing.QUARANTINED)
    assert (held.id, held.code) == (next(id for id, line in batch.rows.items() if line == 4), "P03, P01")


def test_a_secret_is_quarantined_by_name_and_the_others_go_on_by_themselves(ground: SignalHome) -> None:
    ground.say("flush")
    ground.turn()
    (file,) = ground.inbox()
    (batch,) = batches(ground)
    ground.refuse(file, {"id": "P02", "lines": [7], "message": "an API key in the answer"})
    ground.turn(5)
    named = next(id for id, line in batch.rows.items() if line == 7)
    (held,) = ground.feedback.shelf.notes(ADAPTER, Standing.QUARANTINED)
    assert (held.id, held.code, held.message) == (named, "P02", "an API key in the answer")
    (again,) = ground.inbox()
    assert len(again.read_text().splitlines()) == 11
    assert standing(ground) == {"queued": 11, "quarantined": 1}
    assert [one.refused for one in batches(ground)] == ["P02", ""]
    ground.restart()
    ground.turn()
    assert ground.inbox() == [again], "a restart makes no third one"
    ground.accept(again)
    assert ground.say("accept", id=named).ok
    ground.turn()
    assert standing(ground) == {"queued": 11, "rows": 1}


def bad_ones(ground: SignalHome) -> None:
    """The gate refuses what lies in the inbox for up to five rows, as a report names no more: those of `spoilt` are bad."""
    for file in ground.inbox():
        bad = [number for number, line in enumerate(file.read_text().splitlines(), 1) if json.loads(line)["id"] in SPOILT][:5]
        ground.refuse(file, {"id": "M05", "lines": bad, "message": "the answer is cut off"})


SPOILT = {signal(number).id for number in range(100, 123)}


@pytest.fixture
def spoilt(tmp_path: Path) -> SignalHome:
    """Sixty signals in a batch, 23 of them bad."""
    made = SignalHome(tmp_path)
    made.spool([signal(number, source=f"source{number}") for number in range(80, 140)], first=1)
    made.turn()
    made.feedback.begin_batch(ADAPTER, "enough", "key-1", made.now)
    made.turn()
    return made


def test_rows_that_are_left_go_round_once_a_cool_down_and_not_at_once_again_and_again(spoilt: SignalHome) -> None:
    began, rounds = spoilt.now, list[float]()
    for _ in range(6 * 60):
        if spoilt.inbox():
            rounds.append((spoilt.now - began).total_seconds() / 3600)
            bad_ones(spoilt)
            if len(rounds) == 3:
                spoilt.restart()
        spoilt.turn()
        assert spoilt.counts().rows + spoilt.counts().queued + spoilt.counts().quarantined == 60, "the others wait, and nothing is lost"
        spoilt.now += timedelta(minutes=1)
    assert [round(hours) for hours in rounds] == [0, 0, 1, 2, 3, 4], "the first round at once, the others a cool-down apart, also over a restart"
    assert standing(spoilt) == {"rows": 37, "quarantined": 23}


def test_no_round_begins_while_the_loop_is_stopped(spoilt: SignalHome) -> None:
    stopped = {ADAPTER}
    spoilt.feedback.batches.is_stopped = stopped.__contains__
    bad_ones(spoilt)
    for _ in range(5):
        spoilt.now += timedelta(hours=2)
        spoilt.turn()
    assert spoilt.inbox() == []
    assert standing(spoilt) == {"rows": 55, "quarantined": 5}
    stopped.clear()
    spoilt.turn()
    assert len(spoilt.inbox()) == 1
    assert standing(spoilt) == {"queued": 55, "quarantined": 5}


def test_a_person_who_asks_waits_for_no_round(spoilt: SignalHome) -> None:
    for _ in range(2):
        bad_ones(spoilt)
        spoilt.turn()
    assert (spoilt.inbox(), standing(spoilt)) == ([], {"rows": 50, "quarantined": 10}), "its cool-down is not over"
    assert spoilt.say("flush").ok
    spoilt.turn()
    assert len(spoilt.inbox()) == 1
    spoilt.now += timedelta(hours=2)
    spoilt.turn()
    assert len(spoilt.inbox()) == 1, "for the round nothing is left"
    assert not list(spoilt.home.root.glob("feedback/*/*/queued/*.wanted.json"))


def test_a_clock_that_is_set_back_keeps_no_round_waiting_for_days(spoilt: SignalHome) -> None:
    for _ in range(2):
        bad_ones(spoilt)
        spoilt.turn()
    spoilt.now -= timedelta(days=30)
    spoilt.turn()
    assert len(spoilt.inbox()) == 1


def test_a_file_that_is_refused_as_a_whole_loses_nothing(ground: SignalHome) -> None:
    ground.say("flush")
    ground.turn()
    ground.refuse(ground.inbox()[0], {"id": "D01", "lines": [], "message": "too few rows"})
    ground.turn(5)
    assert standing(ground) == {"rows": 12}
    assert ground.inbox() == [], "the same file would be refused again: the next trigger makes another"
    ground.say("flush")
    ground.turn()
    ground.refuse(ground.inbox()[0], {"id": "DUPLICATE", "lines": [], "message": "the rows were dropped before"})
    ground.turn()
    assert standing(ground) == {"quarantined": 12}


def test_a_report_that_names_a_few_of_many_still_stops_their_source(ground: SignalHome) -> None:
    ground.spool([signal(number, source="scraper") for number in range(100, 140)], first=13)
    ground.turn()
    ground.say("flush")
    ground.turn()
    (batch,) = batches(ground)
    bad = [batch.rows[signal(number).id] for number in range(100, 105)]
    ground.refuse(ground.inbox()[0], {"id": "M05", "lines": bad, "count": 38, "message": "the answer is cut off"})
    ground.turn(5)
    assert list(ground.counts().held_sources) == ["scraper"]
    assert standing(ground) == {"queued": 12, "quarantined": 40}
    freed = ground.say("accept", source="scraper")
    assert (freed.ok, "35 of its signals" in freed.message) == (True, True)


def test_nothing_is_said_while_the_deep_check_is_open(ground: SignalHome) -> None:
    ground.say("flush")
    ground.turn()
    file = ground.inbox()[0]
    drop = ground.accept(file, deep=Deep())
    ground.turn()
    assert [batch.drop for batch in batches(ground)] == [""]
    assert ground.feedback.batches._open[batches(ground)[0].id].drop == drop  # type: ignore[index]
    ground.index.lose_drop(drop)
    (ground.home.root / "drops" / "accepted" / drop).rename(ground.home.rejected / drop)
    (ground.home.rejected / drop / "report.json").write_text(json.dumps({"findings": [{"id": "N01", "severity": "error", "lines": [2], "count": 1}]}))
    ground.turn()
    assert batches(ground)[0].refused == "N01"


def test_a_decision_waits_while_a_batch_is_being_made(ground: SignalHome) -> None:
    ground.feedback.begin_batch(ADAPTER, "enough", "key-1", ground.now)
    ground.feedback.turn(ground.now)  # the chore waits for its turn
    answer = ground.say("reject", id=signal(5).id)
    assert (answer.ok, answer.code) == (False, "SIGNAL_QUEUED"), "it is in the drop, so nobody is told that it is not"
    assert standing(ground) == {"queued": 12}


def test_a_file_that_somebody_took_away_is_made_again(ground: SignalHome, monkeypatch: pytest.MonkeyPatch) -> None:
    ground.say("flush")
    ground.turn()
    ground.inbox()[0].unlink()
    ground.turn()
    assert standing(ground) == {"queued": 12}, "it may be on its way"
    monkeypatch.setattr("daemon.batches.GONE_S", -1)
    ground.turn()
    assert standing(ground) == {"rows": 12}
