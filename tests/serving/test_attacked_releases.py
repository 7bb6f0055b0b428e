"""ATTACK-S07 to S13 on the inference box: releases that are signed by the right key, or arrive by the right road, and are hostile."""

import errno
import hashlib
import os
import pickle
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from inference_box import ALIAS, Recipe, World, stub_adapter

from serving import library
from store import codec
from store.keys import sign
from store.seals import hash_files
from store.wire import MANIFEST, SIGNATURE, read_manifest

SEED = 7


def refused(world: World, release: str) -> str:
    """Send it, wish for it. Returns the code with which it was refused; nothing of it stays, nothing outside was touched."""
    secret = world.root / "secret"
    secret.write_text("untouched")
    agent = world.agent()
    world.send(release)
    world.wish(release, None)
    agent.tick()
    assert world.live() is None
    assert world.places() == {"incoming": [], "checking": [], "releases": []}
    assert secret.read_text() == "untouched"
    return world.state().code


def sign_again(world: World, release: str, **changes: object) -> str:
    """The packed release under a manifest with these changes, signed by the right key. Returns its id."""
    folder = world.packed(release)
    raw = codec.dump(replace(read_manifest(folder), **changes)).encode()  # type: ignore[arg-type]
    (folder / MANIFEST).write_bytes(raw)
    (folder / SIGNATURE).write_text(sign(world.keys, raw) + "\n")
    changed = hashlib.sha256(raw).hexdigest()
    folder.rename(world.packed(changed))
    return changed


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/b\x00c", "..%2f/x", "ada/\uff0e\uff0e", "ada/..", "."])
def test_a_manifest_that_names_another_place_is_refused(world: World, name: str) -> None:
    """ATTACK-S07."""
    assert refused(world, sign_again(world, world.pack(), adapter=name)) == "ADAPTER_MISMATCH"


def test_a_manifest_whose_files_lead_out_is_refused(world: World) -> None:
    """ATTACK-S07: the hash of a file elsewhere proves nothing."""
    release = world.pack()
    files = {**read_manifest(world.packed(release)).files, "../../secret": "0" * 64}
    assert refused(world, sign_again(world, release, files=files)) == "RELEASE_BYTES"


def _second_name(folder: Path) -> None:
    os.link(folder / "probe.jsonl", folder.parents[2] / "second-name")


@pytest.mark.parametrize(
    "plant",
    [
        lambda folder: (folder / "chat_template.jinja").unlink() or (folder / "chat_template.jinja").symlink_to(folder.parents[3] / "secret"),
        lambda folder: (folder / "more").symlink_to("/etc"),
        lambda folder: os.mkfifo(folder / "pipe"),
        _second_name,
    ],
    ids=["symlink for a file", "symlink to a folder", "pipe", "a second name outside"],
)
def test_an_arrival_that_is_not_plain_files_of_its_own_is_refused(world: World, plant: Callable[[Path], object]) -> None:
    """ATTACK-S08, without an archive: rsync can bring links and devices too."""
    release, agent = world.pack(), world.agent()
    plant(world.send(release))
    world.wish(release, None)
    agent.tick()
    assert (world.live(), world.state().code) == (None, "RELEASE_BYTES")


class Trap:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch /dev/shm/lorad-trap",)


@pytest.mark.parametrize("name", ["adapter_model.bin", "weights.PT", "modeling.py"])
def test_a_release_with_a_form_that_can_hold_code_is_refused(world: World, name: str) -> None:
    """ATTACK-S10, signed by a training box that somebody has taken over."""

    def fill(folder: Path) -> None:
        stub_adapter(folder)
        (folder / name).write_bytes(pickle.dumps(Trap()))

    assert refused(world, world.pack(Recipe(fill=fill))) == "ADAPTER_FILE_FOREIGN"
    assert not Path("/dev/shm/lorad-trap").exists()


def test_one_bit_in_any_file_is_found_before_anything_is_visible(world: World) -> None:
    """ATTACK-S12: and the same release, sent whole, goes live after it."""
    release, agent, lot = world.pack(), world.agent(), random.Random(SEED)  # noqa: S311 - chosen by lot, no secret
    names = sorted(path.name for path in world.packed(release).iterdir())
    for attempt, name in enumerate(names, 1):
        path = world.send(release, attempt) / name
        raw = bytearray(path.read_bytes())
        bit = lot.randrange(8 * len(raw))
        raw[bit // 8] ^= 1 << bit % 8
        path.write_bytes(raw)
        world.wish(release, None)
        agent.tick()
        assert world.live() is None, name
        assert world.state().code, name
    world.send(release, 99)
    world.wish(release, None, alias=ALIAS)
    agent.tick()
    assert world.live() == release


def test_what_a_sender_writes_into_an_open_file_after_the_move_changes_nothing(world: World) -> None:
    """A thief of the write key keeps a file open, and a process that stands in the folder."""
    release, agent = world.pack(), world.agent()
    arrival = world.send(release)
    inside = os.open(arrival, os.O_RDONLY)
    with open(arrival / "adapter_model.safetensors", "r+b") as held:
        world.wish(release, None)
        agent.tick()
        assert world.live() == release
        held.write(b"other weights")
        held.flush()
        with pytest.raises(FileNotFoundError):
            os.open("planted", os.O_WRONLY | os.O_CREAT, dir_fd=inside)  # that folder is gone
    os.close(inside)
    (folder,) = world.box.releases.glob("*/*/v1-*")
    assert hash_files(folder) == hash_files(world.packed(release))
    assert world.places()["checking"] == []


def test_what_a_sender_writes_while_the_hashes_are_checked_is_not_what_is_checked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    release, agent = world.pack(), world.agent()
    with open(world.send(release) / "probe.jsonl", "r+b") as held:
        checked = library.check_release

        def write_behind_it(folder: Path, keys: Path) -> object:
            found = checked(folder, keys)
            held.write(b"{")
            held.flush()
            return found

        monkeypatch.setattr(library, "check_release", write_behind_it)
        world.wish(release, None)
        agent.tick()
    assert world.live() == release
    (folder,) = world.box.releases.glob("*/*/v1-*")
    assert hash_files(folder) == hash_files(world.packed(release))


def test_without_a_copy_in_the_kernel_the_bytes_are_copied_all_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: object) -> int:
        raise OSError(errno.EXDEV, "no copy across devices")

    monkeypatch.setattr(os, "copy_file_range", cannot, raising=False)
    release, agent = world.release(None), world.agent()
    agent.tick()
    assert world.live() == release
