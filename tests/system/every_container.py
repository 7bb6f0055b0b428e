"""Opens everything under a folder as deep as it goes, and says where a canary is."""

import base64
import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import zstandard

ZSTD, GZIP, ZIP = b"\x28\xb5\x2f\xfd", b"\x1f\x8b", b"PK\x03\x04"


def find(root: Path, canary: str, tokens: Callable[[str], list[int]] | None = None) -> list[str]:
    """Paths (with what lies in them) where the canary stands: plain, in any container, as JSON text, base64 or token ids."""
    marks = spellings(canary, tokens)
    return sorted({name for path in root.rglob("*") for name, raw in _opened(str(path.relative_to(root)), path) if any(mark in raw for mark in marks)})


def spellings(canary: str, tokens: Callable[[str], list[int]] | None = None) -> list[bytes]:
    """The bytes by which a canary may stand in a file; of base64 all three that it has by where it begins."""
    raw = canary.encode()
    marks = [raw, json.dumps(canary)[1:-1].encode(), raw.hex().encode(), canary.encode("utf-16-le")]
    for shift in range(3):
        whole = base64.b64encode(b"\0" * shift + raw + b"\0" * 3)
        marks += [whole[4 : len(raw) // 3 * 4], base64.b64encode(b"\0" * shift + raw, b"-_")[4 : len(raw) // 3 * 4]]
    if tokens is not None:
        ids = tokens(canary)[1:-1]  # the ends hang on what stands beside it
        for width in (2, 4, 8):
            marks.append(b"".join(number.to_bytes(width, "little") for number in ids))
        marks.append(json.dumps(ids)[1:-1].encode())
    return marks


def _opened(name: str, path: Path) -> Iterator[tuple[str, bytes]]:
    yield name, name.encode()
    if path.is_symlink():
        yield name, str(path.readlink()).encode()
    elif path.is_file():
        yield from _inside(name, path.read_bytes())


def _inside(name: str, raw: bytes) -> Iterator[tuple[str, bytes]]:
    """The bytes, and those of whatever is packed in them."""
    yield name, raw
    if raw.startswith(ZSTD):
        yield from _inside(f"{name}|zstd", zstandard.ZstdDecompressor().stream_reader(io.BytesIO(raw), read_across_frames=True).read())
    elif raw.startswith(GZIP):
        yield from _inside(f"{name}|gzip", gzip.decompress(raw))
    elif raw.startswith(ZIP):
        with zipfile.ZipFile(io.BytesIO(raw)) as packed:
            for member in packed.namelist():
                yield from _inside(f"{name}|{member}", packed.read(member))
    elif raw[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None:
                    yield from _inside(f"{name}|{member.name}", file.read())
