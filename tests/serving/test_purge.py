"""A wish that names releases to delete: the box deletes them once none is live, and confirms it."""

from dataclasses import replace

from inference_box import ALIAS, START, World
from watched_box import release_with, until, watch, watched, wish_with

from core.wire import Desired, Outcome, Wish
from store.keys import canonical, sign
from store.wire import read_desired


def purge(world: World, *releases: str) -> None:
    world.fence += 1
    world.write_wish(Desired(fence=world.fence, aliases=dict(world.wishes), fences=dict(world.fences), made_at=START, purge=releases))


def test_a_release_is_deleted_and_confirmed(world: World) -> None:
    agent = world.agent()
    first = world.release(None)
    agent.tick()
    second = world.release(first, version=2)
    agent.tick()
    world.send(first, 7)  # a late copy of it is on its way
    assert agent.routes.table.find("default/main@v1") is not None, "the release before answers beside the live one"
    purge(world, first)
    assert agent.tick()
    assert world.active.purged == (first,)
    assert world.active.releases == (second,)
    assert world.places() == {"incoming": [], "checking": [], "releases": [f"default/main/v2-{second[:12]}"]}
    assert agent.routes.table.find("default/main@v1") is None
    assert world.live() == second
    assert not agent.tick(), "nothing is left to do"


def test_what_is_live_stays_until_another_is(world: World) -> None:
    agent = world.agent()
    first = world.release(None)
    agent.tick()
    purge(world, first)
    agent.tick()
    assert world.live() == first
    assert world.active.purged == ()
    world.wish(None, first)  # loses the purge: every wish names all of it
    purge(world, first)
    agent.tick()
    assert world.live() is None
    assert world.active.purged == (first,)


def test_a_request_in_flight_is_answered_before_its_release_is_deleted(world: World) -> None:
    agent = world.agent()
    first = world.release(None)
    agent.tick()
    with agent.routes.pin(ALIAS):
        world.wish(None, first)
        purge(world, first)
        agent.tick()
        assert world.active.purged == ()
    agent.tick()
    assert world.active.purged == (first,)


def test_a_release_that_is_to_be_deleted_is_not_served_again(world: World) -> None:
    agent = world.agent()
    first = world.release(None)
    agent.tick()
    world.wish(None, first)
    agent.tick()
    world.wishes[ALIAS] = Wish(release=first, replaces=None, allow=True)
    world.fences[ALIAS] = world.fence + 1
    purge(world, first)
    agent.tick()
    assert (world.state().outcome, world.state().code) == (Outcome.REFUSED, "RELEASE_PURGED")
    assert world.active.purged == (first,)


def test_after_a_restart_the_box_says_it_again(world: World) -> None:
    agent = world.agent()
    first = world.release(None)
    agent.tick()
    second = world.release(first, version=2)
    purge(world, first)
    agent.tick()
    (world.box.releases / f"default/main/v1-{first[:12]}").mkdir()  # a purge that was broken off after the manifest
    again = world.agent()
    again.tick()
    assert world.active.purged == (first,)
    assert world.live() == second


def test_a_release_that_never_was_here_is_confirmed(world: World) -> None:
    agent = world.agent()
    purge(world, "f" * 64, "../../etc")
    agent.tick()
    assert world.active.purged == ("f" * 64,)


def test_a_wish_that_was_signed_before_there_was_a_purge_is_still_trusted(world: World) -> None:
    wish = {"fence": 1, "aliases": {}, "fences": {}, "made_at": "2026-01-01T00:00:00Z"}
    signature = sign(world.keys, canonical(wish))
    world.write_wish(replace(Desired(fence=1, aliases={}, fences={}, made_at=START)))
    found = read_desired(world.box.desired, world.keys)
    assert found is not None
    assert found.signature == signature


def test_a_watch_lets_go_of_the_release_before_that_is_to_be_deleted(world: World) -> None:
    agent = world.agent()
    first = release_with(world, None, 1, watch=watch())
    agent.tick()
    second = release_with(world, first, 2, watch=watch())
    until(agent, lambda: watched(world) is not None)
    wish_with(world, watch=watch(), purge=(first,))
    until(agent, lambda: world.active.purged == (first,))
    assert (world.live(), watched(world)) == (second, None)
    agent.warden.close()
