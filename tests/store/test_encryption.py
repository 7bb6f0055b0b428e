"""Weights at rest: unreadable without the key, and not one byte of them can be changed, moved or cut off."""

from pathlib import Path

import pytest

from core.errors import IntegrityError, UsageError
from store import encryption
from store.encryption import ENCRYPTED, MAGIC, SALT_BYTES, WEIGHTS, encrypt_weights, key_id, opened, read_key, read_weights

PLAIN = b"weights of an adapter " * 100


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption, "BLOCK", 500)


def key_file(folder: Path, digit: str = "a") -> str:
    path = folder / f"{digit}.key"
    path.write_text(digit * 64 + "\n")
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "release"
    made.mkdir()
    (made / "adapter_config.json").write_text("{}")
    (made / WEIGHTS).write_bytes(PLAIN)
    encrypt_weights(made, read_key(key_file(tmp_path)))
    return made


def test_the_key_opens_what_it_closed_and_nothing_plain_is_left(folder: Path, tmp_path: Path) -> None:
    key = key_file(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", ENCRYPTED]
    assert b"adapter" not in (folder / ENCRYPTED).read_bytes()
    assert read_weights(folder, key) == PLAIN
    with opened(folder, key) as plain:
        assert (plain / WEIGHTS).read_bytes() == PLAIN
        assert (plain / "adapter_config.json").exists()
    assert not plain.exists()


def test_two_files_of_equal_weights_have_no_bytes_in_common(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / WEIGHTS).write_bytes(PLAIN)
    encrypt_weights(other, read_key(key_file(tmp_path)))
    one, two = ((made / ENCRYPTED).read_bytes()[len(MAGIC) :] for made in (folder, other))
    assert all(one[place : place + 16] != two[place : place + 16] for place in range(0, len(one), 16))


@pytest.mark.parametrize("place", [0, 9, len(MAGIC) + SALT_BYTES, 600, -1])
def test_one_changed_bit_is_refused(folder: Path, tmp_path: Path, place: int) -> None:
    raw = bytearray((folder / ENCRYPTED).read_bytes())
    raw[place] ^= 1
    (folder / ENCRYPTED).write_bytes(bytes(raw))
    with pytest.raises(IntegrityError, match="was changed"):
        read_weights(folder, key_file(tmp_path))


@pytest.mark.parametrize("what", ["cut off", "cut between blocks", "blocks swapped", "a block twice", "empty"])
def test_blocks_cannot_be_moved_or_left_out(folder: Path, tmp_path: Path, what: str) -> None:
    raw, start, size = (folder / ENCRYPTED).read_bytes(), len(MAGIC) + SALT_BYTES, 516
    head, blocks = raw[:start], [raw[place : place + size] for place in range(start, len(raw), size)]
    assert len(blocks) == 5
    changed = {
        "cut off": raw[:-3],
        "cut between blocks": head + b"".join(blocks[:3]),
        "blocks swapped": head + b"".join([blocks[1], blocks[0], *blocks[2:]]),
        "a block twice": head + b"".join([blocks[0], *blocks]),
        "empty": b"",
    }
    (folder / ENCRYPTED).write_bytes(changed[what])
    with pytest.raises(IntegrityError) as error:
        read_weights(folder, key_file(tmp_path))
    assert error.value.code == "ENCRYPTED_BYTES"


def test_another_key_and_no_key_are_told_apart(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError) as other:
        read_weights(folder, key_file(tmp_path, "b"))
    with pytest.raises(UsageError) as none:
        read_weights(folder, "")
    assert (other.value.code, none.value.code) == ("ENCRYPTED_BYTES", "ENCRYPTION_KEY_MISSING")
    assert key_id(b"\xaa" * 32) != key_id(b"\xbb" * 32)


def test_a_key_that_others_may_read_or_that_is_too_short_is_refused(tmp_path: Path) -> None:
    path = Path(key_file(tmp_path))
    path.chmod(0o644)
    with pytest.raises(UsageError) as open_key:
        read_key(str(path))
    path.chmod(0o600)
    path.write_text("abcd")
    with pytest.raises(UsageError) as short:
        read_key(str(path))
    with pytest.raises(UsageError) as missing:
        read_key(str(tmp_path / "nowhere"))
    assert open_key.value.code == "ENCRYPTION_KEY_OPEN"
    assert {short.value.code, missing.value.code} == {"ENCRYPTION_KEY_UNREADABLE"}
