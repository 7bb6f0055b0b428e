"""Reads what a safetensors file says of itself, without the library and without torch, and whether its numbers are finite.

Layout: 8 bytes little-endian length N, N bytes of JSON {name: {dtype, shape, data_offsets [begin, end]}}, then the data.
The data must be covered from the first byte to the last, without hole or overlap.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from core.errors import IntegrityError

LENGTH_BYTES = 8
MOST_HEADER_BYTES = 100_000_000  # the safetensors library's own limit
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # an adapter's weights; numpy has no bfloat16
BF16_EXPONENT = 0x7F80  # all ones: infinite or NaN
CHUNK = 1 << 22  # numbers looked at in one go
HINT = "train again; if it comes back, check the disk"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of the header; `begin` and `end` count from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def _damaged(path: Path, what: str) -> NoReturn:
    raise IntegrityError(f"{path}: {what}", hint=HINT, code="WEIGHTS_DAMAGED")


def read_header(path: Path) -> tuple[Tensor, ...]:
    """The tensors of a safetensors file in the order of their bytes. Raises IntegrityError unless the whole file is accounted for."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if size < LENGTH_BYTES or length > min(size - LENGTH_BYTES, MOST_HEADER_BYTES):
            _damaged(path, f"a header of {length} bytes does not fit into {size} bytes")
        raw = file.read(length)
    try:
        entries = json.loads(raw, object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError) as error:
        _damaged(path, f"the header is not JSON: {error}")
    if not isinstance(entries, dict):
        _damaged(path, "the header is not an object")
    start = LENGTH_BYTES + length
    tensors = tuple(sorted((_tensor(path, name, entry, start) for name, entry in entries.items() if name != "__metadata__"), key=lambda tensor: tensor.begin))
    if not tensors:
        _damaged(path, "it holds no tensors")
    place = start
    for tensor in tensors:
        if tensor.begin != place:
            _damaged(path, f"tensor {tensor.name!r} starts at byte {tensor.begin}, expected {place}")
        place = tensor.end
    if place != size:
        _damaged(path, f"the tensors end at byte {place}, the file at {size}")
    return tensors


def _no_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _tensor(path: Path, name: str, entry: object, start: int) -> Tensor:
    values = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = (values.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in DTYPES:
        _damaged(path, f"tensor {name!r} has dtype {dtype!r}, expected one of {', '.join(DTYPES)}")
    if not (isinstance(shape, list) and all(map(_is_count, shape)) and isinstance(offsets, list) and len(offsets) == 2 and all(map(_is_count, offsets))):
        _damaged(path, f"tensor {name!r} has shape {shape!r:.60} and offsets {offsets!r:.60}")
    begin, end = offsets
    if end - begin != math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize:
        _damaged(path, f"tensor {name!r} of {dtype} {shape} takes {end - begin} bytes")
    return Tensor(name=name, dtype=dtype, shape=tuple(shape), begin=start + begin, end=start + end)


def check_finite(path: Path, tensors: tuple[Tensor, ...]) -> None:
    """Raises IntegrityError naming the first tensor with a NaN or infinite number. Reads the file in pieces."""
    for tensor in tensors:
        kind = np.dtype(DTYPES[tensor.dtype])
        left = (tensor.end - tensor.begin) // kind.itemsize
        with open(path, "rb") as file:
            file.seek(tensor.begin)
            while left:
                values = np.fromfile(file, dtype=kind, count=min(CHUNK, left))
                if not len(values):
                    _damaged(path, f"it became shorter while tensor {tensor.name!r} was read")
                left -= len(values)
                bad = (values & BF16_EXPONENT) == BF16_EXPONENT if tensor.dtype == "BF16" else ~np.isfinite(values)
                if bad.any():
                    raise IntegrityError(
                        f"{path}: tensor {tensor.name!r} holds {int(bad.sum())} numbers that are NaN or infinite",
                        hint="the training ran away: lower learning_rate and train again",
                        code="WEIGHTS_NOT_FINITE",
                    )
