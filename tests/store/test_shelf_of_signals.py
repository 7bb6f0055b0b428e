"""Signals are stored once, durably, within caps; people decide about them; batches hold them until the gate has spoken."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from core.errors import StateError
from core.learning import FeedbackConfig
from core.signals import Batch, Origin, Signal, SignalKind, Standing
from store.codec import write
from store.feedback import Decision, Fault, Shelf, read_shelf
from store.paths import Home

NOON = datetime(2026, 1, 6, 12, tzinfo=UTC)
ADAPTER = "support/tone"
LIMITS = FeedbackConfig()


def signal(number: int, **fields: Any) -> Signal:
    said: dict[str, Any] = {"id": f"{number:032x}", "kind": SignalKind.CORRECTION, "persona": "support", "domain": "tone", "at": NOON, "consent": True}
    said |= {
        "input": ({"role": "user", "content": f"What is {number}?"},),
        "wrong_output": "A word.",
        "correct_output": f"The number {number}.",
        "source": "api",
    }
    return Signal(**(said | fields))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.prepare()
    return made


def files(home: Home) -> list[str]:
    return sorted(path.name for path in (home.root / "feedback" / ADAPTER / "pending").iterdir())


def batch_of(home: Home, shelf: Shelf, numbers: range, id: str = "batch-20260106-120000-000-aa-sft") -> Batch:
    """As the chore leaves it."""
    folder = home.root / "feedback" / ADAPTER / "queued"
    folder.mkdir(parents=True, exist_ok=True)
    signals = [signal(number) for number in numbers]
    (folder / f"{id}.jsonl").write_text("".join(json.dumps({"id": one.id}) + "\n" for one in signals))
    rows = {one.id: line for line, one in enumerate(signals, 1)}
    write(folder / f"{id}.json", Batch(id=id, adapter=ADAPTER, trigger="enough", made_at=NOON, file=f"feedback-{id}.jsonl", rows=rows))
    taken = shelf.take(ADAPTER, id)
    assert taken is not None
    return taken


def test_a_signal_that_comes_twice_is_stored_once_also_after_a_restart(home: Home) -> None:
    shelf = Shelf(home)
    assert shelf.add([signal(1), signal(2), signal(1)], NOON, LIMITS).known == 1
    again = Shelf(home)
    assert again.add([signal(1), signal(2), signal(3)], NOON, LIMITS).known == 2
    assert [one.correct_output for one in read_shelf(home).signals(ADAPTER, Standing.PENDING)] == ["The number 1.", "The number 2.", "The number 3."]
    assert again.counts() == read_shelf(home).counts()
    assert again.counts()[ADAPTER].rows == again.counts()[ADAPTER].arrived == 3
    assert files(home) == ["2026-01-06-001.jsonl"]


def test_a_torn_last_line_costs_nothing_but_itself(home: Home) -> None:
    Shelf(home).add([signal(1)], NOON, LIMITS)
    path = home.root / "feedback" / ADAPTER / "pending" / "2026-01-06-001.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-40])  # the crash came in the middle of the second line
    shelf = Shelf(home)
    assert shelf.counts()[ADAPTER].rows == 1
    shelf.add([signal(2)], NOON, LIMITS)
    assert [one.id for one in Shelf(home).signals(ADAPTER, Standing.PENDING)] == [signal(1).id, signal(2).id]


def test_a_file_for_each_day_in_order_also_where_the_clock_goes_back(home: Home) -> None:
    shelf = Shelf(home)
    shelf.add([signal(1)], NOON, LIMITS)
    shelf.add([signal(2)], NOON + timedelta(days=1), LIMITS)
    shelf.add([signal(3)], NOON, LIMITS)
    assert files(home) == ["2026-01-06-001.jsonl", "2026-01-07-001.jsonl"]
    assert [one.id[-1] for one in Shelf(home).signals(ADAPTER, Standing.PENDING)] == ["1", "2", "3"]


def test_what_only_a_person_can_settle_waits_in_the_review(home: Home) -> None:
    shelf = Shelf(home)
    found = signal(1, is_proposal=True, confidence=0.7, source="detected")
    mistake = signal(2, kind=SignalKind.MISTAKE, correct_output="")
    shelf.add([found, mistake, signal(3, kind=SignalKind.POSITIVE, correct_output="")], NOON, LIMITS)
    counts = shelf.counts()[ADAPTER]
    assert (counts.rows, counts.review, counts.mistakes) == (1, 2, 1)
    shelf.decide(Decision(id=found.id, what="accept", actor="ada"), NOON)
    shelf.decide(Decision(id=mistake.id, what="edit", actor="ada", correct_output="The number two."), NOON)
    for known in (shelf, Shelf(home)):
        counts = known.counts()[ADAPTER]
        assert (counts.rows, counts.review, counts.arrived) == (3, 0, 3)
        edited = next(one for one in known.signals(ADAPTER, Standing.PENDING) if one.id == mistake.id)
        assert (edited.correct_output, edited.kind, edited.origin, edited.weight) == ("The number two.", SignalKind.CORRECTION, Origin.HUMAN, 1.0)
    shelf.decide(Decision(id=found.id, what="reject"), NOON)
    assert Shelf(home).counts()[ADAPTER].rejected == 1
    assert shelf.add([found], NOON, LIMITS).known == 1, "what a person rejected does not come back"
    with pytest.raises(StateError, match="no signal 'nobody'"):
        shelf.decide(Decision(id="nobody", what="accept"), NOON)


def test_consent_counts_only_where_it_is_demanded(home: Home) -> None:
    shelf = Shelf(home)
    shelf.add([signal(1, consent=False), signal(2)], NOON, LIMITS)
    assert (shelf.counts()[ADAPTER].rows, shelf.counts()[ADAPTER].pending) == (1, 2)
    shelf.follow(FeedbackConfig(require_consent=False))
    assert shelf.counts()[ADAPTER].rows == 2


def test_a_flood_of_one_user_is_capped_and_goes_on_by_and_by(home: Home) -> None:
    shelf = Shelf(home)
    limits = FeedbackConfig(user_cap=3, source_cap=5)
    flood = [signal(number, user="bot") for number in range(8)]
    shelf.add([*flood, signal(100, user="ada"), signal(101, user="bea"), signal(102, user="cyd")], NOON, limits)
    counts = shelf.counts()[ADAPTER]
    assert (counts.rows, counts.capped) == (5, 6), "three of the flood, two others; then the source itself is full"
    shelf = Shelf(home)
    shelf.follow(limits)
    assert not shelf.tend(NOON + timedelta(hours=1)), "the day is the same"
    assert shelf.add([signal(200, user="bot")], NOON + timedelta(hours=2), limits).standings == {signal(200).id: Standing.CAPPED}
    shelf.tend(NOON + timedelta(days=1))
    counts = shelf.counts()[ADAPTER]
    assert (counts.rows, counts.capped, counts.arrived) == (8, 4, 8), "three more of the flood; then half of the source's cap is kept for today"
    assert shelf.add([signal(300, user="dan")], NOON + timedelta(days=1), limits).standings == {signal(300).id: Standing.PENDING}
    assert Shelf(home).counts()[ADAPTER].rows == 9


def test_so_many_wait_over_a_cap_and_no_more_until_some_go_on(home: Home) -> None:
    limits = FeedbackConfig(user_cap=2, waiting_cap=5)
    flood = [signal(number, user="bot") for number in range(20)]
    shelf = Shelf(home)
    added = shelf.add(flood, NOON, limits)
    assert list(added.refused) == [one.id for one in flood[7:]]
    assert set(added.refused.values()) == {"5 signals of support/tone wait over a cap, as many as feedback.waiting_cap lets wait"}
    size = sum(path.stat().st_size for path in home.root.rglob("pending/*"))
    shelf = Shelf(home)
    assert (shelf.add(flood, NOON, limits).known, sum(path.stat().st_size for path in home.root.rglob("pending/*"))) == (7, size)
    assert shelf.counts()[ADAPTER].capped == 5
    others = [signal(50, user="ada"), signal(51, user="bot", domain="other"), signal(1, user="bot")]
    assert list(shelf.add(others, NOON, limits).standings.values()) == [Standing.PENDING] * 2, "nobody else is left out"
    shelf.follow(limits)
    shelf.tend(NOON + timedelta(days=1))
    assert list(shelf.add(flood[7:], NOON + timedelta(days=1), limits).standings) == [one.id for one in flood[7:9]], "as many as went on"
    assert shelf.add(flood[9:], NOON, FeedbackConfig(user_cap=2, waiting_cap=0)).refused == {}, "0 means no bound"
    assert FeedbackConfig().waiting_cap == 20 * FeedbackConfig().source_cap, "a flood that lasts for weeks"


def test_names_that_no_adapter_has_are_stored_nowhere(home: Home) -> None:
    shelf = Shelf(home)
    added = shelf.add([signal(1, persona="../up"), signal(2, domain="rejected"), signal(3)], NOON, LIMITS)
    assert set(added.refused) == {signal(1).id, signal(2).id}
    assert [path.name for path in (home.root / "feedback").iterdir()] == ["support"]


def test_a_batch_holds_its_signals_until_it_is_refused_or_settled(home: Home) -> None:
    shelf = Shelf(home)
    shelf.add([signal(number) for number in range(6)], NOON, LIMITS)
    first = batch_of(home, shelf, range(4))
    for known in (shelf, Shelf(home)):
        assert (known.counts()[ADAPTER].rows, known.counts()[ADAPTER].queued) == (2, 4)
    shelf.give_back(first, "drop-1", "P01", {signal(1).id: Fault(code="P01", message="a secret")}, NOON)
    for known in (shelf, Shelf(home)):
        counts = known.counts()[ADAPTER]
        assert (counts.rows, counts.queued, counts.quarantined, counts.arrived) == (5, 0, 1, 6)
        (held,) = known.notes(ADAPTER, Standing.QUARANTINED)
        assert (held.id, held.code, held.message) == (signal(1).id, "P01", "a secret")
    second = batch_of(home, shelf, range(2, 6), "batch-20260106-130000-000-bb-sft")
    shelf.settle(second, "drop-2", {signal(3).id: Fault(code="M01")}, NOON)
    for known in (shelf, Shelf(home)):
        counts = known.counts()[ADAPTER]
        assert (counts.rows, counts.queued, counts.quarantined, counts.arrived) == (1, 3, 2, 6)
        assert known.add([signal(4)], NOON, LIMITS).known == 1, "what was learnt does not come again"
    assert shelf.tend(NOON), "most of the log is dead"
    assert len((home.root / "feedback" / ADAPTER / "pending" / files(home)[0]).read_text().splitlines()) == 3
    assert Shelf(home).counts()[ADAPTER] == shelf.counts()[ADAPTER]


def test_a_source_that_fails_the_gate_too_often_waits_for_a_person(home: Home) -> None:
    shelf = Shelf(home)
    bad = [signal(number, source="scraper") for number in range(12)]
    shelf.add([*bad, signal(100), signal(101, source="scraper")], NOON, LIMITS)
    batch = batch_of(home, shelf, range(12))
    shelf.give_back(batch, "drop-1", "M01", {one.id: Fault(code="M01") for one in bad[:5]}, NOON)
    counts = shelf.counts()[ADAPTER]
    assert (counts.rows, counts.quarantined) == (1, 13)
    assert "5 of 12 rows" in counts.held_sources["scraper"]
    again = Shelf(home)
    assert again.add([signal(200, source="scraper")], NOON, LIMITS).standings == {signal(200).id: Standing.QUARANTINED}
    assert again.accept_source(ADAPTER, "scraper", "ada", NOON) == 9, "five rows that the gate named stay where they are"
    counts = Shelf(home).counts()[ADAPTER]
    assert (counts.rows, counts.quarantined, counts.held_sources) == (10, 5, {})
    with pytest.raises(StateError, match="not quarantined"):
        again.accept_source(ADAPTER, "nobody", "ada", NOON)


def test_a_forgotten_signal_leaves_its_id_and_no_text(home: Home) -> None:
    shelf = Shelf(home)
    shelf.add([signal(number) for number in range(3)], NOON, LIMITS)
    shelf.cut([signal(1).id])
    raw = b"".join(path.read_bytes() for path in home.root.rglob("*.jsonl"))
    assert b"The number 1." not in raw
    assert b"The number 2." in raw
    for known in (shelf, Shelf(home)):
        assert known.counts()[ADAPTER].rows == 2
        assert known.add([signal(1)], NOON, LIMITS).known == 1
        found = known.find(signal(1).id)
        assert found is not None
        assert (found.standing, found.signal) == (Standing.FORGOTTEN, None)
        assert known.find(signal(2).id).signal == signal(2)  # type: ignore[union-attr]


def test_a_full_disk_takes_nothing_by_half(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(home)
    shelf.add([signal(1)], NOON, LIMITS)

    def full(*paths: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("store.feedback.sync_together", full)
        with pytest.raises(OSError, match="No space"):
            shelf.add([signal(2), replace(signal(3), user="u")], NOON, FeedbackConfig(source_cap=3))
    assert shelf.counts()[ADAPTER].rows == 1
    assert set(shelf.add([signal(2), signal(3)], NOON, FeedbackConfig(source_cap=3)).standings.values()) == {Standing.PENDING}
    assert Shelf(home).counts()[ADAPTER].rows == 3
