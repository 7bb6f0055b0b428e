"""What leaves the box's disk by itself: releases beyond serving.releases_gb, and what broken transfers left."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from inference_box import ALIAS, START, Recipe, World, stub_adapter

from core.wire import Desired
from serving import library
from serving.activation import Agent

KB = 1 << 10
WEIGHTS = 100 * KB


def heavy(folder: Path) -> None:
    stub_adapter(folder)
    (folder / "adapter_model.safetensors").write_bytes(os.urandom(WEIGHTS))


def box_with_room_for(world: World, releases: int) -> Agent:
    agent = Agent(replace(world.ground(), releases_bytes=releases * (WEIGHTS + 8 * KB)))
    agent.start()
    return agent


def go_live(world: World, agent: Agent, versions: range, before: str | None = None) -> list[str]:
    """One release after the other."""
    made: list[str] = []
    for version in versions:
        release = world.pack(Recipe(version=version, fill=heavy))
        world.send(release)
        world.wish(release, made[-1] if made else before)
        agent.tick()
        made.append(release)
    return made


def on_disk(world: World) -> int:
    return len(world.places()["releases"])


def test_the_oldest_release_leaves_and_active_json_says_so(world: World) -> None:
    agent = box_with_room_for(world, 3)
    releases = go_live(world, agent, range(1, 6))
    assert world.active.releases == tuple(sorted(releases[2:]))
    assert on_disk(world) == 3
    assert world.live() == releases[-1]


def test_live_previous_and_pinned_ones_stay_whatever_they_hold(world: World) -> None:
    agent = box_with_room_for(world, 3)
    (first,) = go_live(world, agent, range(1, 2))
    world.fence += 1
    world.write_wish(Desired(fence=world.fence, aliases=dict(world.wishes), fences=dict(world.fences), made_at=START, pins=(first,)))
    agent.tick()
    pinned = world.box.desired.read_bytes()
    releases = [first]
    for version in range(2, 6):
        release = world.pack(Recipe(version=version, fill=heavy))
        world.send(release)
        world.fence += 1
        wish = replace(next(iter(world.wishes.values())), release=release, replaces=releases[-1])
        world.wishes[ALIAS], world.fences[ALIAS] = wish, world.fence
        world.write_wish(Desired(fence=world.fence, aliases=dict(world.wishes), fences=dict(world.fences), made_at=START, pins=(first,)))
        agent.tick()
        releases.append(release)
    assert pinned
    assert world.active.releases == tuple(sorted((first, *releases[-2:])))
    small = box_with_room_for(world, 0)
    small.tick()
    assert on_disk(world) == 3, "no budget is none"
    tiny = Agent(replace(world.ground(), releases_bytes=1))
    tiny.start()
    tiny.tick()
    assert world.active.releases == tuple(sorted((first, *releases[-2:]))), "a restart knows the pins"


def test_a_release_that_left_comes_back_by_a_new_wish(world: World) -> None:
    agent = box_with_room_for(world, 2)
    releases = go_live(world, agent, range(1, 5))
    world.wish(releases[0], releases[-1])
    agent.tick()
    assert world.state().code == "RELEASE_MISSING"
    world.send(releases[0], attempt=2)
    agent.tick()
    assert world.live() == releases[0]


# Leftovers of the road


def given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour passes for what lies in incoming."""
    monkeypatch.setattr(library, "ABANDONED_S", -1.0)


def test_of_broken_attempts_the_last_two_stay_while_the_newest_is_under_way(world: World) -> None:
    release = world.pack()
    for attempt in range(1, 12):
        world.send(release, attempt, sealed=False)
    agent = world.agent()
    agent.tick()
    assert sorted(world.places()["incoming"]) == [f"{release}.10", f"{release}.11"], "what has arrived of the last is not sent again"
    world.send(release, 12)
    world.wish(release, None)
    agent.tick()
    assert world.live() == release
    world.clock.seconds += 61
    agent.tick()
    assert world.places()["incoming"] == []


def test_an_arrival_that_nobody_wishes_for_goes_when_it_has_not_moved_for_an_hour(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    release, wanted = world.pack(), world.pack(version=2)
    agent = world.agent()
    world.wish(wanted, None)
    agent.tick()
    world.send(release)
    world.send(wanted, sealed=False)
    (world.box.incoming / "no-arrival").mkdir()
    (world.box.incoming / "file").write_text("")
    torn = world.box.desired.with_name(".desired.json.Xa12bC")
    torn.write_text("{")
    world.clock.seconds += 61
    agent.tick()
    assert len(world.places()["incoming"]) == 4, "it may be on its way still"
    given_up(monkeypatch)
    world.clock.seconds += 61
    agent.tick()
    assert world.places()["incoming"] == [f"{wanted}.1"]
    assert not torn.exists()


# Room


@pytest.mark.parametrize(("lack", "word"), [("f_bavail", "0 MiB"), ("f_favail", "0 inodes")])
def test_a_box_without_room_defers_before_it_reads_a_release(world: World, monkeypatch: pytest.MonkeyPatch, lack: str, word: str) -> None:
    agent = world.agent()
    release = world.release(None)
    real = os.statvfs

    def full(path: Path) -> os.statvfs_result:
        found = list(real(path))
        found[{"f_bavail": 4, "f_favail": 7}[lack]] = 0
        return os.statvfs_result(found)

    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", full)
        patch.setattr(library, "check_release", lambda *words: pytest.fail("it was read"))
        agent.tick()
    assert world.state().code == "BOX_DISK"
    assert word in world.state().reason
    world.clock.seconds += 10
    agent.tick()
    assert world.live() == release
