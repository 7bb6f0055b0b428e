"""Signatures of rows by which near duplicates meet: MinHash in bands, and a sketch that estimates their likeness.

96 minima of the hashed grams of a row (rensa), cut into 16 bands of 6. Rows whose grams are alike by a Jaccard index of
J share a band with a chance of 1 - (1 - J**6)**16: 0.99 at 0.8, 0.22 at 0.5, 0.01 at 0.3. The sketch holds the lowest bit
of 64 minima; two of them differ in about 32 * (1 - J) bits.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from validation.grams import Grams
from validation.rowtexts import RowWords, Templates

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from validation.grams import Hashes

NUM_BANDS = 16
BAND_MINIMA = 6
SEED = 42
SKETCH_BITS = 64
MOST_ALIKE = 4  # known rows that are looked at for each row and band
MOST_DIFFERENT = 16  # bits of a sketch: 6.4 are expected at a likeness of 0.8, and 16 at 0.5
COLUMNS = NUM_BANDS // 2  # bands are 32 bits, two in a column of a sheet
FIVE_FROM, THREE_FROM = 48, 32  # words of a row
SIGNATURE_VERSION = 1  # of stored signatures; raise it with any change of bands or sketch


@dataclass(frozen=True, slots=True)
class Signatures:
    """One row each: sketch, and the bands, two in a number."""

    sketch: "Hashes"  # (rows,)
    bands: "Hashes"  # (rows, COLUMNS)

    def __len__(self) -> int:
        return len(self.sketch)

    def band(self, place: int) -> "NDArray[np.uint32]":
        """Band `place` of every row."""
        import numpy as np

        column = self.bands[:, place // 2]
        band: NDArray[np.uint32] = (column >> np.uint64(32) if place % 2 else column & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        return band


def gram_size(num_words: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """Words of a gram for rows of so many words: 5; fewer in short rows, where one changed word would touch most 5-grams."""
    import numpy as np

    return np.where(num_words >= FIVE_FROM, 5, np.where(num_words >= THREE_FROM, 3, 2))


@dataclass(frozen=True, slots=True)
class Variable:
    """The grams of each row that are its own and not of a template of the file, and how many it has with the template's."""

    grams: Grams
    num_all: "NDArray[np.int64]"


def variable_grams(words: RowWords, templates: Templates) -> Variable:
    """What each row says beyond the file's templates, in grams of the size that fits the row."""
    import numpy as np

    size = gram_size(words.counts)
    num_all = np.zeros(len(size), dtype=np.int64)
    hashes, rows = [], []
    for n in np.unique(size).tolist():
        grams = words.grams(n)
        counts = np.diff(grams.offsets)
        own = size == n
        num_all[own] = counts[own]
        keep = np.repeat(own, counts)
        keep[keep] = ~templates.holds(grams.hashes[keep], n)
        hashes.append(grams.hashes[keep])
        rows.append(np.repeat(np.arange(len(size)), counts)[keep])
    row = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
    flat = np.concatenate(hashes) if hashes else np.zeros(0, dtype=np.uint64)
    if len(rows) > 1:
        order = np.argsort(row, kind="stable")
        row, flat = row[order], flat[order]
    return Variable(Grams(flat, np.searchsorted(row, np.arange(len(size) + 1))), num_all)


def sign(grams: Grams) -> Signatures:
    """The signature of each row's grams. Rows without grams all get the same one."""
    import numpy as np
    import rensa  # type: ignore[import-untyped]

    num_minima = NUM_BANDS * BAND_MINIMA
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(grams.hashes, grams.offsets.astype(np.uint64), num_minima, SEED)
    minima = np.array(matrix.to_rows(), dtype=np.uint32).reshape(len(grams.offsets) - 1, num_minima)
    low_bits = np.packbits((minima[:, :SKETCH_BITS] & 1).astype(np.uint8), axis=1)
    sketch = np.ascontiguousarray(low_bits).view(np.uint64).reshape(-1)
    mixed = np.zeros((len(minima), NUM_BANDS), dtype=np.uint64)
    for place in range(BAND_MINIMA):
        mixed = (mixed + minima[:, place::BAND_MINIMA]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    high = mixed >> np.uint64(32)
    return Signatures(sketch, high[:, 0::2] | (high[:, 1::2] << np.uint64(32)))


def different_bits(left: "Hashes", right: "Hashes") -> "NDArray[np.uint8]":
    """In how many bits sketches differ, pair by pair."""
    import numpy as np

    octets = np.ascontiguousarray(left ^ right).view(np.uint8).reshape(-1, 8)
    ones = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)
    found: NDArray[np.uint8] = ones[octets].sum(axis=1, dtype=np.uint8)
    return found


