"""One target's deliveries, turn by turn, over the real rsync to a box that is played."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from core.wire import Observed, Outcome
from deploy import rsync
from deploy.delivery import BUSY_S, IDLE_S, Delivery
from deploy.rsync import road_to
from store import codec
from store.keys import ensure_keys
from store.seals import is_sealed
from store.targets import ledger_of, observed_of

ALIAS = "default/main"


def settle(delivery, far, clock, turns: int = 6) -> Observed:
    """Let link and box take turns."""
    for _ in range(turns):
        delivery.turn()
        clock.pass_s(1)
        far.live()
    return delivery.turn()


def test_a_wished_release_goes_live_and_the_link_sees_it(workshop, delivery, far, wish, clock):
    far.start()
    release = workshop.release()
    wish(release)
    observed = settle(delivery, far, clock)
    state = observed.active.aliases[ALIAS]
    assert (state.release, state.outcome) == (release, Outcome.LIVE)
    assert (observed.reachable, observed.code, observed.fence_pushed, observed.ledger_lines) == (True, "", 1, 1)
    assert [line.release for line in ledger_of(workshop.home, "near")] == [release]
    assert observed_of(workshop.home, "near") == observed
    assert delivery.pause_s == IDLE_S


def test_what_was_sent_whole_is_not_sent_again_while_the_box_judges(workshop, delivery, far, wish, clock):
    far.start()
    release = workshop.release()
    wish(release)
    for _ in range(6):
        delivery.turn()
        far.beat()
        clock.pass_s(8)
        assert delivery.pause_s == BUSY_S
    assert len(far.arrivals(release)) == 1
    assert is_sealed(far.arrivals(release)[0])


def test_after_a_minute_of_silence_it_is_sent_again_into_a_new_folder(workshop, delivery, far, wish, clock):
    far.start()
    release = workshop.release()
    wish(release)
    for _ in range(8):
        delivery.turn()
        far.beat()
        clock.pass_s(9)
    first, second = (int(folder.name.partition(".")[2]) for folder in far.arrivals(release))
    assert second > first


def test_a_release_that_the_box_lost_is_sent_again(workshop, delivery, far, wish, clock):
    far.start()
    release = workshop.release()
    wish(release)
    delivery.turn()
    shutil.rmtree(far.arrivals(release)[0])
    clock.pass_s(1)
    assert far.live().aliases[ALIAS].code == "RELEASE_MISSING"
    clock.pass_s(5)
    assert settle(delivery, far, clock).active.aliases[ALIAS].release == release


def test_a_wish_that_the_box_knows_without_its_release_gets_the_release(workshop, far, wish, clock, target):
    far.start()
    release = workshop.release()
    wish(release)
    rsync.send_file(road_to(target, workshop.home), workshop.home.target("near") / "desired.json")
    assert far.live().aliases[ALIAS].outcome is Outcome.DEFERRED
    observed = settle(Delivery(workshop.home, road_to(target, workshop.home), clock), far, clock)
    assert observed.active.aliases[ALIAS].release == release


def test_a_release_that_the_box_has_is_not_sent_for_a_rollback(workshop, delivery, far, wish, clock):
    far.start()
    first, second = workshop.release(1, seed=1), workshop.release(2, seed=2)
    for release in (first, second):
        wish(release)
        settle(delivery, far, clock)
    wish(first)
    observed = settle(delivery, far, clock)
    assert observed.active.aliases[ALIAS].release == first
    assert observed.active.releases == tuple(sorted([first, second]))
    assert far.arrivals(first) == []


def test_a_rollback_to_the_base_needs_no_release(workshop, delivery, far, wish, clock):
    far.start()
    wish(workshop.release())
    settle(delivery, far, clock)
    wish(None)
    observed = settle(delivery, far, clock)
    assert observed.active.aliases[ALIAS].release is None
    assert observed.active.fence_seen == observed.fence_pushed == 2


def test_two_aliases_are_delivered_together(workshop, delivery, far, wish, clock):
    far.start()
    one, other = workshop.release(seed=1), workshop.release(adapter="support/tone", seed=2)
    wish(one)
    wish(other, alias="support/tone")
    observed = settle(delivery, far, clock)
    assert {alias: state.release for alias, state in observed.active.aliases.items()} == {ALIAS: one, "support/tone": other}


def test_an_unreachable_box_is_reported_and_served_once_it_comes(workshop, delivery, far, wish, clock):
    release = workshop.release()
    wish(release)
    observed = delivery.turn()
    assert (observed.reachable, observed.code, observed.active) == (False, "TARGET_UNREACHABLE", None)
    assert "lorad serve" in observed.hint
    clock.pass_s(3600)
    assert delivery.turn().code == "TARGET_UNREACHABLE"
    assert delivery.pause_s == IDLE_S
    far.start()
    assert settle(delivery, far, clock).active.aliases[ALIAS].release == release


def test_a_box_without_a_sign_of_life_for_half_a_minute_is_unreachable(workshop, delivery, far, wish, clock):
    far.start()
    assert delivery.turn().reachable
    clock.pass_s(29)
    assert delivery.turn().reachable
    clock.pass_s(1)
    release = workshop.release()
    wish(release)
    observed = delivery.turn()
    assert (observed.reachable, observed.code) == (False, "TARGET_UNREACHABLE")
    assert "2026-11-21 12:00:00" in observed.reason
    assert far.arrivals(release) == []


@pytest.mark.parametrize("skew_s", [-3600, +3600])
def test_a_box_whose_clock_is_wrong_is_reachable_while_it_beats(delivery, far, clock, skew_s):
    far.start()
    far.clock = lambda: clock() + timedelta(seconds=skew_s)
    for _ in range(3):
        far.beat()
        observed = delivery.turn()
        clock.pass_s(10)
    assert observed.reachable
    clock.pass_s(30)
    assert not delivery.turn().reachable


def test_a_full_box_is_not_sent_anything_until_it_has_room(workshop, delivery, far, wish, clock):
    far.free_bytes = 10 << 20
    far.start()
    release = workshop.release()
    wish(release)
    observed = settle(delivery, far, clock)
    assert (observed.reachable, observed.code, observed.fence_pushed) == (True, "TARGET_DISK_FULL", 0)
    assert "10 MiB free" in observed.reason
    assert far.arrivals(release) == []
    far.free_bytes = 1 << 30
    far.beat()
    observed = settle(delivery, far, clock)
    assert (observed.code, observed.active.aliases[ALIAS].release) == ("", release)


def test_a_release_without_room_does_not_hold_up_the_rollback_of_another(workshop, delivery, far, wish, clock):
    far.free_bytes = 10 << 20
    far.start()
    wish(workshop.release())
    wish(None, alias="support/tone")
    observed = settle(delivery, far, clock)
    assert observed.active.aliases["support/tone"].outcome is Outcome.LIVE
    assert observed.active.aliases[ALIAS].code == "RELEASE_MISSING"
    assert observed.code == "TARGET_DISK_FULL"
    far.free_bytes = 1 << 30
    far.beat()
    assert settle(delivery, far, clock).active.aliases[ALIAS].outcome is Outcome.LIVE


def test_without_rsync_the_link_says_so_and_goes_on_trying(workshop, delivery, far, wish, clock, monkeypatch, tmp_path):
    far.start()
    release = workshop.release()
    wish(release)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path / "nothing"))
        observed = delivery.turn()
        assert (observed.reachable, observed.code) == (False, "RSYNC_MISSING")
        assert "install rsync" in observed.hint
    assert settle(delivery, far, clock).active.aliases[ALIAS].release == release


def test_a_broken_transfer_is_tried_again_later_into_a_new_folder(workshop, delivery, far, wish, clock):
    far.start()
    release = workshop.release()
    wish(release)
    delivery.turn()  # both the release and the wish are there
    arrival = far.arrivals(release)[0]
    shutil.rmtree(arrival)
    far.live()
    far.box.incoming.rmdir()  # the next transfer finds no place
    clock.pass_s(6)
    far.beat()
    assert delivery.turn().code == "TARGET_UNREACHABLE"
    far.box.incoming.mkdir()
    assert delivery.turn().code == "TARGET_UNREACHABLE"  # still waiting
    assert far.arrivals(release) == []
    clock.pass_s(1)
    assert delivery.turn().code == ""
    assert int(far.arrivals(release)[0].suffix[1:]) > int(arrival.suffix[1:])


def test_bytes_damaged_on_this_box_are_not_sent(workshop, delivery, far, wish, clock):
    far.start()
    release = workshop.release()
    path = workshop.home.release(ALIAS, 1) / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    wish(release)
    observed = delivery.turn()
    assert (observed.reachable, observed.code) == (True, "RELEASE_BYTES")
    assert far.arrivals(release) == []


def test_bytes_damaged_on_the_way_are_refused_by_the_box_and_the_link_sees_it(workshop, delivery, far, wish, clock):
    far.start()
    release = workshop.release()
    wish(release)
    delivery.turn()
    path = far.arrivals(release)[0] / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    observed = settle(delivery, far, clock)
    state = observed.active.aliases[ALIAS]
    assert (state.release, state.outcome, state.code) == (None, Outcome.REFUSED, "RELEASE_BYTES")


def test_a_release_that_is_not_on_this_box_is_named(workshop, delivery, far, wish):
    far.start()
    wish("f" * 64)
    observed = delivery.turn()
    assert (observed.code, observed.fence_pushed) == ("RELEASE_NOT_HERE", 0)
    assert observed.hint


def test_a_half_made_release_does_not_exist(workshop, delivery, far, wish):
    far.start()
    release = workshop.release()
    (workshop.home.release(ALIAS, 1) / "SEALED").unlink()
    wish(release)
    assert delivery.turn().code == "RELEASE_NOT_HERE"


def test_a_wish_that_is_not_whole_is_reported(workshop, delivery, far, wish):
    far.start()
    (workshop.home.target("near")).mkdir(parents=True)
    (workshop.home.target("near") / "desired.json").write_text('{"fence"')
    observed = delivery.turn()
    assert (observed.reachable, observed.code) == (True, "WISH_DAMAGED")


def test_without_a_wish_the_link_only_looks(workshop, delivery, far):
    far.start()
    observed = delivery.turn()
    assert (observed.reachable, observed.code, observed.fence_pushed, observed.active) == (True, "", 0, None)
    assert not far.box.desired.exists()


def test_a_new_link_goes_on_where_the_killed_one_stopped(workshop, delivery, far, wish, clock, target):
    far.start()
    release = workshop.release()
    wish(release)
    delivery.turn()
    attempt = int(far.arrivals(release)[0].suffix[1:])
    after = Delivery(workshop.home, road_to(target, workshop.home), clock)
    after.turn()
    assert [int(folder.suffix[1:]) for folder in far.arrivals(release)] == [attempt, attempt + 1]
    observed = settle(after, far, clock)
    assert (observed.active.aliases[ALIAS].release, observed.fence_pushed) == (release, 1)


def test_the_wish_arrives_as_it_was_signed(workshop, delivery, far, wish, clock):
    far.start()
    wish(workshop.release())
    settle(delivery, far, clock)
    assert far.raw_wish == (workshop.home.target("near") / "desired.json").read_bytes()


def test_a_box_that_trusts_another_key_never_serves_it(workshop, delivery, far, wish, clock, tmp_path):
    ensure_keys(tmp_path / "other")
    far.trust = tmp_path / "other"
    far.start()
    wish(workshop.release())
    delivery.turn()
    with pytest.raises(Exception, match="trusted training box"):
        far.live()


def test_observed_is_always_whole(workshop, delivery, far):
    far.start()
    path = workshop.home.target("near") / "observed.json"
    for _ in range(3):
        delivery.turn()
        assert codec.read(Observed, path).target == "near"
    assert [entry.name for entry in Path(path.parent).glob(".*")] == []
