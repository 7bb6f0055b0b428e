"""What a file is going to meet before it trains: whether enough of it is held out to be judged, and its place in the queue. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.records import Job, Queued
from core.splits import draw_splits, held_out_groups

SEARCHED = 100  # so many times the groups that are needed are tried before the answer is "no number of rows"
GATE_ROWS_S = {"quick": 250_000, "standard": 20_000, "deep": 4_000}
"""Rows a second at each level, of a few hundred bytes each: measured on 2 cores, for the order of size only."""
GATE_START_S = {"quick": 0.2, "standard": 0.5, "deep": 4.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Whether a drop can be judged by what is held out of it. Groups are conversations."""

    splits: Mapping[str, str]  # of each group of the drop
    known: int  # groups that earlier drops hold: they keep their split
    gate_groups: int  # held out for the verdict, and readable
    needed: int  # ranking.min_gate_groups
    missing: int | None  # new conversations more with which it is enough; 0: it is; None: none would do

    @property
    def is_enough(self) -> bool:
        """Whether enough conversations are held out for a verdict."""
        return self.gate_groups >= self.needed


def judge_size(groups: Sequence[str], known: Mapping[str, str], needed: int, unread: frozenset[str] = frozenset()) -> Judgement:
    """What the split rule makes of a drop.

    Args: groups: the group of each row. known: split of the groups of all accepted drops of the adapter. needed: held-out
    groups that a verdict wants. unread: groups whose rows are too long, or teach nothing, so that they are never scored.
    """
    splits = draw_splits(groups, known)
    gate = {group for group, split in splits.items() if split == "gate" and group not in unread}
    fresh = {group for group in splits if group not in known}
    held_before = len(gate - fresh)
    lost = len({group for group in fresh if splits[group] == "gate"}) - len(gate & fresh)
    missing = None
    for more in range(needed * SEARCHED):
        if held_before + held_out_groups(len(fresh) + more) - lost >= needed:
            missing = more
            break
    return Judgement(splits=splits, known=len(splits) - len(fresh), gate_groups=len(gate), needed=needed, missing=0 if len(gate) >= needed else missing)


def jobs_ahead(jobs: Sequence[Job], adapter: str, priority: int) -> int:
    """About how many of the queued jobs start before a new one of `adapter` with this priority (core.queue has the rule).

    All of a higher priority and, of the same, those that go on from a checkpoint and all of its own adapter; the other
    adapters take turns with it.
    """
    ahead, rivals, own = 0, Counter[str](), 0
    for job in jobs:
        if not isinstance(job.facts, Queued) or job.facts.paused:
            continue
        if job.card.priority > priority:
            ahead += 1
        elif job.card.priority == priority:
            if job.facts.checkpoint is not None:
                ahead += 1
            elif job.card.adapter == adapter:
                own += 1
            else:
                rivals[job.card.adapter] += 1
    return ahead + own + sum(min(count, own + 1) for count in rivals.values())
