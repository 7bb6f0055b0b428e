"""targets/<name>/: the wish for a target (written by the daemon) and what the link last read of it.

`live.jsonl` merges the targets' own ledgers by (target, sequence); the daemon is its only writer.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from core.errors import StateError
from core.wire import SWITCHES, Activation, Active, Desired, Observed, Terms, Trial, Wish
from store.codec import read_if_whole, to_plain, write
from store.durable import append_line, lines_of
from store.paths import Home
from store.wire import read_activations, read_active, read_desired, sign_desired

DESIRED = "desired.json"
OBSERVED = "observed.json"
ACK = "ack.json"  # up to where the daemon has stored the box's signals
SPOOL_BOX = "spool.box"  # id of the box whose lines the mirror's `spool/` holds; by the link
SPOOL_LEFT = "spool.left"  # folders of lines that came from boxes which were behind the target before; the daemon stores and deletes them
TRIALS_KEPT = 8
RESTORED = "restored.json"  # written by a restore: no wish before the far side has answered


def desired_of(home: Home, target: str) -> Desired | None:
    """The wish for a target."""
    return read_desired(home.target(target) / DESIRED, None)


def set_wish(home: Home, target: str, alias: str, wish: Wish, now: datetime, terms: Terms | None = None) -> Desired:
    """Write the wish with the next fence, signed and durable, before any link can push it. `terms` None: as they were."""
    known, fence = _next_wish(home, target, now)
    terms = terms or Terms(watch=known.watch, sets=known.sets)
    aliases, fences = {**known.aliases, alias: wish}, {**known.fences, alias: fence}
    return _write_wish(home, target, replace(known, aliases=aliases, fences=fences, watch=terms.watch, sets=terms.sets))


def set_terms(home: Home, target: str, terms: Terms, now: datetime) -> Desired:
    """Let a target guard and compose by other terms from now on."""
    known, _ = _next_wish(home, target, now)
    return _write_wish(home, target, replace(known, watch=terms.watch, sets=terms.sets))


def set_trial(home: Home, target: str, release: str, trial: Trial, now: datetime) -> Desired:
    """Ask a target to rehearse a release. Of the rehearsals asked for before, the newest `TRIALS_KEPT` stay asked for."""
    known, _ = _next_wish(home, target, now)
    others = [(known_release, known_trial) for known_release, known_trial in known.trials.items() if known_release != release]
    return _write_wish(home, target, replace(known, trials=dict([*others[1 - TRIALS_KEPT :], (release, trial)])))


def _next_wish(home: Home, target: str, now: datetime) -> tuple[Desired, int]:
    """The wish as it stands, with the next fence, and that fence."""
    before = desired_of(home, target)
    fence = _next_fence(home, target, before)
    return replace(before or Desired(fence=fence, aliases={}, fences={}, made_at=now), fence=fence, made_at=now), fence


def set_purge(home: Home, target: str, releases: Iterable[str], now: datetime) -> Desired | None:
    """Ask a target to delete these releases too. None, and nothing changed, where it is asked to already."""
    before = desired_of(home, target)
    purge = tuple(sorted({*(before.purge if before else ()), *releases}))
    if before is not None and purge == before.purge:
        return None
    fence = _next_fence(home, target, before)
    known = before or Desired(fence=fence, aliases={}, fences={}, made_at=now)
    return _write_wish(home, target, replace(known, fence=fence, made_at=now, purge=purge))


def check_fence(home: Home, target: str, desired: Desired | None, active: Active | None) -> None:
    """Raises StateError FENCE_FOREIGN where the box has seen a wish that this home never made: another training box asks it too.

    A home that came back from a backup goes on above the box's fence by itself; any other must `adopt` the target first.
    """
    seen, ours = active.fence_seen if active else 0, desired.fence if desired else 0
    if seen > ours and not (home.target(target) / RESTORED).exists():
        raise StateError(
            f"target {target!r} follows another training box: it has seen fence {seen}, this home has asked up to {ours}",
            hint=f"stop the other one, then take the target over: `lorad deploy adopt {target}`; or take it out of this config",
            code="FENCE_FOREIGN",
        )


def adopt(home: Home, target: str, now: datetime) -> Desired:
    """Take a target over from another training box: a wish above its fence, for exactly what it serves. Raises StateError where it has never answered.

    From then on the other one is refused, by the fence and by its own `check_fence`.
    """
    active = read_active(mirror(home, target) / "active.json")
    if active is None:
        raise StateError(f"target {target!r} has not answered yet", hint=f"`lorad deploy check {target}` says why", code="TARGET_UNHEARD")
    before = desired_of(home, target)
    fence = 1 + max(before.fence if before else 0, active.fence_seen)
    aliases = {alias: Wish(release=state.release, replaces=state.release) for alias, state in active.aliases.items()}
    made = Desired(fence=fence, aliases=aliases, fences=dict.fromkeys(aliases, fence), made_at=now)
    return _write_wish(home, target, replace(before or made, fence=fence, aliases=aliases, fences=made.fences, made_at=now))


def _next_fence(home: Home, target: str, before: Desired | None) -> int:
    _require_known_fence(home, target)
    active = read_active(mirror(home, target) / "active.json")
    check_fence(home, target, before, active)
    return 1 + max(before.fence if before else 0, active.fence_seen if active else 0)


def _write_wish(home: Home, target: str, wish: Desired) -> Desired:
    desired = sign_desired(wish, home.keys)
    home.target(target).mkdir(parents=True, exist_ok=True)
    write(home.target(target) / DESIRED, desired)
    (home.target(target) / RESTORED).unlink(missing_ok=True)
    return desired


def _require_known_fence(home: Home, target: str) -> None:
    """A home that came back from a backup may know an old fence only: it looks at the far side before it wishes. Raises StateError."""
    try:
        restored_at = datetime.fromisoformat(json.loads((home.target(target) / RESTORED).read_text())["at"])
    except FileNotFoundError:
        return
    observed = read_if_whole(Observed, home.target(target) / OBSERVED)
    if observed is None or not observed.reachable or observed.at <= restored_at:
        raise StateError(
            f"target {target!r} has not answered since this home was restored: what it was last asked is unknown",
            hint="start `lorad serve` there, or take the target out of the config; it goes on by itself",
            code="FENCE_UNKNOWN",
        )


def box_of_spool(home: Home, target: str) -> str | None:
    """The box whose lines lie in the mirror's `spool/`; None where no link has said so."""
    try:
        return (home.target(target) / SPOOL_BOX).read_text()
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def spools_left(home: Home, target: str) -> list[Path]:
    """The folders of lines of boxes that were behind the target before, oldest first."""
    return sorted((home.target(target) / SPOOL_LEFT).glob("[0-9]*"))


