"""The agent carries out signed wishes, in process, with the stub engine."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from inference_box import ALIAS, START, World, stub_adapter

from core.wire import Desired, Outcome, Wish
from serving import library
from serving.activation import RETRY_S, Agent
from store.keys import ensure_keys
from store.wire import read_active


def served(agent: Agent, model: str = ALIAS) -> str:
    with agent.routes.pin(model) as pinned:
        return pinned.label


def test_before_the_first_wish_the_alias_is_answered_by_the_base(world: World) -> None:
    agent = world.agent()
    assert not agent.tick()
    assert served(agent) == "base"
    assert world.active.aliases == {}
    assert world.active.sequence == 0


def test_a_release_that_arrived_goes_live(world: World) -> None:
    agent = world.agent()
    release = world.release(None)
    assert agent.tick()
    assert served(agent) == served(agent, "default/main@v1") == release
    (line,) = world.ledger
    assert (line.event, line.release, line.version, line.previous, line.fence) == ("live", release, 1, None, 1)
    state = world.state()
    assert (state.release, state.outcome, state.fence, state.wanted) == (release, Outcome.LIVE, 1, release)
    assert world.active.fence_seen == 1
    assert world.active.releases == (release,)
    assert world.places() == {"incoming": [], "checking": [], "releases": [f"default/main/v1-{release[:12]}"]}
    assert not agent.tick(), "nothing is left to do"


def test_the_release_before_stays_loaded_and_the_one_before_that_leaves(world: World) -> None:
    agent = world.agent()
    first = world.release(None)
    agent.tick()
    second = world.release(first, version=2)
    agent.tick()
    assert served(agent) == second
    assert served(agent, "default/main@v1") == first
    third = world.release(second, version=3)
    agent.tick()
    assert agent.routes.table.names() == ["tiny", ALIAS, "default/main@v2", "default/main@v3"]
    assert world.active.releases == tuple(sorted((first, second, third))), "on disk it stays"


def test_a_request_keeps_the_release_that_it_started_with(world: World) -> None:
    agent = world.agent()
    first = world.release(None)
    agent.tick()
    with agent.routes.pin(ALIAS) as pinned:
        second = world.release(first, version=2)
        agent.tick()
        third = world.release(second, version=3)
        agent.tick()
        assert pinned.release == first
        assert agent.routes.idle([first, second, third]) == []
    assert agent.routes.idle([first, second, third]) == [first]


def test_rollback_needs_no_bytes_to_travel(world: World) -> None:
    agent = world.agent()
    releases: list[str | None] = [None]
    for version in (1, 2, 3):
        releases.append(world.release(releases[-1], version=version))
        agent.tick()
    world.wish(releases[1], releases[3])
    agent.tick()
    assert served(agent) == releases[1]
    world.wish(None, releases[1])
    agent.tick()
    assert served(agent) == "base"
    assert (world.state().release, world.state().previous) == (None, releases[1])


def test_each_alias_has_its_own_outcome(world: World) -> None:
    agent = world.agent()
    good = world.pack(alias="support/tone")
    world.send(good)
    world.wish("f" * 64, "e" * 64)
    world.wish(good, None, alias="support/tone")
    agent.tick()
    assert served(agent, "support/tone") == good
    assert (world.state().outcome, world.state().code) == (Outcome.REFUSED, "INCUMBENT_CHANGED")
    assert served(agent) == "base"


def test_a_wish_that_replaces_something_else_than_what_is_live_is_refused(world: World) -> None:
    agent = world.agent()
    first = world.release(None)
    agent.tick()
    second = world.release(None, version=2)
    agent.tick()
    assert served(agent) == first
    state = world.state()
    assert (state.release, state.outcome, state.code, state.wanted, state.fence) == (first, Outcome.REFUSED, "INCUMBENT_CHANGED", second, 2)
    assert world.places()["incoming"] == [f"{second}.1"], "it may be asked for again"


def test_a_wish_for_what_is_live_already_is_met(world: World) -> None:
    agent = world.agent()
    release = world.release(None)
    agent.tick()
    world.wish(release, None)
    agent.tick()
    assert world.events() == [("live", ""), ("live", "")]
    assert (world.state().release, world.state().previous, world.state().fence) == (release, None, 2)


def test_a_release_on_its_way_is_deferred_once_and_taken_when_it_is_whole(world: World) -> None:
    agent = world.agent()
    release = world.pack()
    world.wish(release, None)
    agent.tick()
    folder = world.send(release, sealed=False)
    agent.tick()
    agent.tick()
    assert world.events() == [("deferred", "RELEASE_MISSING")]
    assert (world.state().release, world.state().outcome, world.state().wanted) == (None, Outcome.DEFERRED, release)
    (folder / "SEALED").write_text("")
    agent.tick()
    assert world.events() == [("deferred", "RELEASE_MISSING"), ("live", "")]
    assert served(agent) == release


def test_the_newest_attempt_is_taken_and_the_older_ones_are_swept(world: World) -> None:
    agent = world.agent()
    release = world.pack()
    for attempt in (1, 2, 10):
        world.send(release, attempt)
    (world.box.incoming / f"{release}.2" / "probe.jsonl").write_text("torn")
    world.wish(release, None)
    agent.tick()
    assert served(agent) == release
    assert world.places()["incoming"] == []


# Wishes that are not to be trusted


def test_an_older_wish_sent_again_is_refused_and_told_once(world: World) -> None:
    agent = world.agent()
    first = world.release(None)
    agent.tick()
    old = world.box.desired.read_bytes()
    second = world.release(first, version=2)
    agent.tick()
    world.box.desired.write_bytes(old)
    agent.tick()
    agent.tick()
    assert served(agent) == second
    assert world.events("*") == [("refused", "STALE_FENCE")]
    agent = world.agent()
    agent.tick()
    assert world.events("*") == [("refused", "STALE_FENCE")], "a restart does not tell it again"
    assert served(agent) == second


def test_the_same_wish_written_again_changes_nothing(world: World) -> None:
    agent = world.agent()
    world.release(None)
    agent.tick()
    world.box.desired.write_bytes(world.box.desired.read_bytes() + b"\n")
    assert not agent.tick()
    assert world.events() == [("live", "")]


def test_a_wish_signed_by_another_box_is_refused(world: World, tmp_path: Path) -> None:
    agent = world.agent()
    release = world.pack()
    world.send(release)
    ensure_keys(tmp_path / "foreign")
    world.write_wish(Desired(fence=7, aliases={ALIAS: Wish(release=release, replaces=None)}, fences={}, made_at=START), keys=tmp_path / "foreign")
    for _ in range(3):
        agent.tick()
    assert world.events("*") == [("refused", "SIGNATURE_FOREIGN")]
    assert served(agent) == "base"
    assert world.active.fence_seen == 0
    world.wish(release, None)
    agent.tick()
    assert served(agent) == release


def test_a_half_written_wish_is_left_alone_until_it_is_whole(world: World) -> None:
    agent = world.agent()
    release = world.release(None)
    whole = world.box.desired.read_bytes()
    world.box.desired.write_bytes(whole[: len(whole) // 2])
    agent.tick()
    world.box.desired.write_bytes(whole)
    agent.tick()
    assert served(agent) == release
    assert world.events("*") == []


def test_without_the_public_key_nothing_is_believed(world: World) -> None:
    agent = world.agent()
    release = world.release(None)
    key = world.keys / "release.pub"
    key.rename(key.with_suffix(".away"))
    agent.tick()
    assert served(agent) == "base"
    key.with_suffix(".away").rename(key)
    agent.tick()
    assert served(agent) == release


# Releases that are not to be served


def flip_bit(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def point_outside(folder: Path) -> None:
    outside = folder.parent.parent / "outside"
    shutil.move(folder / "verdict.json", outside)
    (folder / "verdict.json").symlink_to(outside)


def add_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def add_file(folder: Path) -> None:
    (folder / "pickle.bin").write_bytes(b"x")


def lose_file(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize("damage", [flip_bit, point_outside, add_pipe, add_file, lose_file])
def test_a_release_with_other_bytes_than_were_signed_is_refused_and_deleted(world: World, damage: Any) -> None:
    agent = world.agent()
    release = world.pack()
    damage(world.send(release))
    world.wish(release, None)
    agent.tick()
    assert world.events() == [("refused", "RELEASE_BYTES")]
    assert served(agent) == "base"
    assert world.places() == {"incoming": [], "checking": [], "releases": []}


def test_bytes_damaged_on_the_way_do_not_outlaw_the_release(world: World) -> None:
    agent = world.agent()
    release = world.pack()
    flip_bit(world.send(release))
    world.wish(release, None)
    agent.tick()
    world.send(release, 2)
    agent.tick()
    assert world.events() == [("refused", "RELEASE_BYTES")], "not under the same fence"
    world.wish(release, None)
    agent.tick()
    assert served(agent) == release


def test_a_release_signed_by_another_box_is_refused(world: World, tmp_path: Path) -> None:
    agent = world.agent()
    ensure_keys(tmp_path / "foreign")
    world.release(None, keys=tmp_path / "foreign")
    agent.tick()
    assert world.events() == [("refused", "SIGNATURE_FOREIGN")]


def test_another_release_under_this_ones_name_is_refused(world: World) -> None:
    agent = world.agent()
    wished, other = world.pack(), world.pack(version=2)
    world.send(other).rename(world.box.incoming / f"{wished}.1")
    world.wish(wished, None)
    agent.tick()
    assert world.events() == [("refused", "RELEASE_BYTES")]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"base": "1" * 64}, "BASE_MISMATCH"),
        ({"tokenizer": "1" * 64}, "TOKENIZER_MISMATCH"),
        ({"template": "1" * 64}, "TEMPLATE_MISMATCH"),
        ({"backend": "peft"}, "BACKEND_MISMATCH"),
        ({"backend": "unsloth"}, "BACKEND_MISMATCH"),
    ],
)
def test_a_release_for_another_base_or_engine_is_refused(world: World, changes: dict[str, str], code: str) -> None:
    agent = world.agent()
    world.release(None, **changes)
    agent.tick()
    assert world.events() == [("refused", code)]
    assert served(agent) == "base"


def test_a_release_of_another_adapter_is_refused(world: World) -> None:
    agent = world.agent()
    release = world.pack(alias="support/tone")
    world.send(release)
    world.wish(release, None)
    agent.tick()
    assert world.events() == [("refused", "ADAPTER_MISMATCH")]


@pytest.mark.parametrize("alias", ["../../etc", "support", "rejected/main", "Support/tone"])
def test_an_alias_that_is_no_adapter_name_is_refused(world: World, alias: str) -> None:
    agent = world.agent()
    world.wish("a" * 64, None, alias=alias)
    agent.tick()
    assert world.events(alias) == [("refused", "ADAPTER_NAME")]


@pytest.mark.parametrize("release", ["../../etc", "*", "A" * 64, "a" * 63])
def test_a_wish_for_what_is_no_release_id_is_refused(world: World, release: str) -> None:
    agent = world.agent()
    world.wish(release, None)
    agent.tick()
    assert world.events() == [("refused", "RELEASE_ID")]


def no_probe(folder: Path) -> None:
    stub_adapter(folder)
    (folder / "probe.jsonl").write_text('{"prompt": "Hi"}\n')


def test_a_refused_release_comes_back_only_when_a_person_allows_it(world: World) -> None:
    agent = world.agent()
    release = world.release(None, fill=no_probe)
    agent.tick()
    world.wish(release, None)
    agent.tick()
    agent = world.agent()
    world.wish(release, None)
    agent.tick()
    world.wish(release, None, allow=True)
    agent.tick()
    codes = [code for event, code in world.events() if event == "refused"]
    assert codes == ["PROBE_DAMAGED", "REFUSED_BEFORE", "REFUSED_BEFORE", "PROBE_DAMAGED"], "allowed means asked again, not waved through"
    assert served(agent) == "base"


# A box in trouble


def test_a_full_disk_defers_and_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = world.agent()
    release = world.release(None)

    def full(source: Path, destination: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(library, "move", full)
        agent.tick()
        agent.tick()
    assert world.events() == [("deferred", "BOX_DISK")]
    agent.tick()
    assert served(agent) == "base", "not before its time"
    world.clock.seconds += RETRY_S
    agent.tick()
    assert served(agent) == release


def test_a_ledger_that_cannot_be_written_leaves_what_is_live(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = world.agent()
    release = world.release(None)

    def full(path: Path, line: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("serving.ledger.append_activation", full)
        with pytest.raises(OSError, match="No space"):
            agent.tick()
    assert served(agent) == "base"
    agent.tick()
    assert served(agent) == release
    assert world.events() == [("live", "")]


def test_an_active_json_that_cannot_be_written_is_written_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = world.agent()
    release = world.release(None)

    def full(path: Path, record: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("serving.ledger.codec.write", full)
        with pytest.raises(OSError, match="No space"):
            agent.tick()
    assert served(agent) == "base", "nothing is served that active.json does not say"
    agent.tick()
    assert served(agent) == release
    assert world.state().release == release
    assert world.events() == [("live", "")]


def test_a_stored_release_that_rotted_is_taken_from_a_new_arrival(world: World) -> None:
    agent = world.agent()
    first = world.release(None)
    agent.tick()
    second = world.release(first, version=2)
    agent.tick()
    third = world.release(second, version=3)
    agent.tick()
    flip_bit(world.box.releases / f"default/main/v1-{first[:12]}")
    world.wish(first, third)
    agent.tick()
    assert world.events()[-1] == ("deferred", "RELEASE_MISSING")
    world.send(first)
    agent.tick()
    assert served(agent) == first


def test_active_json_is_whole_whenever_it_is_read(world: World) -> None:
    agent = world.agent()
    world.release(None)
    agent.tick()
    assert read_active(world.box.active) == world.active
    assert [path.name for path in world.box.out.iterdir() if path.name.startswith(".")] == []
