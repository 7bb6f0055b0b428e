"""A release that is only to be rehearsed is sent too, once, and needs no wish for it."""

from core.wire import Trial
from store.targets import desired_of, set_trial


def test_a_release_to_be_rehearsed_is_sent_once(workshop, delivery, far, clock):
    far.start()
    release = workshop.release()
    set_trial(workshop.home, "near", release, Trial(id="t", alias="default/main"), clock())
    for _ in range(4):
        delivery.turn()
        far.beat()
        clock.pass_s(1)
    assert len(far.arrivals(release)) == 1
    desired = desired_of(workshop.home, "near")
    assert desired is not None
    assert (desired.aliases, list(desired.trials)) == ({}, [release])
