"""What a job trains on is named when it is made, and is found again later: by a short form whose price does not grow."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from core.errors import IntegrityError
from core.names import stamp, stamp_after
from core.records import Accepted, Claim, Deep, DeepState, Drop, DropList, DropRef, DropState, JobCard, Settling
from daemon.shelf import Shelf

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Home:
    """Drops in memory, as the index holds them."""

    def __init__(self) -> None:
        self.drops: dict[str, Drop] = {}
        self.shelf = Shelf(self.drops)

    def put(self, number: int, adapter: str = "a/main", **facts: object) -> Drop:
        """An accepted drop; a repeat changes it."""
        given = {"job": f"job-{number:03d}", "sha256": f"sha-{number}", "identity": f"{number}", "rows": 3, "schema_id": "s", "job_made": True, **facts}
        return self.keep(number, adapter, DropState.ACCEPTED, Accepted(at=NOW, **given))  # type: ignore[arg-type]

    def come(self, number: int, adapter: str = "a/main") -> Drop:
        """A drop that is claimed and not accepted yet."""
        return self.keep(number, adapter, DropState.SETTLING, Settling(since=NOW))

    def keep(self, number: int, adapter: str, state: DropState, facts: Settling | Accepted) -> Drop:
        name = f"drop-{number:03d}"
        at = NOW + timedelta(hours=number)
        claim = Claim(drop=name, adapter=adapter, source="x", device=1, inode=number, size_bytes=100, mtime_ns=1, file="x.jsonl", claimed_at=at)
        self.drops[name] = Drop(claim=claim, state=state, facts=facts)
        self.shelf.put(self.drops[name])
        return self.drops[name]

    def card(self, own: Drop, released: frozenset[str] = frozenset()) -> JobCard:
        named = self.shelf.list_for(own, released)
        fields = {"file": "x", "sha256": "0", "identity": "0", "base_sha256": "b", "backend": "stub", "created_at": NOW, "rows_of": named}
        return JobCard(id="job-1", adapter=own.claim.adapter, drop=own.id, **fields)  # type: ignore[arg-type]

    def names(self, card: JobCard) -> list[int]:
        return [int(ref.id.removeprefix("drop-")) for ref in self.shelf.refs_of(card)]


@pytest.fixture
def home() -> Home:
    return Home()


def test_a_job_trains_on_what_its_adapter_had_accepted_up_to_its_own_drop(home: Home) -> None:
    for number in (1, 2, 3):
        home.put(number)
    home.put(4, adapter="b/main")
    card = home.card(home.drops["drop-002"])
    assert home.names(card) == [1, 2]
    assert [ref.sha256 for ref in home.shelf.refs_of(card)] == ["sha-1", "sha-2"]
    assert card.num_drops == 2


def test_what_was_set_aside_before_is_left_out_and_what_is_set_aside_later_stays(home: Home) -> None:
    for number in (1, 2, 3):
        home.put(number)
    home.put(1, set_aside="refused")
    card = home.card(home.drops["drop-003"])
    assert home.names(card) == [2, 3]
    home.put(2, set_aside="refused later")
    assert home.names(card) == [2, 3], "the list was fixed when the job was made"
    assert home.names(home.card(home.drops["drop-003"])) == [3]


def test_a_drop_whose_retry_was_released_counts_again(home: Home) -> None:
    home.put(1, set_aside="refused")
    own = home.put(2)
    assert home.names(home.card(own)) == [2]
    assert home.names(home.card(own, frozenset({"drop-001"}))) == [1, 2]


def test_a_retry_of_a_refused_job_trains_on_its_own_drop(home: Home) -> None:
    home.put(1)
    own = home.put(2, set_aside="refused")
    home.put(3)
    assert home.names(home.card(own)) == [1, 2]


def test_an_earlier_drop_that_is_accepted_later_is_in_no_job_that_was_there_before(home: Home) -> None:
    home.come(1)
    own = home.put(2)
    card = home.card(own)
    home.put(1)
    assert home.names(card) == [2]
    assert home.names(home.card(home.put(3))) == [1, 2, 3]


def test_a_drop_that_was_refused_after_all_is_taken_out_of_a_queued_card(home: Home) -> None:
    home.put(1)
    home.put(2, deep=Deep())
    own = home.put(3)
    card = home.card(own)
    assert home.names(card) == [1, 2, 3]
    home.put(2, deep=Deep(state=DeepState.REFUSED))
    after = home.shelf.without(card, "drop-002")
    assert home.names(after) == [1, 3]
    home.shelf.take(home.drops.pop("drop-002"))
    assert home.names(after) == [1, 3]
    assert not after.trains_on("drop-002", "a/main")
    assert after.trains_on("drop-001", "a/main")
    assert not after.trains_on("drop-001", "b/main")


def test_drops_that_are_gone_are_told_and_never_trained_without(home: Home) -> None:
    home.put(1)
    card = home.card(home.put(2))
    home.shelf.take(home.drops.pop("drop-001"))
    with pytest.raises(IntegrityError, match="2 drops") as caught:
        home.shelf.refs_of(card)
    assert caught.value.code == "ROWS_MISSING"


def test_a_drop_of_other_bytes_under_the_same_name_is_told(home: Home) -> None:
    home.put(1)
    card = home.card(home.put(2))
    home.put(1, sha256="other")
    with pytest.raises(IntegrityError):
        home.shelf.refs_of(card)


def test_the_card_of_an_earlier_lorad_names_each_drop_and_is_read_as_it_is(home: Home) -> None:
    home.put(1)
    own = home.put(2)
    old = replace(home.card(own), rows_of=None, drops=(DropRef(id="drop-002", sha256="sha-2"),))
    assert home.names(old) == [2]
    assert (old.num_drops, old.trains_on("drop-001", "a/main"), old.trains_on("drop-002", "a/main")) == (1, False, True)
    assert home.shelf.without(old, "drop-002").drops == ()


def test_a_restart_comes_to_the_same_lists(home: Home) -> None:
    cards = [home.card(home.put(number)) for number in range(1, 8)]
    again = Home()
    for drop in reversed(list(home.drops.values())):
        again.drops[drop.id] = drop
        again.shelf.put(drop)
    assert [again.names(card) for card in cards] == [list(range(1, number + 1)) for number in range(1, 8)]
    assert again.card(again.drops["drop-007"]).rows_of == cards[-1].rows_of


def test_the_card_of_the_last_of_many_is_as_short_as_that_of_the_first(home: Home) -> None:
    first, last = home.card(home.put(1)), None
    for number in range(2, 900):
        last = home.card(home.put(number))
    assert last is not None
    assert isinstance(last.rows_of, DropList)
    assert last.rows_of.count == 899
    assert len(repr(last)) <= len(repr(first)) + 8


def test_marks_follow_each_drop(home: Home) -> None:
    home.come(1)
    home.put(2, deep=Deep())
    home.put(3, job_made=False)
    assert (home.shelf.jobless, home.shelf.unproven) == ({"drop-001", "drop-003"}, {"drop-002"})
    assert home.shelf.unproven_of() == {"a/main": ("drop-002",)}
    home.put(2, deep=Deep(state=DeepState.PASSED), set_aside="x")
    home.put(3)
    home.shelf.take(home.drops.pop("drop-001"))
    assert (home.shelf.jobless, home.shelf.unproven, home.shelf.set_aside) == (set(), frozenset(), {"drop-002"})


def test_bytes_of_a_persona_are_those_of_a_day_and_of_what_still_waits(home: Home) -> None:
    home.come(1)
    home.put(2, adapter="a/other")
    home.put(30)
    home.put(31, adapter="b/main")
    assert home.shelf.bytes_since(NOW + timedelta(hours=29)) == {"a": 200, "b": 100}, "1 waits still, 2 is older than a day"
    home.put(32)
    assert home.shelf.bytes_since(NOW + timedelta(hours=29))["a"] == 300
    home.shelf.take(home.drops.pop("drop-032"))
    assert home.shelf.bytes_since(NOW + timedelta(hours=29))["a"] == 200


def test_names_keep_their_order_within_a_millisecond_and_where_the_clock_was_set_back() -> None:
    first = f"drop-{stamp(NOW, 'ffffff')}"
    second = f"drop-{stamp_after(first, NOW, '000000')}"
    third = f"drop-{stamp_after(second, NOW - timedelta(days=1), '000000')}"
    later = f"drop-{stamp_after(third, NOW + timedelta(days=1), '000000')}"
    assert first < second < third < later
    assert later == f"drop-{stamp(NOW + timedelta(days=1), '000000')}"
    assert stamp_after("", NOW, "abc") == stamp_after("job-odd", NOW, "abc") == stamp(NOW, "abc")
