"""A mapping from ids to records in which those that rest are packed: about 130 bytes each, instead of a thousand or more.

A record that may still change soon stands as it is. Of those that rest, the oldest are packed together, as many as make
a page; a page is read as a whole where one of its records is asked for, and the last few that were read are kept. So the
first record of a page costs about half a millisecond, and the next ones nothing. Nothing is written to disk here.
"""

import logging
import re
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")

log = logging.getLogger(__name__)

PAGE = 64  # records
MOST_LOOSE = 4 * PAGE  # that rest and are not packed yet
MOST_READ = 4  # pages that are kept as they were read
HASH = re.compile(rb"\xd9@[0-9a-f]{64}")  # a text of 64 hex digits, as MessagePack writes it
HOLE = b"\xd9@" + b"#" * 64  # stands where one was taken out: hashes do not become smaller by compression
HASH_BYTES = 32


@dataclass(slots=True)
class _Page:
    """`first` and `last` are the ends of what it may hold; `packed` begins with the number of hashes that were taken out."""

    first: str
    last: str
    count: int
    packed: bytes


class Pages(MutableMapping[str, T], Generic[T]):
    """Records by id. Those that are added have higher ids than those before them, as a rule: then adding costs least.

    Args: kind: what `plain` makes of a record, as msgspec is to read it. made_of: the record again, of such a value.
        rests: whether a record will probably not change soon, and may be packed.
    """

    def __init__(self, kind: Any, plain: Callable[[T], Any], made_of: Callable[[Any], T], rests: Callable[[T], bool]) -> None:
        self._plain, self._made_of, self._rests = plain, made_of, rests
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(dict[str, kind])
        self._loose: dict[str, T] = {}
        self._ripe: dict[str, None] = {}  # of the loose ones, those that rest, in the order in which they came
        self._pages: list[_Page] = []
        self._read: dict[str, dict[str, T]] = {}  # first id of a page -> its records; the last one was asked for last
        self._num_packed = 0

    def __len__(self) -> int:
        return len(self._loose) + self._num_packed

    def __iter__(self) -> Iterator[str]:
        for page in tuple(self._pages):
            yield from tuple(self._records(page))
        yield from tuple(self._loose)

    def __getitem__(self, id: str) -> T:
        found = self._loose.get(id)
        if found is not None:
            return found
        place = self._place(id)
        if place is None:
            raise KeyError(id)
        return self._records(self._pages[place])[id]

    def __contains__(self, id: object) -> bool:
        return id in self._loose or (isinstance(id, str) and (place := self._place(id)) is not None and id in self._records(self._pages[place]))

    def __setitem__(self, id: str, record: T) -> None:
        if id not in self._loose:
            self._take_out(id)
        self._loose[id] = record
        self._ripe.pop(id, None)
        if self._rests(record):
            self._ripe[id] = None
            if len(self._ripe) >= MOST_LOOSE:
                self._put_away([*self._ripe][: MOST_LOOSE // 2])

    def __delitem__(self, id: str) -> None:
        if id in self._loose:
            del self._loose[id]
            self._ripe.pop(id, None)
        elif not self._take_out(id):
            raise KeyError(id)

    def newest(self) -> str:
        """The highest id; empty where there is none."""
        packed = max(self._records(self._pages[-1])) if self._pages else ""
        return max(packed, max(self._loose, default=""))

    # ---------------------------------------------------------------- pages

    def _place(self, id: str) -> int | None:
        """Of the page that may hold the id."""
        if not self._pages or id > self._pages[-1].last:
            return None
        place = bisect_right(self._pages, id, key=lambda page: page.first) - 1
        return place if place >= 0 and id <= self._pages[place].last else None

    def _records(self, page: _Page) -> dict[str, T]:
        records = self._read.pop(page.first, None)
        if records is None:
            records = self._unpack(page.packed)
            while len(self._read) >= MOST_READ:
                del self._read[next(iter(self._read))]
        self._read[page.first] = records
        return records

    def _take_out(self, id: str) -> bool:
        place = self._place(id)
        if place is None or id not in (records := self._records(self._pages[place])):
            return False
        self._replace(place, {one: record for one, record in records.items() if one != id})
        return True

    def _put_away(self, ids: list[str]) -> None:
        """Pack loose records, each into the page within whose ends it belongs, or behind the last one. Those of a page that
        would not read as they are stay loose: no record is ever lost to an odd value in it."""
        of_page: dict[int, dict[str, T]] = {}
        for id in sorted(ids):
            del self._ripe[id]
            place = max(0, bisect_right(self._pages, id, key=lambda page: page.first) - 1)
            of_page.setdefault(place, {})[id] = self._loose[id]
        for place in sorted(of_page, reverse=True):
            before = dict(self._records(self._pages[place])) if self._pages else {}
            try:
                self._replace(place, dict(sorted((before | of_page[place]).items())))
            except (ValueError, TypeError, OverflowError) as error:
                log.warning("%s records stay unpacked: %s", len(of_page[place]), error, extra={"action": "not_packed"})
                continue
            for id in of_page[place]:
                del self._loose[id]

    def _replace(self, place: int, records: dict[str, T]) -> None:
        """Let a page hold these records, in order, from now on; more than one holds become several pages. Raises ValueError,
        TypeError and OverflowError, and has changed nothing then."""
        ids = [*records]
        parts = [ids[begin : begin + PAGE] for begin in range(0, len(ids), PAGE)]
        pages = [self._page({id: records[id] for id in part}) for part in parts]
        if place < len(self._pages):
            self._read.pop(self._pages[place].first, None)
            self._num_packed -= self._pages[place].count
        self._pages[place : place + 1] = pages
        self._num_packed += len(ids)

    def _page(self, records: dict[str, T]) -> _Page:
        ids = [*records]
        packed = _packed(msgspec.msgpack.encode({id: self._plain(record) for id, record in records.items()}))
        if self._unpack(packed) != records:
            raise ValueError("what was packed reads otherwise")
        return _Page(first=ids[0], last=ids[-1], count=len(ids), packed=packed)

    def _unpack(self, packed: bytes) -> dict[str, T]:
        return {id: self._made_of(value) for id, value in self._decoder.decode(_unpacked(packed)).items()}


def _packed(raw: bytes) -> bytes:
    hashes = b"" if HOLE in raw else b"".join(bytes.fromhex(found[2:].decode()) for found in HASH.findall(raw))
    rest = HASH.sub(HOLE, raw) if hashes else raw
    return (len(hashes) // HASH_BYTES).to_bytes(4, "little") + hashes + zlib.compress(rest)


def _unpacked(packed: bytes) -> bytes:
    end = 4 + int.from_bytes(packed[:4], "little") * HASH_BYTES
    rest = zlib.decompress(packed[end:])
    if end == 4:
        return rest
    parts = rest.split(HOLE)
    hashes = (b"\xd9@" + packed[begin : begin + HASH_BYTES].hex().encode() for begin in range(4, end, HASH_BYTES))
    return b"".join(text for pair in zip(parts, (*hashes, b""), strict=True) for text in pair)
