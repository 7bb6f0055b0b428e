"""series/adapters/<persona>/<domain>/series.jsonl: how an adapter fares over time, a line for each score and tally. The daemon writes it.

Scores come from the verdicts of what was released, tallies from whoever counts. A line about the same release, measure and
time as an earlier one takes its place, so that a count may be told while it still grows. Numbers and ids only.

Incidents are not written a second time: live.jsonl has them, and `incidents_by_day` counts them.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from core.trends import Change, Counted, Score, Tally
from core.wire import SWITCHES
from store.codec import dump, parse
from store.paths import Home
from store.releases import Release
from store.rotation import all_lines, line_log

PART_BYTES = 1 << 20  # about 3,000 lines
PARTS = 8
BASE = "base"
DAY = timedelta(days=1)
INCIDENTS = "incidents"
ROLLED_BACK, NOT_RESTORED = "rollback", "not restored"
NO_SERIES = frozenset({"coherence"})  # legs that compare something else than the release and what it replaced

Sample = Score | Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """The series of one adapter, oldest first."""

    scores: tuple[Score, ...] = ()
    tallies: tuple[Tally, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Something that went wrong while a release served."""

    at: datetime
    release: str
    version: int
    target: str
    what: str  # rollback, not restored
    code: str = ""


def remember_samples(home: Home, adapter: str, samples: Iterable[Sample]) -> None:
    """Add lines to an adapter's series. On a full disk they are dropped. Raises OSError for other trouble."""
    path = home.performance(adapter)
    path.parent.mkdir(parents=True, exist_ok=True)
    log = line_log(path, PART_BYTES, PARTS)
    for sample in samples:
        log.append((sample.at if isinstance(sample, Score) else sample.since).isoformat(), dump(sample))


def performance_of(home: Home, adapter: str) -> Performance:
    """What was remembered of an adapter; a line that is damaged or of another form is left out."""
    scores: dict[tuple[str, str], Score] = {}
    tallies: dict[tuple[str, str, datetime], Tally] = {}
    for line in all_lines(home.performance(adapter)):
        try:
            one: Sample = parse(Score | Tally, line)  # type: ignore[arg-type]
        except ValueError:
            continue
        if isinstance(one, Score):
            scores[one.release, one.measure] = one
        else:
            tallies[one.release, one.measure, one.since] = one
    return Performance(scores=tuple(sorted(scores.values(), key=lambda one: one.at)), tallies=tuple(sorted(tallies.values(), key=lambda one: one.since)))


# ---------------------------------------------------------------- scores, from verdicts


def scores_of(release: Release, live_at: datetime) -> tuple[Score, ...]:
    """What the verdict of a release measured against what it replaced. None where its verdict.json is damaged or older."""
    try:
        verdict: Mapping[str, Any] = json.loads((release.folder / "verdict.json").read_bytes())
        return tuple(_scores(verdict, release, live_at))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ()


def _scores(verdict: Mapping[str, Any], release: Release, live_at: datetime) -> Iterator[Score]:
    replaced = "" if verdict["incumbent"] == BASE else str(verdict["incumbent"])
    for leg in verdict["legs"]:
        compared = [one for one in (leg.get("comparison"), *leg.get("also", ())) if one]
        if leg["name"] in NO_SERIES:
            continue
        for one in compared:
            change = one["difference"]
            yield Score(
                at=live_at,
                release=release.id,
                version=release.version,
                measure=f"{leg['name']}, {one.get('measure', 'loss per token')}",
                value=float(one["after"]),
                count=int(one["rows"]),
                higher_is_better=bool(one.get("higher_is_better", False)),
                replaced=replaced,
                change=Change(mean=float(change["mean"]), low=float(change["low"]), high=float(change["high"])),
            )


# ---------------------------------------------------------------- incidents, from what was live


def first_target(history: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The lines of the first target: the others repeat what it does."""
    return [entry for entry in history if entry["target"] == history[0]["target"]] if history else []


def incidents_in(history: Sequence[Mapping[str, Any]]) -> Iterator[Incident]:
    """What went wrong, by the lines of one adapter and one target in order."""
    live: Mapping[str, Any] | None = None
    for entry in history:
        if entry["event"] not in SWITCHES:
            continue
        if live is not None and live["release"]:
            what = _went_wrong(live, entry)
            if what:
                at, target = datetime.fromisoformat(entry["at"]), str(entry["target"])
                yield Incident(at=at, release=live["release"], version=live["version"] or 0, target=target, what=what, code=entry["code"])
        live = entry


def _went_wrong(before: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    if entry["event"] == "rolled_back":  # also to the base or to a release of a higher number
        return ROLLED_BACK
    if entry["event"] == "restored":
        return NOT_RESTORED if entry["code"] else ""
    return ROLLED_BACK if (entry["version"] or 0) < (before["version"] or 0) else ""


def incidents_by_day(history: Sequence[Mapping[str, Any]], now: datetime) -> tuple[Tally, ...]:
    """Incidents by the day, for each release while it was live; days without one count too. `history` as for `incidents_in`."""
    incidents = list(incidents_in(history))
    turns = [entry for entry in history if entry["event"] in SWITCHES]
    found: list[Tally] = []
    for number, entry in enumerate(turns):
        if not entry["release"]:
            continue
        until = datetime.fromisoformat(turns[number + 1]["at"]) if number + 1 < len(turns) else now
        found += _by_day(entry, until, incidents)
    return tuple(found)


def _by_day(entry: Mapping[str, Any], until: datetime, incidents: Sequence[Incident]) -> Iterator[Tally]:
    since = datetime.fromisoformat(entry["at"])
    while since < until:
        end = min(since + DAY, until)
        hits = sum(one.release == entry["release"] and since < one.at <= end for one in incidents)
        yield Tally(
            since=since,
            until=end,
            release=entry["release"],
            version=entry["version"] or 0,
            measure=INCIDENTS,
            counted=Counted.RATE,
            hits=hits,
            out_of=(end - since) / DAY,
        )
        since = end


def first_live(history: Sequence[Mapping[str, Any]]) -> dict[str, datetime]:
    """Release -> when it went live first, by the lines of one target."""
    found: dict[str, datetime] = {}
    for entry in history:
        if entry["event"] in SWITCHES and entry["release"]:
            found.setdefault(entry["release"], datetime.fromisoformat(entry["at"]))
    return found
