"""Which rows a training from an adapter sees: all that the adapter has not learnt from, and a few of those that it has."""

import hashlib
from collections.abc import Collection, Sequence

from rendering.rows import Row


def with_replay(rows: Sequence[Row], learnt: Collection[str], share: float, seed: int) -> list[Row]:
    """Rows in their order: of the train rows of the drops in `learnt` only so many that they are `share` of all train rows.

    Which ones follows from the seed and from the row's place alone. Rows of other splits are all kept: what is judged stays
    the same. Args: learnt: ids of drops. share: 0 to 1.
    """
    if not learnt:
        return list(rows)
    old = [row for row in rows if row.split == "train" and row.drop in learnt]
    new = sum(row.split == "train" for row in rows) - len(old)
    count = len(old) if share >= 1 else min(len(old), round(share / (1 - share) * new))
    repeated = {(row.drop, row.line) for row in sorted(old, key=lambda row: _place(row, seed))[:count]}
    return [row for row in rows if row.split != "train" or row.drop not in learnt or (row.drop, row.line) in repeated]


def _place(row: Row, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{row.drop}/{row.line}".encode()).digest()
