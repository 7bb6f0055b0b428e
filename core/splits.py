"""Groups and their splits: a held-out conversation never leaks into a later training.

A row's group is its conversation key. A key that covers more than REFINE_SHARE of a file's rows (and at least
REFINE_ROWS of them) says nothing about the conversation, so it is refined by the whole conversation. A group's split
is drawn once, by the order of the group hashes, and later drops reuse the record.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor

REFINE_SHARE = 0.05
REFINE_ROWS = 10
HELD_OUT_SHARE = 0.10  # of the new groups, for dev and for gate each
HELD_OUT_GROUPS = 30  # wanted for dev and for gate each, where the file is large enough
HELD_OUT_MOST = 0.30  # dev and gate together never take more


@dataclass(frozen=True, slots=True)
class RowKey:
    """Two hashes of a row: of its first user turn, and of the whole conversation."""

    first: str
    whole: str


def group_rows(keys: Sequence[RowKey], known: Mapping[str, str]) -> list[str]:
    """The group of each row. A key that earlier drops know as a group stays that group."""
    counts = Counter(key.first for key in keys)
    limit = max(REFINE_SHARE * len(keys), REFINE_ROWS - 1)
    return [key.first if key.first in known or counts[key.first] <= limit else key.whole for key in keys]


def held_out_groups(num_new: int) -> int:
    """How many new groups go to dev, and as many to gate."""
    wanted = max(round(HELD_OUT_SHARE * num_new), HELD_OUT_GROUPS)
    return min(wanted, floor(HELD_OUT_MOST / 2 * num_new))


def draw_splits(groups: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
    """Split of every group in `groups`: the recorded one, else drawn. Groups are hashes, so their order is random."""
    new = sorted({group for group in groups if group not in known})
    held = held_out_groups(len(new))
    drawn = {group: "gate" if i < held else "dev" if i < 2 * held else "train" for i, group in enumerate(new)}
    return {group: known.get(group) or drawn[group] for group in groups}
