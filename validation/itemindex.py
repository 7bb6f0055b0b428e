"""Evaluation items as word n-grams: which rows hold which of them, and how much of it.

An item's texts are compared each for itself. A text of 26 words or more is cut into 13-grams, a shorter one into 8-grams;
one of 5 to 7 words counts where a turn of a row is those words and no others. Grams that more than a few items hold are
boilerplate and do not count; neither do those that many rows of the file hold, unless the whole text stands in the row.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import xxhash

from validation.folding import folded
from validation.grams import Grams, grams_of, words_of
from validation.references import Kind, Reference
from validation.rowtexts import RowWords, Templates

if TYPE_CHECKING:
    from validation.grams import Hashes, Places

LONG_GRAM, SHORT_GRAM = 13, 8
LONG_FROM = 26  # words of a text
LEAST_WORDS, LEAST_FURTHER_WORDS = 5, 20  # of a question, and of other texts; shorter ones are said by chance
MOST_GRAMS = 8_000_000
BOILERPLATE_ITEMS = 3  # that may share a gram; in more, it is boilerplate
BOILERPLATE_SHARE = 0.01  # of the items, where that is more
LEAST_LEFT = 3  # grams of a text that are no boilerplate; fewer cannot tell it from others
WHOLE = 0.9  # of all its grams, from which on a text stands there whole


@dataclass(frozen=True, slots=True)
class Unit:
    """A text of an item, and the size of its grams."""

    source: int  # number of the evaluation set
    item: int  # its number there
    line: int
    kind: Kind
    n: int
    answers: tuple[str, ...] = ()  # of the item, where the text is a short question


@dataclass(frozen=True, slots=True)
class Units:
    """Texts of items with their distinct grams, unit by unit."""

    units: list[Unit]
    grams: list["Hashes"]

    def of_source(self, source: int) -> "Units":
        """The same under another number of their evaluation set."""
        return Units([replace(unit, source=source) for unit in self.units], self.grams)


@dataclass(frozen=True, slots=True)
class Hit:
    """A row (by its place in the batch) that holds a share of a text."""

    row: int
    unit: Unit
    coverage: float
    num_grams: int


def size_of_grams(num_words: int, kind: Kind) -> int:
    """Words of a gram for a text of so many words; 0: too short to be told from others."""
    if num_words < (LEAST_WORDS if kind == "question" else LEAST_FURTHER_WORDS):
        return 0
    return LONG_GRAM if num_words >= LONG_FROM else min(num_words, SHORT_GRAM)


def units_of(references: Sequence[Reference]) -> Units:
    """The texts of evaluation sets, equal ones once, as long as they hold no more than MOST_GRAMS grams."""
    import numpy as np

    entries = [(source, item, kind, text) for source, reference in enumerate(references) for item in reference.items for kind, text in item.texts]
    found = Units([], [])
    total, seen = 0, set()
    for begin in range(0, len(entries), 4096):
        part = entries[begin : begin + 4096]
        words = words_of([text for *_, text in part])
        by_size = {n: grams_of(words, n) for n in (LONG_GRAM, SHORT_GRAM, *range(LEAST_WORDS, SHORT_GRAM))}
        for place, (source, item, kind, text) in enumerate(part):
            key, n = xxhash.xxh3_64_intdigest(folded(text)), size_of_grams(int(words.counts[place]), kind)
            if not n or key in seen or total > MOST_GRAMS:
                continue
            seen.add(key)
            answers = tuple(answer for other, answer in item.texts if other == "answer") if n < SHORT_GRAM else ()
            grams = np.unique(by_size[n].of(place))
            total += len(grams)
            found.units.append(Unit(source, item.number, item.line, kind, n, answers))
            found.grams.append(grams)
    return found


class ItemIndex:
    """Finds the units whose grams stand in rows. `size` is their number. Args: templates: of the file under check."""

    def __init__(self, units: Units, templates: Templates) -> None:
        self._units = units.units
        self.size = len(units.units)
        sizes = sorted({unit.n for unit in units.units})
        self._tables = [_Table(units, n, templates) for n in sizes]

    def hits(self, rows: RowWords) -> Iterator[Hit]:
        """Every unit of which a row holds a gram that counts."""
        for table in self._tables:
            grams = rows.grams(table.n) if table.n >= SHORT_GRAM else _whole_texts(rows, table.n)
            for row, unit, coverage, num_grams in table.hits(grams):
                yield Hit(row, self._units[unit], coverage, num_grams)


def _whole_texts(rows: RowWords, n: int) -> Grams:
    """The words of those texts of rows that have exactly n, as one gram each."""
    import numpy as np

    grams = grams_of(rows.words, n)
    alone = np.diff(grams.offsets) == 1
    before = np.concatenate([[0], np.cumsum(alone)])
    return Grams(grams.hashes[grams.offsets[:-1][alone]], before[rows.rows])


class _Table:
    """The grams of one size, each with the units that hold it."""

    def __init__(self, units: Units, n: int, templates: Templates) -> None:
        import numpy as np

        self.n = n
        places = [place for place, unit in enumerate(units.units) if unit.n == n]
        grams = np.concatenate([units.grams[place] for place in places])
        owner = np.repeat(places, [len(units.grams[place]) for place in places])
        order = np.argsort(grams, kind="stable")
        self._owner = owner[order]
        self._keys, self._starts = np.unique(grams[order], return_index=True)
        self._starts = np.append(self._starts, len(grams))
        items = len({(units.units[place].source, units.units[place].item) for place in places})
        holders = np.diff(self._starts)
        self._counts = (holders <= max(BOILERPLATE_ITEMS, BOILERPLATE_SHARE * items)) & ~templates.holds(self._keys, n)
        self._total = np.bincount(self._owner, minlength=len(units.units))
        self._left = np.bincount(self._owner, weights=np.repeat(self._counts, holders), minlength=len(units.units)).astype(np.int64)
        self._maybe = np.zeros(1 << 22, dtype=np.bool_)
        self._maybe[(self._keys >> np.uint64(42)).astype(np.int64)] = True

    def hits(self, grams: Grams) -> Iterator[tuple[int, int, float, int]]:
        """(row, unit, coverage, grams of it that the row holds)."""
        import numpy as np

        maybe = np.flatnonzero(self._maybe[(grams.hashes >> np.uint64(42)).astype(np.int64)])
        if not len(maybe):
            return
        at = np.minimum(np.searchsorted(self._keys, grams.hashes[maybe]), len(self._keys) - 1)
        found = self._keys[at] == grams.hashes[maybe]
        rows = np.searchsorted(grams.offsets, maybe[found], side="right") - 1
        pairs = np.unique(rows * np.int64(len(self._keys)) + at[found])  # each gram once a row
        rows, keys = pairs // len(self._keys), pairs % len(self._keys)
        sizes = np.diff(self._starts)[keys]
        units = self._owner[_ranges(self._starts[keys], sizes)]
        row_units, place = np.unique(np.repeat(rows, sizes) * np.int64(len(self._total)) + units, return_inverse=True)
        all_found = np.bincount(place)
        counted = np.bincount(place, weights=np.repeat(self._counts[keys], sizes)).astype(np.int64)
        for row_unit, here, counts in zip(row_units.tolist(), all_found.tolist(), counted.tolist(), strict=True):
            row, unit = divmod(row_unit, len(self._total))
            total, left = int(self._total[unit]), int(self._left[unit])
            if here >= WHOLE * total:
                yield row, unit, here / total, here
            elif counts and left >= min(LEAST_LEFT, total):
                yield row, unit, counts / left, counts


def _ranges(starts: "Places", sizes: "Places") -> "Places":
    """start, start + 1, …, start + size - 1 for each pair, one after the other."""
    import numpy as np

    ends = np.cumsum(sizes)
    places: Places = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - sizes, sizes) + np.repeat(starts, sizes)
    return places


def merged(parts: Iterable[Units]) -> Units:
    """Units of several origins together."""
    whole = Units([], [])
    for part in parts:
        whole.units.extend(part.units)
        whole.grams.extend(part.grams)
    return whole
