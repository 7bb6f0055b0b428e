"""Many ids in order, in little memory: one byte a letter, instead of an object for each. Pure."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import overload


class SortedIds(Sequence[str]):
    """Texts without a double, in order. Each takes the width of the longest; what is added at the end is cheapest.

    Texts are of Latin-1, and none ends with a zero byte.
    """

    __slots__ = ("_held", "_width")

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._held, self._width = bytearray(), 1
        for id in ids:
            self.add(id)

    def __len__(self) -> int:
        return len(self._held) // self._width

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self._at(one) for one in range(*place.indices(len(self)))]
        count = len(self)
        if not -count <= place < count:
            raise IndexError(place)
        return self._at(place % count)

    def _at(self, place: int) -> str:
        begin = place * self._width
        return self._held[begin : begin + self._width].rstrip(b"\0").decode("latin-1")

    def place_of(self, id: str) -> int:
        """How many stand before `id`, whether it is there or not."""
        count = len(self)
        return count if not count or self._at(count - 1) < id else bisect_left(self, id)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and (place := self.place_of(id)) < len(self) and self._at(place) == id

    def add(self, id: str) -> bool:
        """Put an id in. Returns whether that changed anything."""
        place = self.place_of(id)
        if place < len(self) and self._at(place) == id:
            return False
        raw = id.encode("latin-1")
        if len(raw) > self._width:
            self._widen(len(raw))
        begin = place * self._width
        self._held[begin:begin] = raw.ljust(self._width, b"\0")
        return True

    def discard(self, id: str) -> bool:
        """Take an id out. Returns whether that changed anything."""
        place = self.place_of(id)
        if place >= len(self) or self._at(place) != id:
            return False
        del self._held[place * self._width : (place + 1) * self._width]
        return True

    def _widen(self, width: int) -> None:
        held = [self._held[begin : begin + self._width].ljust(width, b"\0") for begin in range(0, len(self._held), self._width)]
        self._held, self._width = bytearray(b"".join(held)), width
