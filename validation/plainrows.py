"""Rows that are plain conversations, many at a time: their texts as one list, so that a check looks at a batch with a few calls.

Most files hold hardly anything else. A row is made into a Case only where a check wants to look at it closer.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate, chain
from typing import overload

from rendering.rowtypes import ChatRow, plain_texts
from rendering.specs import Spec
from validation.case import Case
from validation.screen import LEAST_BYTES, Screen

FAILED_IN_A_ROW = 8  # blocks that are not plain, from which on only some are still tried


class PlainRows:
    """The texts of neighbouring lines, each of them a plain conversation (`rendering.specs.plain_texts`) without metadata.

    `texts` are those of all rows in order, `sizes` the number of texts of each row; no text is empty. `block` holds the lines.
    """

    def __init__(self, first_line: int, block: bytes, texts: list[str], sizes: list[int]) -> None:
        self.first_line, self.block, self.texts, self.sizes = first_line, block, texts, sizes

    @classmethod
    def joined(cls, parts: "Sequence[PlainRows]") -> "PlainRows":
        """The rows of parts that follow each other."""
        if len(parts) == 1:
            return parts[0]
        texts = list(chain.from_iterable(part.texts for part in parts))
        sizes = list(chain.from_iterable(part.sizes for part in parts))
        return cls(parts[0].first_line, b"".join([part.block for part in parts]), texts, sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def lines(self) -> range:
        """The lines of the rows."""
        return range(self.first_line, self.first_line + len(self.sizes))

    @cached_property
    def ends(self) -> list[int]:
        """Where in `texts` each row ends."""
        return list(accumulate(self.sizes))

    @cached_property
    def beyond_ascii(self) -> list[int]:
        """The places in `texts` of those that hold more than ASCII."""
        return [place for place, text in enumerate(self.texts) if not text.isascii()]

    def places(self, texts: Sequence[int]) -> list[int]:
        """The places of the rows that hold some of `texts`, in order, each once."""
        return sorted({bisect_right(self.ends, place) for place in texts})

    @cached_property
    def rows(self) -> list[list[str]]:
        """The texts of each row."""
        texts = self.texts
        return [texts[end - size : end] for end, size in zip(self.ends, self.sizes, strict=True)]


class PlainReader:
    """Reads blocks of lines as plain rows, for specs that have such rows."""

    def __init__(self, spec: Spec, longest: int) -> None:
        """Args: longest: bytes of a row; a longer one is not read."""
        has_plain_rows = spec.row is ChatRow and spec.plain is plain_texts and not spec.columns and not spec.file
        self._screen = Screen(spec.row, False) if has_plain_rows else None
        self._longest = longest
        self._num_tried = self._num_failed = 0

    def read(self, block: bytes, first_line: int) -> PlainRows | None:
        """The rows of some lines; None where one of them is anything else than a plain row."""
        if self._screen is None or len(block) < LEAST_BYTES:
            return None
        self._num_tried += 1
        if self._num_failed >= FAILED_IN_A_ROW and self._num_tried % FAILED_IN_A_ROW:
            return None
        said = self._screen.conversations(block)
        self._num_failed = 0 if said else self._num_failed + 1
        if said is None or said.longest_row_bytes > self._longest:
            return None
        return PlainRows(first_line, block, said.texts, said.sizes)


class LazyCases(Sequence[Case]):
    """The rows as cases, each made when it is asked for."""

    def __init__(self, rows: PlainRows, make: Callable[[int, bytes], Case]) -> None:
        """Args: make: a case of a line and its bytes."""
        self._rows, self._make = rows, make
        self._made: dict[int, Case] = {}

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> Case: ...
    @overload
    def __getitem__(self, place: slice) -> list[Case]: ...
    def __getitem__(self, place: int | slice) -> Case | list[Case]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        number = range(len(self))[place]
        case = self._made.get(number)
        if case is None:
            case = self._made[number] = self._make(self._rows.first_line + number, self._raw[number])
        return case

    def __iter__(self) -> Iterator[Case]:
        return map(self.__getitem__, range(len(self)))

    @cached_property
    def _raw(self) -> list[bytes]:
        return self._rows.block.split(b"\n")