def likely_clusters(signatures: Signatures, most_different: int = MOST_DIFFERENT) -> "list[NDArray[np.int64]]":
    """Rows that hang together by shared bands and alike sketches: places in order, two or more in each cluster.

    Of k rows in one band, each is compared with the first and with the one before: enough to find the clusters, and
    never more than two comparisons a row and band.
    """
    import numpy as np

    cluster = np.arange(len(signatures))  # of each row, named by its first
    for place in range(NUM_BANDS):
        band = signatures.band(place)
        order = np.argsort(band, kind="stable")
        same = band[order[1:]] == band[order[:-1]]
        begins = np.flatnonzero(np.concatenate([[True], ~same]))
        first = order[np.repeat(begins, np.diff(np.concatenate([begins, [len(order)]])))]
        for left, right in ((order[:-1][same], order[1:][same]), (first[1:][same], order[1:][same])):
            apart = cluster[left] != cluster[right]
            left, right = left[apart], right[apart]
            alike = different_bits(signatures.sketch[left], signatures.sketch[right]) <= most_different
            cluster = _joined(cluster, left[alike], right[alike])
    order = np.argsort(cluster, kind="stable")
    runs = np.split(order, np.flatnonzero(np.diff(cluster[order])) + 1) if len(order) else []
    return [run for run in runs if len(run) > 1]


def _joined(cluster: "NDArray[np.int64]", left: "NDArray[np.int64]", right: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """The clusters once each left row is in one with its right row."""
    import numpy as np

    while len(left):
        one, other = cluster[left], cluster[right]
        lower = np.minimum(one, other)
        np.minimum.at(cluster, one, lower)
        np.minimum.at(cluster, other, lower)
        while not np.array_equal(cluster, lowest := cluster[cluster]):
            cluster = lowest
        apart = cluster[left] != cluster[right]
        left, right = left[apart], right[apart]
    return cluster


def _distinct(pairs: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """Each pair once, in order."""
    import numpy as np

    keys = np.unique(pairs[:, 0] * np.int64(1 << 31) + pairs[:, 1])
    return np.stack([keys >> 31, keys & ((1 << 31) - 1)], axis=1)


class BandIndex:
    """Finds known rows that are likely near to others."""

    def __init__(self, known: Signatures) -> None:
        import numpy as np

        self._known = known
        self._orders = [np.argsort(known.band(place), kind="stable") for place in range(NUM_BANDS)]
        self._sorted = [known.band(place)[order] for place, order in enumerate(self._orders)]

    def matches(self, signatures: Signatures, most_different: int = MOST_DIFFERENT) -> "NDArray[np.int64]":
        """Pairs (i, j): row i is likely near to known row j; at most MOST_ALIKE of them for each i and band. Shape (pairs, 2)."""
        import numpy as np

        found = [np.zeros((0, 2), dtype=np.int64)]
        for place, (order, theirs) in enumerate(zip(self._orders, self._sorted, strict=True)):
            band = signatures.band(place)
            first = np.searchsorted(theirs, band)
            for step in range(MOST_ALIKE):
                at = first + step
                hit = np.flatnonzero(at < len(theirs))
                hit = hit[theirs[at[hit]] == band[hit]]
                if not len(hit):
                    break
                other = order[at[hit]]
                alike = different_bits(signatures.sketch[hit], self._known.sketch[other]) <= most_different
                found.append(np.stack([hit[alike], other[alike]], axis=1))
        return _distinct(np.concatenate(found))
