"""Seals and signatures: one flipped bit is found and named."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.errors import IntegrityError
from core.wire import Desired, Manifest, Wish
from store.codec import write
from store.keys import ensure_keys
from store.seals import check_seal, hash_files, is_sealed, seal
from store.wire import check_release, read_desired, sign_desired, write_manifest

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    (folder / "inner").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(bytes(range(256)))
    (folder / "inner" / "config.json").write_text("{}")
    seal(folder)
    return folder


def test_an_unsealed_folder_does_not_exist(tmp_path: Path) -> None:
    assert not is_sealed(tmp_path)
    with pytest.raises(IntegrityError, match="SEALED"):
        check_seal(tmp_path)


def test_every_flipped_bit_is_found_and_the_file_is_named(sealed: Path) -> None:
    path = sealed / "weights.bin"
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 101):
        torn = bytearray(whole)
        torn[bit // 8] ^= 1 << bit % 8
        path.write_bytes(torn)
        with pytest.raises(IntegrityError, match=r"weights\.bin"):
            check_seal(sealed)
    path.write_bytes(whole)
    check_seal(sealed)


@pytest.mark.parametrize("change", ["missing", "added"])
def test_a_missing_or_an_added_file_breaks_the_seal(sealed: Path, change: str) -> None:
    if change == "missing":
        (sealed / "inner" / "config.json").unlink()
    else:
        (sealed / "extra").write_text("x")
    with pytest.raises(IntegrityError, match=r"config\.json|extra"):
        check_seal(sealed)


def _release(folder: Path, keys: Path) -> str:
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    manifest = Manifest(
        format=1,
        adapter="a/main",
        version=1,
        job="job-1",
        backend="stub",
        base_sha256="b",
        tokenizer_sha256="t",
        template_sha256="c",
        parent=None,
        checkpoint_sha256="k",
        verdict_sha256="v",
        drops=(),
        created_at=NOW,
        files=hash_files(folder),
    )
    return write_manifest(folder, manifest, keys)


def test_a_release_is_known_by_its_manifest_and_refused_when_any_file_changed(tmp_path: Path) -> None:
    ensure_keys(tmp_path / "keys")
    release = _release(tmp_path / "release", tmp_path / "keys")
    assert check_release(tmp_path / "release", tmp_path / "keys")[0] == release
    for name in ("adapter_model.safetensors", "manifest.json", "manifest.sig"):
        path = tmp_path / "release" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
        with pytest.raises(IntegrityError):
            check_release(tmp_path / "release", tmp_path / "keys")
        path.write_bytes(whole)


def test_a_release_of_another_training_box_is_refused(tmp_path: Path) -> None:
    ensure_keys(tmp_path / "ours")
    ensure_keys(tmp_path / "theirs")
    _release(tmp_path / "release", tmp_path / "theirs")
    with pytest.raises(IntegrityError) as caught:
        check_release(tmp_path / "release", tmp_path / "ours")
    assert caught.value.code == "SIGNATURE_FOREIGN"


def test_a_wish_whose_fence_was_raised_by_hand_is_refused(tmp_path: Path) -> None:
    ensure_keys(tmp_path)
    desired = sign_desired(Desired(fence=3, aliases={"a/main": Wish(release="r", replaces=None)}, fences={"a/main": 3}, made_at=NOW), tmp_path)
    path = tmp_path / "desired.json"
    write(path, desired)
    assert read_desired(path, tmp_path) == desired
    write(path, replace(desired, fence=4))
    with pytest.raises(IntegrityError):
        read_desired(path, tmp_path)


def test_a_half_written_wish_is_told_apart_from_no_wish(tmp_path: Path) -> None:
    ensure_keys(tmp_path)
    assert read_desired(tmp_path / "desired.json", tmp_path) is None
    (tmp_path / "desired.json").write_text('{"fence": 1, "ali')
    with pytest.raises(IntegrityError) as caught:
        read_desired(tmp_path / "desired.json", tmp_path)
    assert caught.value.code == "WISH_DAMAGED"
