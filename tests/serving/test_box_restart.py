"""What a box serves after its process ended, at whatever step."""

import subprocess
import sys
from pathlib import Path

import pytest
from inference_box import ALIAS, START, World

from core.wire import Desired, Outcome, Wish
from serving.activation import Agent
from store import codec

DYING = Path(__file__).with_name("dying_agent.py")


def served(agent: Agent, model: str = ALIAS) -> str:
    with agent.routes.pin(model) as pinned:
        return pinned.label


def die(world: World, place: str, count: int, when: str) -> None:
    """Let another process act on the wish and die at that step."""
    ended = subprocess.run([sys.executable, str(DYING), str(world.root), place, str(count), when], capture_output=True, text=True, check=False)
    assert ended.returncode == 9, ended.stderr


def test_a_restart_serves_what_was_live_and_says_so(world: World) -> None:
    agent = world.agent()
    first = world.release(None)
    agent.tick()
    second = world.release(first, version=2)
    agent.tick()
    again = world.agent()
    assert served(again) == second
    assert served(again, "default/main@v1") == first, "the one before is at hand for a rollback"
    assert not again.tick(), "the wish was carried out already"
    line = world.ledger[-1]
    assert (line.event, line.release, line.previous, line.fence, line.sequence) == ("restored", second, first, 2, 3)
    assert world.active.sequence == 3
    assert world.active.box == line.box == again.ledger.box_id
    assert (world.state().outcome, world.state().fence) == (Outcome.LIVE, 2)


def test_a_wish_that_came_while_the_box_was_down_is_carried_out(world: World) -> None:
    agent = world.agent()
    first = world.release(None)
    agent.tick()
    second = world.release(first, version=2)
    again = world.agent()
    assert served(again) == first
    again.tick()
    assert served(again) == second


def test_a_deferred_wish_is_still_wanted_after_a_restart(world: World) -> None:
    release = world.pack()
    world.wish(release, None)
    world.agent().tick()
    world.send(release)
    again = world.agent()
    again.tick()
    assert served(again) == release


def test_a_refused_wish_is_not_tried_again_after_a_restart(world: World) -> None:
    world.release(None, base="1" * 64)
    world.agent().tick()
    again = world.agent()
    assert not again.tick()
    assert [event for event, _ in world.events()] == ["refused", "restored"]
    assert (world.state().outcome, world.state().code) == (Outcome.REFUSED, "BASE_MISMATCH")


def spoil(world: World, release: str, version: int) -> Path:
    path = world.box.releases / f"default/main/v{version}-{release[:12]}" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes() + b"x")
    return path


def test_a_live_release_that_rotted_falls_back_to_the_one_before_then_to_the_base(world: World) -> None:
    agent = world.agent()
    first = world.release(None)
    agent.tick()
    second = world.release(first, version=2)
    agent.tick()
    spoiled = spoil(world, second, 2)
    again = world.agent()
    assert served(again) == first
    assert world.events()[-1] == ("restored", "RELEASE_BYTES")
    state = world.state()
    assert (state.release, state.version, state.outcome, state.code, state.wanted) == (first, 1, Outcome.REFUSED, "RELEASE_BYTES", second)
    assert "serves instead" in state.reason
    spoil(world, first, 1)
    assert served(world.agent()) == "base"
    assert world.state().release is None
    spoiled.write_bytes(spoiled.read_bytes()[:-1])
    assert served(world.agent()) == second, "the last one that went live is what is wanted, as soon as it is whole"
    assert (world.state().outcome, world.state().code) == (Outcome.LIVE, "")


def test_a_box_that_lost_active_json_reads_its_ledger(world: World) -> None:
    agent = world.agent()
    release = world.release(None)
    agent.tick()
    world.box.active.unlink()
    again = world.agent()
    assert served(again) == release
    assert not again.tick() or world.events()[-1][0] != "live"
    assert [event for event, _ in world.events()].count("live") == 1


def test_a_box_that_lost_its_ledger_reads_active_json(world: World) -> None:
    agent = world.agent()
    release = world.release(None)
    agent.tick()
    world.box.activations.unlink()
    again = world.agent()
    assert served(again) == release
    assert world.ledger[0].sequence == 2, "sequences go on"


