"""What is needed of home, by the records: which jobs have ended, which releases are live, were live, are wished for, pinned."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.records import Ended, Held, Job, Ranking, Releasing
from core.retention import EndedRef, References
from core.wire import SWITCHES, Activation
from store.codec import parse
from store.durable import lines_of, replace_file
from store.paths import Home
from store.targets import desired_of, mirror
from store.wire import read_active

Lives = dict[str, tuple[str | None, str | None]]


class Unreadable(Exception):
    """A list of what is needed cannot be trusted."""


def references_of(home: Home, jobs: Iterable[Job], targets: Sequence[str], damaged: Sequence[str]) -> References:
    """What must stay. `damaged`: sentences about job records that could not be read. Never raises: trouble is told in the answer."""
    everything = list(jobs)
    ended = {job.id: EndedRef(adapter=job.card.adapter, at=job.facts.at) for job in everything if isinstance(job.facts, Ended)}
    try:
        if damaged:
            raise Unreadable(damaged[0])
        releases = _of_jobs(everything)
        has_releases = any((home.root / "adapters").glob("*/*/v*/manifest.json"))
        for target in targets:
            releases = _of_target(home, target, has_releases) | releases
        releases = dict.fromkeys(pins(home), "pinned") | releases
    except Unreadable as error:
        return References(ended=ended, trouble=str(error))
    return References(ended=ended, releases=releases)


def _of_jobs(jobs: Iterable[Job]) -> dict[str, str]:
    """The releases that jobs on their way make, or are compared with."""
    needed: dict[str, str] = {}
    for job in jobs:
        facts = job.facts
        ranking = facts if isinstance(facts, Ranking) else facts.ranking if isinstance(facts, Held | Releasing) else None
        if ranking is not None and ranking.incumbent:
            needed[ranking.incumbent] = f"{job.id} is compared with it"
        if isinstance(facts, Releasing) and facts.release:
            needed[facts.release] = f"{job.id} is on its way with it"
    return needed


def _of_target(home: Home, target: str, has_releases: bool) -> dict[str, str]:
    """What a target serves, served before, or is asked to serve. Raises Unreadable."""
    needed: dict[str, str] = {}
    try:
        desired = desired_of(home, target)
    except Exception as error:
        raise Unreadable(f"the wish for target {target!r} cannot be read: {error}") from None
    lives = _lives_by(mirror(home, target) / "activations.jsonl")
    active_path = mirror(home, target) / "active.json"
    active = read_active(active_path)
    if active is None and active_path.exists():
        raise Unreadable(f"what target {target!r} serves cannot be read: {active_path} is damaged")
    if has_releases and active is None and lives is None:
        raise Unreadable(f"target {target!r} was never seen, so nobody knows which releases it needs")
    for wish in (desired.aliases if desired else {}).values():
        needed |= {release: f"wished for on {target}" for release in (wish.release, wish.replaces) if release}
    for before, now in (lives or {}).values():
        needed |= {release: why for release, why in ((before, f"previous on {target}"), (now, f"live on {target}")) if release}
    for state in (active.aliases if active else {}).values():
        found = ((state.wanted, "asked of"), (state.previous, "previous on"), (state.release, "live on"))
        needed |= {release: f"{why} {target}" for release, why in found if release}
    return needed


def _lives_by(path: Path) -> Lives | None:
    """What was live and is live by a ledger; None where nothing stands in it. Raises Unreadable."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return _lives_at(path, (found.st_ino, found.st_size, found.st_mtime_ns))


@lru_cache(maxsize=16)
def _lives_at(path: Path, _mark: tuple[int, int, int]) -> Lives | None:
    """Worked out once for each change: a ledger grows for years, and a collection asks again at each step."""
    ledger = _ledger(path)
    return _lives(ledger) if ledger else None


def _ledger(path: Path) -> list[Activation]:
    """The whole ledger. Raises Unreadable where a line in it is damaged (a torn last line is none)."""
    found = []
    for number, line in enumerate(lines_of(path), 1):
        try:
            found.append(parse(Activation, line))
        except ValueError:
            raise Unreadable(f"line {number} of the ledger {path} is damaged") from None
    return found


def _lives(ledger: Iterable[Activation]) -> Lives:
    """Alias -> (the release that was live before, the one that is live); None is the base."""
    lives: Lives = {}
    for line in ledger:
        if line.event not in SWITCHES:
            continue
        before, now = lives.get(line.alias, (None, None))
        lives[line.alias] = (before or line.previous, now) if line.release == now else (now or line.previous or before, line.release)
    return lives


# ---------------------------------------------------------------- pins


def pins(home: Home) -> Mapping[str, Any]:
    """Pinned releases -> who pinned them, when and why. Raises Unreadable."""
    try:
        found = json.loads(home.pins.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise Unreadable(f"{home.pins} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise Unreadable(f"{home.pins} holds no object")
    return found


def set_pin(home: Home, release: str, note: Mapping[str, str] | None, at: datetime) -> None:
    """Pin a release with a note of who and why; None takes the pin back. Durable. Raises Unreadable, OSError."""
    held = {key: value for key, value in pins(home).items() if key != release}
    if note is not None:
        held[release] = {**note, "at": at.isoformat()}
    replace_file(home.pins, json.dumps(held, indent=1, ensure_ascii=False) + "\n")
