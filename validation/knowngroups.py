"""What the long-lived gate child remembers of the drops that were accepted earlier: which conversations they hold, and their splits.

The daemon tells of them by a file that grows (core/gate.py). The child reads what is new since it was asked last, and the
index of each drop once in its life, so that a small drop costs the same after ten others or a hundred thousand. A group
is kept as 64 bits of its hash beside one byte for its split: 300,000 conversations take 3 MB. Two groups of the same 64
bits would only share a split.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from core.errors import LoradError
from core.gate import ROWS_FOLDER, GateSpec, KnownDrop
from rendering.rows import INDEX, IndexRow, Split, read_index

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SPLITS: tuple[Split, ...] = ("train", "dev", "gate")
MERGE_LEAST = 4096  # groups that are kept unsorted at most, or an eighth of the sorted ones
MOST_FILES = 16  # adapters whose groups are remembered at once; one that comes back is read again
MOST_ANSWERS = 256  # drops whose groups are remembered before anybody knows whether they will be accepted

_decode = msgspec.json.Decoder(tuple[str, str, str]).decode


@dataclass(slots=True)
class _Groups:
    """Group -> split, small in memory."""

    keys: "NDArray[np.uint64] | None" = None  # in order
    splits: "NDArray[np.uint8] | None" = None
    recent: dict[int, int] = field(default_factory=dict)

    def add(self, rows: Iterable[IndexRow]) -> None:
        for row in rows:
            self.recent[_short(row.group)] = SPLITS.index(row.split)
        if len(self.recent) > max(MERGE_LEAST, (0 if self.keys is None else len(self.keys)) // 8):
            self._merge()

    def _merge(self) -> None:
        import numpy as np

        keys = np.fromiter(self.recent.keys(), dtype=np.uint64, count=len(self.recent))
        splits = np.fromiter(self.recent.values(), dtype=np.uint8, count=len(self.recent))
        if self.keys is not None and self.splits is not None:
            keys, splits = np.concatenate((keys, self.keys)), np.concatenate((splits, self.splits))
        self.keys, first = np.unique(keys, return_index=True)  # the recent one of two comes first
        self.splits = splits[first]
        self.recent = {}

    def of(self, groups: Sequence[str]) -> Iterator[tuple[str, Split]]:
        """The groups among these that are known, with their splits."""
        rest = []
        for group in groups:
            if (split := self.recent.get(_short(group))) is not None:
                yield group, SPLITS[split]
            else:
                rest.append(group)
        if self.keys is None or self.splits is None or not rest:
            return
        import numpy as np

        wanted = np.array([_short(group) for group in rest], dtype=np.uint64)
        places = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        for group, place, is_there in zip(rest, places.tolist(), (self.keys[places] == wanted).tolist(), strict=True):
            if is_there:
                yield group, SPLITS[int(self.splits[place])]


@dataclass(slots=True)
class _Told:
    """How far a file of the daemon was read, and the groups of the drops that it names."""

    num_bytes: int = 0
    groups: _Groups = field(default_factory=_Groups)


class Acquaintances:
    """Lives as long as the gate child."""

    def __init__(self) -> None:
        self._told: OrderedDict[str, _Told] = OrderedDict()
        self._answered: OrderedDict[str, tuple[IndexRow, ...]] = OrderedDict()  # drop -> its index, of what was accepted here

    def splits_of(self, spec: GateSpec, groups: Sequence[str]) -> dict[str, Split]:
        """The split of each of these groups that an earlier drop of the adapter has. Raises IntegrityError, LoradError."""
        found: dict[str, Split] = {}
        for drop in spec.known:
            found |= {row.group: row.split for row in read_index(Path(drop.folder, INDEX))}
        if spec.known_file and not spec.accepted:
            found |= dict(self._of(spec).groups.of(groups))
        for other in spec.after:
            found |= {row.group: row.split for row in self._answered.get(other, ())}
        return found

    def keep(self, drop: str, index: Sequence[IndexRow]) -> None:
        """Remember what this child has just accepted, until the daemon tells of it or asks about it again."""
        self.forget(drop)
        self._answered[drop] = tuple(index)
        while len(self._answered) > MOST_ANSWERS:
            self._answered.popitem(last=False)

    def forget(self, drop: str) -> None:
        """The drop is asked about again: what was said of it counts no more."""
        self._answered.pop(drop, None)

    def _of(self, spec: GateSpec) -> _Told:
        told = self._told.setdefault(spec.known_file, _Told())
        self._told.move_to_end(spec.known_file)
        if told.num_bytes < spec.known_bytes:
            for drop, _, _ in _lines(Path(spec.known_file), told.num_bytes, spec.known_bytes):
                index = self._answered.get(drop)
                told.groups.add(index if index is not None else read_index(Path(spec.known_root, drop, ROWS_FOLDER, INDEX)))
            told.num_bytes = spec.known_bytes
        while len(self._told) > MOST_FILES:
            self._told.popitem(last=False)
        return told


def drops_of(spec: GateSpec) -> tuple[KnownDrop, ...]:
    """Each earlier drop of the adapter; of a drop that was accepted before, those that come before it. Raises LoradError."""
    lines = _lines(Path(spec.known_file), 0, spec.known_bytes) if spec.known_file else ()
    told = (
        KnownDrop(folder=str(Path(spec.known_root, drop, ROWS_FOLDER)), schema_id=schema_id, sha256=sha256)
        for drop, schema_id, sha256 in lines
        if not spec.accepted or drop < spec.drop
    )
    return (*spec.known, *told)


def _lines(path: Path, begin: int, end: int) -> list[tuple[str, str, str]]:
    try:
        with open(path, "rb") as file:
            file.seek(begin)
            raw = file.read(end - begin)
    except FileNotFoundError:
        raise LoradError(f"{path} is gone: what was accepted earlier is not known", hint="the drop is checked again by itself", code="IO_ERROR") from None
    return [_decode(line) for line in raw.split(b"\n") if line]


def _short(group: str) -> int:
    return int(group[:16], 16)