def test_a_torn_last_line_of_the_ledger_spoils_only_itself(world: World) -> None:
    agent = world.agent()
    first = world.release(None)
    agent.tick()
    with world.box.activations.open("a") as ledger:
        ledger.write('{"box": "torn')
    second = world.release(first, version=2)
    again = world.agent()
    again.tick()
    assert served(again) == second
    assert [line.event for line in world.ledger] == ["live", "restored", "live"]


STEPS = [
    ("serving.library:move", 1, "before"),  # still in incoming
    ("serving.library:move", 1, "after"),  # in .checking, not verified
    ("serving.library:move", 2, "before"),  # verified
    ("serving.library:move", 2, "after"),  # in releases, not loaded
    ("serving.residence:probe", 1, "before"),  # loaded
    ("serving.ledger:append_activation", 1, "before"),  # probed
    ("serving.ledger:append_activation", 1, "after"),  # the ledger says it, active.json does not
    ("serving.ledger:codec.write", 1, "after"),  # active.json says it, no request was routed
    ("serving.routing:Routes.flip", 1, "after"),
    ("serving.ledger:Ledger.see", 1, "before"),
]


@pytest.mark.parametrize("step", STEPS, ids=[f"{when} {place} {count}" for place, count, when in STEPS])
def test_killed_at_any_step_of_an_activation_the_end_is_the_same(world: World, step: tuple[str, int, str]) -> None:
    agent = world.agent()
    first = world.release(None)
    agent.tick()
    second = world.release(first, version=2)
    die(world, *step)
    again = world.agent()
    again.tick()
    assert served(again) == second
    live = [(line.alias, line.fence) for line in world.ledger if line.event == "live"]
    assert live == [(ALIAS, 1), (ALIAS, 2)], "one live line an alias and fence"
    sequences = [line.sequence for line in world.ledger]
    assert sequences == sorted(set(sequences))
    state = world.state()
    assert (state.release, state.previous, state.version, state.fence, state.outcome) == (second, first, 2, 2, Outcome.LIVE)
    assert (world.active.fence_seen, world.active.sequence) == (2, sequences[-1])
    assert world.places()["incoming"] == world.places()["checking"] == []
    assert world.active.releases == tuple(sorted((first, second)))


@pytest.mark.parametrize("step", [("serving.ledger:append_activation", 1, "before"), ("serving.library:Library.drop", 1, "before")])
def test_killed_while_a_release_is_refused_it_is_refused_once(world: World, step: tuple[str, int, str]) -> None:
    release = world.pack()
    world.send(release).joinpath("probe.jsonl").write_text("other")
    world.wish(release, None)
    die(world, *step)
    again = world.agent()
    again.tick()
    assert [line.code for line in world.ledger if line.event == "refused"] == ["RELEASE_BYTES"]
    assert world.places() == {"incoming": [], "checking": [], "releases": []}


def test_leftovers_of_wishes_that_were_withdrawn_are_swept_at_the_start(world: World) -> None:
    release = world.pack()
    world.send(release)
    world.wish(release, None)
    die(world, "serving.library:move", 1, "after")
    assert world.places()["checking"] == [f"{release}.1"]
    world.fence += 1
    world.write_wish(Desired(fence=world.fence, aliases={ALIAS: Wish(release=None, replaces=None)}, fences={}, made_at=START))
    world.agent().tick()
    assert world.places()["checking"] == []


def test_a_box_keeps_its_name(world: World) -> None:
    assert world.agent().ledger.box_id == world.agent().ledger.box_id


def test_records_of_the_box_are_those_of_the_contract(world: World) -> None:
    """active.json and the ledger are read by the training box: a field that is renamed here breaks it there."""
    agent = world.agent()
    world.release(None)
    agent.tick()
    plain = codec.to_plain(world.active)
    assert list(plain) == ["box", "sequence", "fence_seen", "at", "aliases", "releases", "purged", "trials", "watches"]
    assert list(plain["aliases"][ALIAS]) == ["release", "previous", "version", "fence", "outcome", "code", "reason", "wanted"]
    assert list(codec.to_plain(world.ledger[0])) == [
        "box",
        "sequence",
        "at",
        "alias",
        "release",
        "version",
        "previous",
        "fence",
        "event",
        "code",
        "reason",
        "actor",
    ]
