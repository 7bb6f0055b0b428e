"""What this box reads of GGUF files itself: how long a text the base takes, and whether an adapter's numbers are numbers."""

import hashlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from tempfile import NamedTemporaryFile

from core.errors import LoradError
from serving.engines.port import AdapterError
from store.encryption import ADAPTER_GGUF, is_encrypted, read_weights
from store.seals import hash_file

MAGIC = b"GGUF"
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a value by its type (GGUF version 3)
TEXT, ARRAY = 8, 9
MOST_KEYS = 1 << 16
REPACK = "pack it again where gguf is installed (pip install 'lorad[cpu]'), or set serving.engine to transformers"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterFile:
    """The GGUF form of a release's adapter; `sha256` is that of its plain bytes."""

    folder: Path
    sha256: str
    key_file: str = ""

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """The path of its plain bytes, which are those that were loaded first; a decrypted copy is gone afterwards. Raises AdapterError."""
        if not is_encrypted(self.folder, ADAPTER_GGUF):
            path = self.folder / ADAPTER_GGUF
            self._compare(hash_file(path))
            yield path
            return
        data = _read(self.folder, self.key_file)
        self._compare(hashlib.sha256(data).hexdigest())
        memory = Path("/dev/shm")  # noqa: S108 - the file is made for its owner alone
        with NamedTemporaryFile(prefix="lorad-", suffix=".gguf", dir=memory if memory.is_dir() else None) as file:
            file.write(data)
            file.flush()
            yield Path(file.name)

    def _compare(self, found: str) -> None:
        if found != self.sha256:
            raise AdapterError(f"{self.folder / ADAPTER_GGUF} changed on this box after it was verified", hint="check the disk", code="RELEASE_BYTES")


def read_adapter(folder: Path, key_file: str = "") -> AdapterFile:
    """The GGUF adapter of a verified release folder. Raises AdapterError: GGUF_MISSING, ADAPTER_LOAD, ADAPTER_NAN."""
    import gguf
    import numpy as np

    if not (folder / ADAPTER_GGUF).is_file() and not is_encrypted(folder, ADAPTER_GGUF):
        raise AdapterError(f"{folder} holds no {ADAPTER_GGUF}, which the engine llamacpp loads", hint=REPACK, code="GGUF_MISSING")
    file = AdapterFile(folder=folder, sha256=hashlib.sha256(_read(folder, key_file)).hexdigest(), key_file=key_file)
    with file.opened() as path:
        try:
            tensors = gguf.GGUFReader(path).tensors
            broken = next((tensor.name for tensor in tensors if not np.isfinite(tensor.data).all()), "")
        except (ValueError, KeyError, IndexError, OSError, TypeError) as error:
            raise AdapterError(f"{folder / ADAPTER_GGUF}: {error}", hint=REPACK, code="ADAPTER_LOAD") from None
    if broken:
        raise AdapterError(
            f"{folder / ADAPTER_GGUF}: {broken!r} holds NaN or infinity", hint="its training diverged: lower the learning rate", code="ADAPTER_NAN"
        )
    return file


def _read(folder: Path, key_file: str) -> bytes:
    try:
        return read_weights(folder, key_file, ADAPTER_GGUF)
    except LoradError as error:
        raise AdapterError(error.what, hint=error.hint, code=error.code) from None
    except OSError as error:
        raise AdapterError(f"{folder / ADAPTER_GGUF}: {error}", hint=REPACK, code="ADAPTER_LOAD") from None


def context_of(path: Path) -> int:
    """Tokens that the base reads at most, as its GGUF file says; only the head is read. Raises LoradError BASE_UNUSABLE."""
    try:
        with open(path, "rb") as file:
            if file.read(4) != MAGIC:
                raise ValueError("it does not begin with GGUF")
            _, _, num_keys = struct.unpack("<IQQ", file.read(20))
            for _ in range(min(num_keys, MOST_KEYS)):
                key = _text(file)
                (kind,) = struct.unpack("<I", file.read(4))
                if key.endswith(".context_length"):
                    return int.from_bytes(file.read(SIZES[kind]), "little")
                _skip(file, kind)
            raise ValueError("it does not say how many tokens it reads")
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise LoradError(f"{str(path)!r} is no GGUF model: {error}", hint="pull the base model again: `lorad models pull`", code="BASE_UNUSABLE") from None


def _text(file: BufferedReader) -> str:
    (size,) = struct.unpack("<Q", file.read(8))
    if size > 1 << 16:
        raise ValueError(f"a key of {size} bytes")
    return file.read(size).decode("utf-8")


def _skip(file: BufferedReader, kind: int) -> None:
    if kind == TEXT:
        (size,) = struct.unpack("<Q", file.read(8))
        file.seek(size, 1)
    elif kind == ARRAY:
        inner, count = struct.unpack("<IQ", file.read(12))
        if inner in SIZES:
            file.seek(SIZES[inner] * count, 1)
        else:
            for _ in range(count):
                _skip(file, inner)
    else:
        file.seek(SIZES[kind], 1)
