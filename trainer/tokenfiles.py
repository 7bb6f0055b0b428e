"""Tokenised drops on the disk: encoded once, found again by content, read through memory maps.

    <caches>/<key>/   rows.bin    one ROW for each row of the drop that could be encoded, by line
                      ids.bin     token ids of all rows, one after another, int32
                      runs.bin    learnt positions as runs of equal weight, one RUN each
                      source.json of which drop: whoever forgets rows of it finds the entry by that
                      SEALED
    <caches>/<key>.lock           there while somebody writes the entry

The key is a hash over the drop, its index and everything that its encoding follows from (`trainer.encoding`); neither
max_length nor splits are part of it. A training maps the files and makes an Example as a step asks for it, so that data
larger than memory can be trained on. A damaged entry is deleted and made again.
"""

import hashlib
import json
import logging
import os
import shutil
import struct
import time
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from core.errors import ChildError, IntegrityError, LockHeldError
from core.tasks import RowsOf
from rendering.rows import INDEX, OWN_SPECS, Row, index_of, rows_of
from store.durable import made_aside
from store.locks import take_lock
from store.seals import SEAL, check_seal, hash_file, is_sealed, seal
from store.traces import SOURCE
from trainer.examples import Example, Examples, Totals
from trainer.identity import names_sha256

log = logging.getLogger(__name__)

MAKING = ".making"
ROW = np.dtype(
    [("line", "<i4"), ("ids", "<i8"), ("num_ids", "<i4"), ("runs", "<i8"), ("num_runs", "<i4"), ("num_learnt", "<i4"), ("num_last", "<i4"), ("weight", "<f4")]
)
RUN = np.dtype([("start", "<i4"), ("stop", "<i4"), ("weight", "<f4")])
MOST_BYTES = 8 << 30  # of a folder of caches; beyond it the entries that were not used for longest go
ASK_AGAIN_S = 0.2

Encode = Callable[[Row], Example]
Beat = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFile:
    """One drop, mapped. Nothing of it is read before it is asked for."""

    source: RowsOf
    rows: npt.NDArray[np.void]
    ids: npt.NDArray[np.int32]
    runs: npt.NDArray[np.void]

    @classmethod
    def opened(cls, folder: Path, source: RowsOf) -> "TokenFile":
        """The maps of a sealed entry."""
        return cls(
            source=source, rows=_mapped(folder / "rows.bin", ROW), ids=_mapped(folder / "ids.bin", np.dtype("<i4")), runs=_mapped(folder / "runs.bin", RUN)
        )

    def row(self, place: int) -> Row:
        """The row at a place of `rows`, without its tokens. It has no messages: the text stays in its drop."""
        entry = self.rows[place]
        return Row(
            drop=self.source.drop, line=int(entry["line"]), group="", split="train", schema_id=self.source.schema_id, messages=[], weight=float(entry["weight"])
        )

    def example(self, place: int) -> Example:
        """The row at a place of `rows`, with its tokens."""
        _, at, num_ids, runs_at, num_runs, _, num_last, _ = self.rows[place].item()
        learnt, weights = array("i"), array("f")
        for start, stop, own in self.runs[runs_at : runs_at + num_runs].tolist():
            learnt.extend(range(start, stop))
            weights.extend([own] * (stop - start))
        ids = array("i")
        ids.frombytes(self.ids[at : at + num_ids].tobytes())
        return Example(row=self.row(place), ids=ids, learnt=learnt, weights=weights, num_last=num_last)


