"""The near-duplicate signatures of a file's rows, as columns of the survey's sheet."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from validation.case import Case
from validation.context import Batch, Sheet
from validation.folding import Folded, fold
from validation.minhash import COLUMNS, Signatures, sign, variable_grams
from validation.rowtexts import RowWords, Templates, batch_words, templates

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from validation.grams import Hashes

ROW, SKETCH, BAND = "near.row", "near.sketch", "near.band"
HEAVY = 1  # bit of ROW: most of the row is template
SIGNED = 2  # bit of ROW: the row has a signature
_BITS = 2
LEAST_WORDS = 8  # shorter rows are alike by nature
HEAVY_SHARE = 0.4  # of a row's grams; below it a row differs from another mostly by template


def sign_batch(batch: Batch, sheet: Sheet) -> None:
    """Write the signatures of a batch, once, however many checks ask for them."""
    fold(batch, sheet)
    if len(sheet.column(ROW)) < sheet.num_rows:
        _write(batch.cases, batch_words(batch), templates(batch.context), sheet)


def sign_rows(batch: Batch, common: Templates, sheet: Sheet) -> None:
    """Write the signatures of rows of another file than the one under check, whose templates are these."""
    if batch.cases:
        sheet.num_rows += len(batch.cases)
        fold(batch, sheet)
        _write(batch.cases, batch_words(batch), common, sheet)


def _write(cases: Sequence[Case], words: RowWords, common: Templates, sheet: Sheet) -> None:
    """One number a row in each column."""
    import numpy as np

    variable = variable_grams(words, common)
    signatures = sign(variable.grams)
    num_own = np.diff(variable.grams.offsets)
    is_long = words.counts >= LEAST_WORDS
    rows = np.array([case.line for case in cases], dtype=np.uint64) << np.uint64(_BITS)
    rows |= np.where(is_long & (num_own < HEAVY_SHARE * variable.num_all), HEAVY, 0).astype(np.uint64)
    rows |= np.where(is_long & (num_own > 0), SIGNED, 0).astype(np.uint64)
    columns = {ROW: rows, SKETCH: signatures.sketch}
    columns |= {f"{BAND}{place}": signatures.bands[:, place] for place in range(COLUMNS)}
    for name, values in columns.items():
        sheet.column(name).frombytes(np.ascontiguousarray(values, dtype=np.uint64).tobytes())


@dataclass(frozen=True, slots=True)
class SignedRows:
    """The signed rows of a sheet, each exact copy once."""

    lines: "NDArray[np.int64]"
    exact: "Hashes"
    signatures: Signatures
    heavy: "NDArray[np.int64]"
    """Lines of rows that are mostly template."""
    num_rows: int

    @classmethod
    def of(cls, sheet: Sheet) -> "SignedRows":
        """Those that `sign_batch` wrote."""
        import numpy as np

        rows = np.frombuffer(sheet.column(ROW), dtype=np.uint64)
        exact = Folded.of(sheet).rows
        _, first = np.unique(exact, return_index=True)
        first.sort()
        lines = (rows >> np.uint64(_BITS)).astype(np.int64)
        heavy = lines[first[(rows[first] & np.uint64(HEAVY)) > 0]]
        first = first[(rows[first] & np.uint64(SIGNED)) > 0]
        bands = np.stack([np.frombuffer(sheet.column(f"{BAND}{place}"), dtype=np.uint64)[first] for place in range(COLUMNS)], axis=1)
        signatures = Signatures(np.frombuffer(sheet.column(SKETCH), dtype=np.uint64)[first], bands)
        return cls(lines[first], exact[first], signatures, heavy, len(rows))
