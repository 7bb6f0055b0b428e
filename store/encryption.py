"""The weights of a release, encrypted at rest on request: AES-256-GCM by the cryptography library.

What is encrypted: `adapter_model.safetensors` and `adapter.gguf` of a release, on this box under adapters/ and on the inference
boxes; they lie there with `.enc` behind their names. Config, probe, manifest and verdict hold no weights and stay readable. Not encrypted:
checkpoints below runs/, snapshots of them, rows; for these encrypt the disk.

The key is a file of 32 random bytes in hex that `deploy.encryption_key` names, best on another disk than home: backups of
home do not hold it. Whoever loses it loses the weights. Every box that serves has a copy and names it by the same key.

Form of the file: 8 bytes MAGIC, 16 bytes salt, then blocks of at most BLOCK bytes, each followed by its 16-byte tag. The key
of the file is HKDF-SHA256 of the key with that salt; the nonce of a block is its number, and its associated data says
whether it is the last: no block can be changed, moved, left out or cut off. Weights are decrypted into memory, never to disk
(`opened` is the exception, for programs that read files).
"""

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

WEIGHTS = "adapter_model.safetensors"
ENCRYPTED = f"{WEIGHTS}.enc"
ADAPTER_GGUF = "adapter.gguf"  # the same weights as llama.cpp reads them, where a release has them
MAGIC = b"LORADE01"
SALT_BYTES, TAG_BYTES, KEY_BYTES = 16, 16, 32
BLOCK = 16 << 20
HINT = "`openssl rand -hex 32 > FILE && chmod 600 FILE` makes one"


def read_key(path: str) -> bytes:
    """The 32 bytes of a key file. Raises UsageError where it is missing, of another form, or open to others."""
    file = Path(path)
    try:
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            raise UsageError(f"the key {path!r} may be read by others", hint=f"chmod 600 {path}", code="ENCRYPTION_KEY_OPEN")
        key = bytes.fromhex(file.read_text().strip())
    except (OSError, ValueError) as error:
        raise UsageError(f"the key {path!r} cannot be read: {error}", hint=HINT, code="ENCRYPTION_KEY_UNREADABLE") from None
    if len(key) != KEY_BYTES:
        raise UsageError(f"the key {path!r} has {len(key)} bytes, not {KEY_BYTES}", hint=HINT, code="ENCRYPTION_KEY_UNREADABLE")
    return key


def key_id(key: bytes) -> str:
    """What a manifest says of the key: the first 16 hex digits of a hash of it, of no use for finding it."""
    return hashlib.sha256(b"lorad encryption key" + key).hexdigest()[:16]


def encrypt_weights(folder: Path, key: bytes) -> None:
    """Replace the weights in `folder` by their encrypted form. The plain file is unlinked, not overwritten. Raises OSError."""
    for name in (WEIGHTS, ADAPTER_GGUF):
        if (folder / name).exists():
            _encrypt(folder / name, key)


def _encrypt(source: Path, key: bytes) -> None:
    salt = os.urandom(SALT_BYTES)
    cipher = _cipher(key, salt)
    left = source.stat().st_size
    with open(source, "rb") as plain, open(f"{source}.enc", "wb") as out:
        out.write(MAGIC + salt)
        number = 0
        while left or not number:
            block = plain.read(BLOCK)
            left -= len(block)
            out.write(cipher.encrypt(_nonce(number), block, _place(is_last=not left)))
            number += 1
    source.unlink()


def is_encrypted(folder: Path, name: str = WEIGHTS) -> bool:
    """Whether the weights of the adapter in `folder` are encrypted."""
    return (folder / f"{name}.enc").is_file()


def read_weights(folder: Path, key_file: str, name: str = WEIGHTS) -> bytes:
    """The bytes of the adapter's safetensors file, or of its GGUF one, decrypted where it is encrypted.

    Args: key_file: what deploy.encryption_key names; empty: there is no key. Raises UsageError without a key that is needed,
    IntegrityError for another key and for bytes that were changed, OSError.
    """
    if not is_encrypted(folder, name):
        return (folder / name).read_bytes()
    if not key_file:
        raise UsageError(f"the weights in {str(folder)!r} are encrypted", hint="name the key's file in deploy.encryption_key", code="ENCRYPTION_KEY_MISSING")
    path = folder / f"{name}.enc"
    raw = path.read_bytes()
    start = len(MAGIC) + SALT_BYTES
    if raw[: len(MAGIC)] != MAGIC or len(raw) < start + TAG_BYTES:
        raise _damaged(path)
    return b"".join(_blocks(path, raw, start, read_key(key_file)))


def _blocks(path: Path, raw: bytes, start: int, key: bytes) -> Iterator[bytes]:
    from cryptography.exceptions import InvalidTag

    cipher, size = _cipher(key, raw[len(MAGIC) : start]), BLOCK + TAG_BYTES
    for number, place in enumerate(range(start, len(raw), size)):
        try:
            yield cipher.decrypt(_nonce(number), raw[place : place + size], _place(is_last=place + size >= len(raw)))
        except InvalidTag:
            raise _damaged(path) from None


@contextmanager
def opened(folder: Path, key_file: str) -> Iterator[Path]:
    """A folder with the adapter in plain: `folder` itself where nothing is encrypted, else a copy in a private temporary folder
    (in memory where the machine has /dev/shm) that is gone afterwards. Raises as `read_weights`."""
    if not is_encrypted(folder):
        yield folder
        return
    memory = Path("/dev/shm")  # noqa: S108 - a private folder is made in it
    with tempfile.TemporaryDirectory(prefix="lorad-", dir=memory if memory.is_dir() else None) as made:
        plain = Path(made)
        for path in folder.iterdir():
            if path.is_file() and path.suffix != ".enc":
                shutil.copyfile(path, plain / path.name)
        (plain / WEIGHTS).write_bytes(read_weights(folder, key_file))
        yield plain


def _cipher(key: bytes, salt: bytes) -> "AESGCM":
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return AESGCM(HKDF(SHA256(), KEY_BYTES, salt, b"lorad weights").derive(key))


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


def _place(*, is_last: bool) -> bytes:
    return b"last" if is_last else b"more"


def _damaged(path: Path) -> IntegrityError:
    return IntegrityError(
        f"{path} was changed, or is encrypted with another key",
        hint="name the key it was packed with in deploy.encryption_key; else roll back to a release that is whole",
        code="ENCRYPTED_BYTES",
    )