class TokenRows(Sequence[Example]):
    """Rows of token files in order: of each file, those at the given places. An example is made whenever it is asked for."""

    def __init__(self, parts: Sequence[tuple[TokenFile, npt.NDArray[np.int64]]]) -> None:
        self._parts = [(file, places) for file, places in parts if len(places)]
        self._ends = np.cumsum([len(places) for _, places in self._parts], dtype=np.int64).tolist()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        file, place = self._found(index)
        return file.example(place)

    def row(self, index: int) -> Row:
        """The row of an example, without its tokens."""
        file, place = self._found(index)
        return file.row(place)

    def _found(self, index: int) -> tuple[TokenFile, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        part = bisect_right(self._ends, index)
        file, places = self._parts[part]
        return file, int(places[index - self._ends[part]])  # from the part's end: negative

    @cached_property
    def lengths(self) -> Sequence[int]:
        """Tokens of each row."""
        return array("i", np.concatenate(self._column("num_ids")).astype(np.int32).tobytes()) if self._parts else array("i")

    @cached_property
    def totals(self) -> Totals:
        """Counted over the rows' table, without their tokens."""
        names = ((file.source.drop, int(line)) for file, places in self._parts for line in file.rows["line"][places])
        return Totals(
            tokens=sum(int(column.sum()) for column in self._column("num_ids")),
            learnt=sum(int(column.sum()) for column in self._column("num_learnt")),
            longest=max((int(column.max()) for column in self._column("num_ids")), default=0),
            names_sha256=names_sha256(names),
        )

    def _column(self, name: str) -> list[Any]:
        return [file.rows[name][places] for file, places in self._parts]


class TokenCache:
    """A folder of token files. One writer at a time for each entry; readers need no lock, since entries never change."""

    def __init__(self, folder: Path, encode: Encode, encoding: str, beat: Beat = lambda: None) -> None:
        """`encoding` names all that `encode` follows from, as a hash."""
        self.folder, self.encode, self.encoding, self.beat = folder, encode, encoding, beat

    def file_of(self, source: RowsOf) -> TokenFile:
        """The drop's token file; it is made where there is none, or a damaged one. Raises IntegrityError for a damaged drop."""
        place = self.folder / self._key(source)
        if not self._is_whole(place):
            with self._alone(place):
                if not self._is_whole(place):
                    self._make(place, source)
        os.utime(place / SEAL)  # the last that was used is the last to go
        return TokenFile.opened(place, source)

    def examples(self, sources: Sequence[RowsOf], split: str, max_length: int) -> Examples:
        """The rows of a split as `trainer.examples.encode_rows` would give them, left in their files, but for groups that a later drop holds again.

        Raises ChildError for a row that cannot be encoded.
        """
        found, parts = Examples(), []
        for source, lines in zip(sources, _lines_of(sources, split), strict=True):
            file = self.file_of(source)
            places = np.searchsorted(file.rows["line"], lines)
            missing = (
                lines[(places >= len(file.rows)) | (file.rows["line"][np.minimum(places, max(len(file.rows) - 1, 0))] != lines)] if len(file.rows) else lines
            )
            if len(missing):
                self._tell(source, int(missing[0]))
            rows = file.rows[places]
            found.longest = max(found.longest, int(rows["num_ids"].max(initial=0)))
            overlong = rows["num_ids"] > max_length
            silent = ~overlong & ((rows["num_learnt"] == 0) | (rows["weight"] == 0))
            found.overlong, found.silent = found.overlong + int(overlong.sum()), found.silent + int(silent.sum())
            parts.append((file, places[~overlong & ~silent].astype(np.int64)))
        found.kept = TokenRows(parts)
        return found

    def trim(self, sources: Sequence[RowsOf] = (), most_bytes: int = MOST_BYTES) -> None:
        """Delete the entries that were not used for longest until the folder holds at most so many bytes; never those of `sources`."""
        kept = {self._key(source) for source in sources}
        entries = [(path.stat().st_mtime, path.parent) for path in self.folder.glob(f"*/{SEAL}")]
        size = {entry: sum(path.stat().st_size for path in entry.iterdir()) for _, entry in entries}
        total = sum(size.values())
        for _, entry in sorted(entries):
            if total > most_bytes and entry.name not in kept:
                _delete(entry)
                total -= size[entry]

    def _key(self, source: RowsOf) -> str:
        folder = Path(source.folder)
        own = [hash_file(folder / name) for name in (INDEX, *OWN_SPECS) if (folder / name).is_file()]
        return hashlib.sha256("\n".join([self.encoding, source.sha256, source.schema_id, *own]).encode()).hexdigest()

    def _is_whole(self, place: Path) -> bool:
        if not is_sealed(place):
            return False
        try:
            check_seal(place)
        except (IntegrityError, OSError) as error:
            log.warning("tokens are made anew: %s", error)
            return False
        return True

    def _alone(self, place: Path) -> "_Alone":
        return _Alone(place.with_name(f"{place.name}.lock"), self.beat)

    def _make(self, place: Path, source: RowsOf) -> None:
        if place.exists():
            _delete(place)
        for left in self.folder.glob(f"{MAKING}/{place.name}.*"):  # of a writer that was killed: we hold its lock
            shutil.rmtree(left, ignore_errors=True)
        began = time.monotonic()
        with made_aside(place, self.folder / MAKING) as aside:
            count, tokens = self._write(aside, source)
            (aside / SOURCE).write_text(json.dumps({"drop": source.drop, "sha256": source.sha256}))
            seal(aside)
        log.info("drop %r tokenised: %d rows, %d tokens, %.1f s", source.drop, count, tokens, time.monotonic() - began)

    def _write(self, folder: Path, source: RowsOf) -> tuple[int, int]:
        """Encode the drop row by row; rows that cannot be encoded are left out here, and told of where they are wanted."""
        row, run = struct.Struct("<iqiqiiif"), struct.Struct("<iif")
        count = tokens = num_runs = 0
        with open(folder / "rows.bin", "wb") as table, open(folder / "ids.bin", "wb") as ids, open(folder / "runs.bin", "wb") as runs:
            for wanted in rows_of(source):
                self.beat()
                try:
                    made = self.encode(wanted)
                except ChildError:
                    continue
                own = list(_runs(made))
                ids.write(made.ids.tobytes())
                runs.write(b"".join(run.pack(*each) for each in own))
                table.write(row.pack(wanted.line, tokens, len(made.ids), num_runs, len(own), len(made.learnt), made.num_last, wanted.weight))
                count, tokens, num_runs = count + 1, tokens + len(made.ids), num_runs + len(own)
        return count, tokens

    def _tell(self, source: RowsOf, line: int) -> None:
        """Encode a line that has no tokens once more, for the error that says why."""
        for row in rows_of(source):
            if row.line == line:
                self.encode(row)
        raise IntegrityError(f"line {line} of drop {source.drop!r} has no tokens", hint="delete the cache of tokens and try again", code="TOKENS_MISSING")


class _Alone:
    """The lock of an entry, waited for with signs of life: whoever holds it makes what we want."""

    def __init__(self, path: Path, beat: Beat) -> None:
        self.path, self.beat = path, beat

    def __enter__(self) -> None:
        while True:
            try:
                self.fd = take_lock(self.path, str(os.getpid()), f"the token file {self.path.stem[:12]}", hint="wait for it")
                return
            except LockHeldError:
                self.beat()
                time.sleep(ASK_AGAIN_S)

    def __exit__(self, *error: object) -> None:
        self.path.unlink(missing_ok=True)
        os.close(self.fd)


def _lines_of(sources: Sequence[RowsOf], split: str) -> list[npt.NDArray[np.int32]]:
    """Of each drop: the lines of the split whose group no later drop holds, in order. Groups are held as 64 bytes a row, of several drops only."""
    tables = []
    for source in sources:
        lines, wanted, groups = array("i"), array("b"), bytearray()
        for row in index_of(Path(source.folder, INDEX)):
            lines.append(row.line)
            wanted.append(row.split == split)
            if len(sources) > 1:
                groups += hashlib.blake2b(row.group.encode(), digest_size=32).hexdigest().encode()
        tables.append((np.frombuffer(lines, dtype=np.int32), np.frombuffer(wanted, dtype=np.bool_), np.frombuffer(bytes(groups), dtype="S64")))
    later: npt.NDArray[np.bytes_] = np.array([], dtype="S64")
    found: list[npt.NDArray[np.int32]] = []
    for lines_, wanted_, groups_ in reversed(tables):
        mask = wanted_ & ~np.isin(groups_, later) if len(sources) > 1 else wanted_
        found.append(np.sort(lines_[mask]))
        later = np.union1d(later, groups_)
    return found[::-1]


def _runs(example: Example) -> Iterator[tuple[int, int, float]]:
    """Learnt positions as (first, after the last, weight)."""
    numbered = enumerate(zip(example.learnt, example.weights, strict=True))
    for (_, weight), group in groupby(numbered, key=lambda each: (each[1][0] - each[0], each[1][1])):
        positions = [position for _, (position, _) in group]
        yield positions[0], positions[-1] + 1, weight


def _mapped(path: Path, dtype: "np.dtype[Any]") -> Any:
    """A file as a read-only array; an empty file cannot be mapped."""
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.zeros(0, dtype=dtype)


def _delete(entry: Path) -> None:
    (entry / SEAL).unlink(missing_ok=True)  # first: what is half deleted must not look whole
    shutil.rmtree(entry, ignore_errors=True)
