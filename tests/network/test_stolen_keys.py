"""ATTACK-S29 and S31: what somebody who has stolen a key of the road can do with it, which is next to nothing."""

import json
import shutil
from pathlib import Path

import pytest
from roadpair import RoadPair

from core.wire import Desired, Wish
from store.keys import ensure_keys
from store.paths import Box
from store.wire import sign_desired


@pytest.fixture
def box(pair: RoadPair) -> Box:
    (pair.far.box.root / "secret").write_text("do not read this")
    return pair.far.box


def test_a_stolen_key_opens_no_shell_and_no_other_folder(pair: RoadPair, box: Box, tmp_path: Path) -> None:
    loot, stuff = tmp_path / "loot", tmp_path / "stuff"
    loot.mkdir()
    stuff.write_text("stuff")
    link = tmp_path / "link"
    link.symlink_to(box.root / "secret")
    own = str(box.root)
    tried = (
        lambda: pair.keys.ssh("write", "id"),
        lambda: pair.keys.ssh("read", "cat", f"{own}/secret"),
        lambda: pair.keys.ssh("write", "-W", "127.0.0.1:22"),
        lambda: pair.keys.rsync("write", "BOX:desired.json", f"{loot}/"),
        lambda: pair.keys.rsync("read", "BOX:../secret", f"{loot}/"),
        lambda: pair.keys.rsync("read", f"BOX:{own}/secret", f"{loot}/"),
        lambda: pair.keys.rsync("read", str(stuff), "BOX:active.json"),
        lambda: pair.keys.rsync("write", str(stuff), "BOX:../releases/evil"),
        lambda: pair.keys.rsync("write", "-r", "--delete", f"{loot}/", "BOX:./"),
        lambda: pair.keys.rsync("write", "--remove-source-files", "BOX:desired.json", f"{loot}/"),
    )
    box.desired.write_text("{}")
    before = box.active.read_bytes()
    for attempt in tried:
        done = pair.hosts.near.within(attempt)
        assert done.returncode != 0, done
        assert "uid=" not in done.stdout
    assert list(loot.iterdir()) == []
    assert not (box.releases / "evil").exists()
    assert (box.active.read_bytes(), box.desired.read_text()) == (before, "{}")
    pair.hosts.near.within(lambda: pair.keys.rsync("write", "-l", str(link), "BOX:incoming/"))
    pair.hosts.near.within(lambda: pair.keys.rsync("write", "-r", str(stuff), "BOX:incoming/link/x"))
    assert (box.root / "secret").read_text() == "do not read this", "a link that was sent leads nowhere"
    assert pair.beat() is None


def test_who_can_write_the_wish_still_cannot_sign_it(pair: RoadPair, box: Box, tmp_path: Path) -> None:
    """A wish of another signer, and an older one of the right signer sent again (a downgrade)."""
    first, second = pair.release(), pair.release(version=2)
    pair.wish(first, None)
    pair.settle(first)
    older = tmp_path / "older" / "desired.json"
    older.parent.mkdir()
    shutil.copy2(box.desired, older)
    pair.wish(second, first)
    pair.settle(second)

    def bring(path: Path) -> None:
        done = pair.hosts.near.within(lambda: pair.keys.rsync("write", "--ignore-times", str(path), "BOX:./"))
        assert done.returncode == 0, done.stderr
        for _ in range(3):
            pair.beat()

    bring(older)
    ensure_keys(tmp_path / "thief")
    forged = tmp_path / "desired.json"
    wish = Desired(fence=99, aliases={"default/main": Wish(release=first, replaces=second, allow=True)}, fences={"default/main": 99}, made_at=pair.clock.now())
    values = json.loads(older.read_text()) | {"fence": 99, "signature": sign_desired(wish, tmp_path / "thief").signature}
    forged.write_text(json.dumps(values))
    bring(forged)
    assert pair.live == second
    assert [(line.event, line.code) for line in pair.far.ledger if line.alias == "*"] == [("refused", "STALE_FENCE"), ("refused", "SIGNATURE_FOREIGN")]


def test_a_release_that_was_not_signed_here_is_never_served(pair: RoadPair, box: Box, tmp_path: Path) -> None:
    """The thief brings a release of his own under the id that the true wish names, sealed before the true one arrives."""
    good = pair.release()
    ensure_keys(tmp_path / "thief")
    evil = pair.far.pack(version=9, keys=tmp_path / "thief")
    folder = pair.far.packed(evil)
    (folder / "SEALED").write_text("arrived\n")
    done = pair.hosts.near.within(lambda: pair.keys.rsync("write", "-a", f"{folder}/", f"BOX:incoming/{good}.1/"))
    assert done.returncode == 0, done.stderr
    pair.wish(good, None)
    seen = pair.settle(good)
    assert pair.live == good
    assert seen.active is not None
    assert seen.active.releases == (good,)