def mirror(home: Home, target: str) -> Path:
    """The copy of the box's `out/`; the link is its only writer."""
    return home.target(target) / "out"


def observed_of(home: Home, target: str) -> Observed | None:
    """What the link last saw. `active` is read from the mirror where the note is missing."""
    observed = read_if_whole(Observed, home.target(target) / OBSERVED)
    active: Active | None = read_active(mirror(home, target) / "active.json")
    return replace(observed, active=active) if observed is not None else None


def ledger_of(home: Home, target: str) -> list[Activation]:
    """The mirror of the box's ledger."""
    return read_activations(mirror(home, target) / "activations.jsonl")


def live_by_ledger(ledger: Iterable[Activation]) -> dict[str, str | None]:
    """Alias -> release that is live, by the box's own ledger."""
    return {line.alias: line.release for line in ledger if line.event in SWITCHES}


def merge_live(home: Home, target: str, ledger: list[Activation], seen: int) -> int:
    """Append the ledger lines above sequence `seen` to live.jsonl. Returns the new highest sequence."""
    new = [line for line in ledger if line.sequence > seen]
    if new:  # together: a box with a long ledger must not cost a sync a line
        append_line(home.live, "\n".join(json.dumps({"target": target, **to_plain(line)}) for line in new), durable=True)
    return max([seen, *(line.sequence for line in new)])


def merged_up_to(home: Home) -> dict[str, int]:
    """Target -> highest sequence in live.jsonl."""
    highest: dict[str, int] = {}
    for line in lines_of(home.live):
        try:
            entry = json.loads(line)
            highest[entry["target"]] = max(highest.get(entry["target"], 0), entry["sequence"])
        except (ValueError, KeyError):
            continue
    return highest
