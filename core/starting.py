"""Where a training starts: from the base on all history, or from the incumbent adapter on what it has not learnt yet. Pure.

A chain of continued trainings drifts, and what it forgot on the way nobody sees; so the base is the start while all
history is cheap to repeat. Either way the verdict compares the result with the incumbent.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from core.recipe import StartFrom

MUCH_HISTORY = 20_000
"""Rows that the incumbent has learnt, from which repeating them all is no longer cheap: hours on one GPU."""
FAR_MORE = 10
"""How many times the new rows the history must be; else the new rows are most of the work anyway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incumbent:
    """The release that is live, as far as a start from it depends on it."""

    release: str
    base_sha256: str
    drops: frozenset[str]
    """SHA-256 of the drops that it learnt from."""
    made_up: bool = False
    """Whether the stub made it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The choice, and why, in one sentence. Without a release: the base."""

    release: str | None
    why: str
    learnt: frozenset[str] = frozenset()
    """SHA-256 of the job's drops that the release has learnt from."""


def choose_start(wanted: StartFrom, incumbent: Incumbent | None, base_sha256: str, rows: Mapping[str, int]) -> Start:
    """Where to start.

    Args: wanted: training.start. base_sha256: of the job. rows: SHA-256 of each of the job's drops -> its rows.
    """
    if wanted == "base":
        return Start(release=None, why="training.start says base: all history is trained on anew")
    if incumbent is None or incumbent.made_up:
        return Start(release=None, why="no adapter is live to go on from")
    if incumbent.base_sha256 != base_sha256:
        return Start(release=None, why="the base is another one than that of the live adapter: all history is trained on anew")
    if withdrawn := incumbent.drops - rows.keys():
        return Start(
            release=None, why=f"the live adapter has learnt from {len(withdrawn)} drop(s) that are set aside since: all other history is trained on anew"
        )
    old = sum(count for drop, count in rows.items() if drop in incumbent.drops)
    new = sum(rows.values()) - old
    if not new:
        return Start(release=None, why="the live adapter has learnt from all of these drops: they are trained on anew")
    if wanted == "auto" and (old < MUCH_HISTORY or old < FAR_MORE * new):
        return Start(release=None, why=f"{old:,} earlier rows are few beside {new:,} new ones: all history is trained on anew")
    return Start(
        release=incumbent.release, why=f"goes on from the live adapter: {old:,} rows are learnt, {new:,} are new", learnt=incumbent.drops & rows.keys()
    )
