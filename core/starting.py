"""Where a training starts: from the base on all history, or from the incumbent adapter on what it has not learnt yet. Pure.

A chain of continued trainings drifts, and what it forgot on the way nobody sees; so the base is the start while all
history is cheap to repeat. Either way the verdict compares the result with the incumbent.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from core.config import Config, flatten
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
    unfit: str = ""
    """Why what is to be trained cannot begin with it, whatever the rows; empty: it can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The choice, and why, in one sentence. Without a release: the base."""

    release: str | None
    why: str
    learnt: frozenset[str] = frozenset()
    """SHA-256 of the job's drops that the release has learnt from."""


ALIKE = ("lora.targets", "lora.use_dora", "lora.use_rslora", "profile.name", "profile.options")
"""What an adapter that is trained on must have been made with: its tensors and its scale hang on it, or what its rows looked like."""


def begins_on_base(config: Config) -> str:
    """Why a training goes on from no adapter at all; empty where it can."""
    if any(stage.layer for stage in config.stages):
        return "the stages train layers, which begin on the base"
    return ""


def unfit(wanted: Config, made_with: Config | None) -> str:
    """Why a training by `wanted` cannot go on from an adapter by `made_with`; empty where it can."""
    if why := begins_on_base(wanted):
        return why
    if made_with is None:
        return "what the live adapter was made with is not known here"
    now, before = (flatten(config.model_dump(mode="json")) for config in (wanted, made_with))
    for key in ALIKE:
        if now.get(key) != before.get(key):
            return f"the live adapter was made with {key} = {before.get(key)!r}, and {now.get(key)!r} is asked for"
    return ""


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
    if incumbent.unfit:
        return Start(release=None, why=f"{incumbent.unfit}: all history is trained on anew")
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
