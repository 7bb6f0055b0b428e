"""Every place that may hold the text of rows, or what was made from it. Nothing else under home may: a forgetting looks here.

To add a place: write a `Holder` in `holdings` (or `box_holdings`), and say in `how` what a forgetting does to it. The canary
test (tests/system/test_forget_leaves_nothing.py) opens everything under home and fails where a place is missing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from store.paths import Box, Home


class How(StrEnum):
    """What a forgetting does to a place."""

    REPLACE = "replace"  # a drop without the rows takes the place of the drop
    CUT = "cut"  # the rows are taken out of files of JSON Lines
    OF_DROPS = "of drops"  # what was made from the drops goes
    ALL = "all"  # all of it goes: it is made again
    PASSING = "passing"  # gone by itself within a moment, or on its way to one of the others
    PURGE = "purge"  # on an inference box: by the signed wish


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A place by its name, its paths now, and what it holds."""

    name: str
    how: How
    what: str
    paths: Callable[[], Iterator[Path]]


def holdings(home: Home) -> tuple[Holder, ...]:
    """The places under home, of which a path exists or not."""
    root = home.root

    def glob(*patterns: str) -> Callable[[], Iterator[Path]]:
        return lambda: (path for pattern in patterns for path in sorted(root.glob(pattern)))

    return (
        Holder(name="drops", how=How.REPLACE, what="accepted rows, what was put aside, signatures, reports", paths=glob("drops/accepted/*")),
        Holder(
            name="coming",
            how=How.PASSING,
            what="drops on their way",
            paths=glob("drops/settling/*", "drops/gating/*", "tmp/gate-*", "tmp/deep-*", "tmp/exam-*"),
        ),
        Holder(name="inbox", how=How.PASSING, what="files that wait", paths=_waiting(home)),
        Holder(name="rejected", how=How.CUT, what="refused files and their reports", paths=glob("inbox/rejected/*")),
        Holder(name="feedback", how=How.CUT, what="signals, and batches of them", paths=glob("feedback/**/*.jsonl")),
        Holder(
            name="spools",
            how=How.PASSING,
            what="signals that were pulled and not stored yet",
            paths=glob("targets/*/out/spool/*.jsonl", "targets/*/spool.coming/*", "targets/*/spool.left/*/*.jsonl"),
        ),
        Holder(name="commands", how=How.PASSING, what="wishes of people", paths=glob("commands/*.json", "commands/.begun/*.json")),
        Holder(name="runs", how=How.OF_DROPS, what="checkpoints, scores, samples, answers, pages, logs", paths=glob("runs/*")),
        Holder(name="releases", how=How.OF_DROPS, what="weights", paths=glob("adapters/*/*/v*")),
        Holder(name="tokens", how=How.OF_DROPS, what="token ids of drops", paths=glob("caches/tokens/*", "caches/tokens/.making/*")),
        Holder(name="caches", how=How.ALL, what="answers that were judged, embeddings, whatever else is made again", paths=_caches(home)),
        Holder(name="snapshots", how=How.OF_DROPS, what="copies and hard links of all of these", paths=glob("snapshots/*")),
        Holder(name="trash", how=How.OF_DROPS, what="what waits to be deleted", paths=glob("tmp/trash/*")),
    )


TEXTLESS = frozenset(
    {"listing.json", "queued.jsonl", "ended.jsonl", "recall-jobs.json", "recall-drops.json", "config.json", "gc.json", "known", "tokens", "suites"}
)
"""Entries of caches/ that hold ids and hashes only, or no rows of drops; `tokens` is a place of its own. Any other entry may hold answers."""


def _caches(home: Home) -> Callable[[], Iterator[Path]]:
    return lambda: (path for path in sorted((home.root / "caches").glob("*")) if path.name not in TEXTLESS and not path.name.endswith(".part"))


def box_holdings(box: Box) -> tuple[Holder, ...]:
    """The places of an inference box."""

    def glob(*patterns: str) -> Callable[[], Iterator[Path]]:
        return lambda: (path for pattern in patterns for path in sorted(box.root.glob(pattern)))

    return (
        Holder(name="box releases", how=How.PURGE, what="weights", paths=glob("releases/[!.]*/[!.]*/v*", "releases/.checking/*", "in/incoming/*")),
        Holder(name="box texts", how=How.PURGE, what="captured feedback, histories of talks", paths=glob("out/spool/*", "spool/*", "capture/*", "histories/*")),
    )


def _waiting(home: Home) -> Callable[[], Iterator[Path]]:
    def paths() -> Iterator[Path]:
        for pattern in ("*", "*/*", "*/*/*"):
            for path in sorted(home.inbox.glob(pattern)):
                if home.rejected not in (path, *path.parents) and (path.suffix == ".jsonl" or (path.is_dir() and path.suffix == ".drop")):
                    yield path

    return paths


def holder(home: Home, name: str) -> Holder:
    """One of them by its name. Raises KeyError."""
    return {one.name: one for one in holdings(home)}[name]
