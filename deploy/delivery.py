"""One target's deliveries: pull what the box says, compare it with the wish, send what is missing, note what was seen.

A turn is: pull `out/` into the mirror; for every alias whose wish the box has not judged, bring the release unless the
box has it; then send the whole wish; then replace observed.json. Everything is decided from the wish and the mirror, so a
link that was killed starts again with nothing lost; only the memory of what was sent is new, and a repeat is harmless.

A transfer that was broken off is repeated into a new incoming folder: the far half of a killed rsync may still write into
the old one. What had arrived there is not sent again. The box sweeps what was never sealed.

A box that has seen a higher fence than ours listens to another training box: nothing is sent until `lorad deploy adopt`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from core.errors import IntegrityError, LoradError, StateError
from core.wire import Active, AliasState, Capacity, Desired, Observed, Outcome, Trial, Wish
from deploy.failures import ASLEEP, BY_HAND, TARGET_DISK_FULL, TARGET_UNREACHABLE, TransferError
from deploy.gathering import Gathering
from deploy.rsync import Road, fetch, send_file, send_release
from store.codec import write
from store.durable import lines_of, replace_file
from store.paths import Home
from store.seals import hash_file, is_sealed
from store.targets import DESIRED, OBSERVED, check_fence, desired_of, mirror, observed_of
from store.wire import MANIFEST, check_release, read_active, read_capacity

OUT_FILES = ("activations.jsonl", "active.json", "capacity.json")
ALIVE = timedelta(seconds=30)  # capacity.json is rewritten every ten
SILENCE = timedelta(seconds=60)  # without an answer, what was sent is sent again
PATIENCE = timedelta(seconds=5)  # given to the box to judge what has just arrived
RETRY_MOST_S = 30.0
RESERVE_BYTES = 64 << 20  # kept free on the box beyond the release
RESERVE_INODES = 100
BUSY_S, IDLE_S = 0.3, 2.0  # between two turns
LOST_MOST_S, BY_HAND_S = 10.0, 30.0  # most between two turns while the box cannot be heard, and while only a person can mend that
TOLD_EVERY = timedelta(seconds=10)
TRAINING_STATUS = "training-status.json"  # our status, beside the wish
ATTEMPTS = "attempts"  # the number of the last incoming folder, under targets/<name>/, and its release while that is on its way
TRIAL = 0  # in place of a fence: a release that is only to be rehearsed
RELEASE_MISSING = "RELEASE_MISSING"  # the box's word for a wished release that has not arrived


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The wish and what the box last said."""

    desired: Desired | None
    active: Active | None
    capacity: Capacity | None
    reachable: bool

    @property
    def unsettled(self) -> list[str]:
        """Aliases whose newest wish the box has not judged, or cannot judge because the release has not arrived."""
        if self.desired is None:
            return []
        return [alias for alias in sorted(self.desired.aliases) if self._is_unsettled(alias, self.desired)]

    @property
    def untried(self) -> list[tuple[str, Trial]]:
        """(release, trial) of the rehearsals whose release the box does not have yet."""
        asked = self.desired.trials if self.desired else {}
        told, there = (self.active.trials, self.active.releases) if self.active else ({}, ())
        return [(release, trial) for release, trial in sorted(asked.items()) if release not in there and (release not in told or told[release].id != trial.id)]

    def _is_unsettled(self, alias: str, desired: Desired) -> bool:
        state = self.state_of(alias)
        return state is None or state.fence < desired.fences.get(alias, desired.fence) or is_missing(state)

    def state_of(self, alias: str) -> AliasState | None:
        """What the box says of an alias; None where it says nothing."""
        return self.active.aliases.get(alias) if self.active else None

    @property
    def wish_unseen(self) -> bool:
        """Whether the box has yet to read the wish."""
        return self.desired is not None and (self.active is None or self.active.fence_seen < self.desired.fence)


def is_missing(state: AliasState) -> bool:
    """Whether the box waits for the bytes."""
    return state.outcome is Outcome.DEFERRED and state.code == RELEASE_MISSING


@dataclass(frozen=True, slots=True)
class _Sent:
    """A release that was sent whole: when, and the time of the box's last word by then."""

    at: datetime
    heard: datetime | None


class Delivery:
    """The deliveries to one target. The only writer of its mirror and of observed.json. `turn` never raises LoradError."""

    def __init__(self, home: Home, road: Road, clock: Callable[[], datetime]) -> None:
        self._home = home
        self._road = road
        self._clock = clock
        before = observed_of(home, road.target)
        self._fence_pushed = before.fence_pushed if before else 0
        self._gathering = Gathering(home, road)
        self._pulse: tuple[datetime, datetime] | None = None  # the newest capacity.at, and when it was new to us
        self._fresh_since: datetime | None = None
        self._releases: dict[tuple[str, int], _Sent] = {}  # by (release, fence of its wish)
        self._wish: tuple[str, datetime] | None = None  # hash of the desired.json that was sent, and when
        self._trouble: TransferError | None = None
        self._failures = 0
        self._retry_at: datetime | None = None
        self._unheard = 0  # turns in a row in which `out/` could not be pulled over a network
        self._told: tuple[datetime, int] | None = None  # when our status was sent, and its time of change
        self._changed_at = clock()
        self._last: object = None
        self.pause_s = BUSY_S

    def turn(self) -> Observed:
        """Pull, deliver, note. Returns what it wrote to observed.json."""
        trouble: LoradError | None = None
        try:
            fetch(self._road, OUT_FILES, mirror(self._home, self._road.target))
        except TransferError as error:
            trouble = error
        is_heard = trouble is None
        self._unheard = self._unheard + 1 if trouble and self._road.is_remote else 0
        desired: Desired | None = None
        try:
            desired = desired_of(self._home, self._road.target)
        except IntegrityError as error:
            trouble = trouble or error
        view = self._look(desired, is_heard=not self._unheard)
        if trouble is None and not view.reachable:
            trouble = self._asleep(view)
        if trouble is None:
            trouble = self._try_deliver(view)
        if trouble is None:
            trouble = self._tell_status()
        if is_heard:
            gathered = self._gather(view)
            trouble = trouble or gathered
        self._pace(view, trouble)
        return self._note(view, trouble)

    def _look(self, desired: Desired | None, *, is_heard: bool) -> View:
        folder = mirror(self._home, self._road.target)
        capacity = read_capacity(folder / "capacity.json")
        reachable = capacity is not None and self._is_alive(capacity) and is_heard
        if not reachable:
            self._fresh_since = None
        elif self._fresh_since is None:
            self._fresh_since, self._retry_at = self._clock(), None  # the box came back: no reason to wait
        return View(desired=desired, active=read_active(folder / "active.json"), capacity=capacity, reachable=reachable)

    def _is_alive(self, capacity: Capacity) -> bool:
        """A sign of life is young by our own clock since it changed: the box's clock may be wrong."""
        now = self._clock()
        if self._pulse is None:
            self._pulse = (capacity.at, min(capacity.at, now))
        elif self._pulse[0] != capacity.at:
            self._pulse = (capacity.at, now)
        return now - self._pulse[1] < ALIVE

    def _asleep(self, view: View) -> TransferError:
        said = f"its last sign of life is of {view.capacity.at:%Y-%m-%d %H:%M:%S} UTC" if view.capacity else "it has given no sign of life"
        return TransferError(f"target {self._road.target!r}: `lorad serve` is not running on it; {said}", hint=ASLEEP, code=TARGET_UNREACHABLE)

    def _try_deliver(self, view: View) -> LoradError | None:
        """Deliver, unless a broken transfer asks for a pause. Returns what stands in the way."""
        try:
            check_fence(self._home, self._road.target, view.desired, view.active)
        except StateError as error:
            return error
        if view.desired is None or not (view.unsettled or view.untried or view.wish_unseen):
            return None
        if self._retry_at is not None and self._clock() < self._retry_at:
            return self._trouble
        try:
            blocked = self._deliver(view, view.desired)
        except TransferError as error:
            blocked = error
        if isinstance(blocked, TransferError):
            self._failures += 1
            self._retry_at = self._clock() + timedelta(seconds=min(RETRY_MOST_S, 2.0 ** (self._failures - 1)))
            self._trouble = blocked
        else:
            self._failures, self._retry_at, self._trouble = 0, None, None
        return blocked

    def _deliver(self, view: View, desired: Desired) -> LoradError | None:
        """Bring the releases, then the wish. One that cannot be brought does not hold up the wishes of other aliases."""
        blocked: LoradError | None = None
        wanted = [(alias, desired.aliases[alias], desired.fences.get(alias, desired.fence)) for alias in view.unsettled]
        ready = not wanted
        wanted += [(trial.alias, Wish(release=release, replaces=None), TRIAL) for release, trial in view.untried]
        self._releases = {key: sent for key, sent in self._releases.items() if key[1] in (TRIAL, *desired.fences.values())}
        for alias, wish, fence in wanted:
            try:
                self._bring(alias, wish, fence, view)
                ready = True
            except LoradError as error:
                if isinstance(error, TransferError) and error.code != TARGET_DISK_FULL:
                    raise
                blocked = error
        if ready:
            self._send_wish(view, desired)
        return blocked

    def _bring(self, alias: str, wish: Wish, fence: int, view: View) -> None:
        """Send the wished release, unless the box has it or is still judging what was sent."""
        assert view.capacity is not None, "only a reachable box is sent anything"
        if wish.release is None or (view.active is not None and wish.release in view.active.releases):
            return
        key = (wish.release, fence)
        if key in self._releases and not self._must_repeat(self._releases[key], view, alias):
            return
        folder = find_release(self._home, alias, wish.release)
        self._check_room(folder, f"release {wish.release[:12]} of {alias}", view.capacity)
        heard = view.active.at if view.active else None
        attempt, before = self._next_attempt(wish.release)
        send_release(self._road, folder, f"{wish.release}.{attempt}", f"{wish.release}.{before}" if before else "")
        self._arrived(attempt)
        self._releases[key] = _Sent(at=self._clock(), heard=heard)

    def _check_room(self, folder: Path, what: str, capacity: Capacity) -> None:
        """Raises LoradError TARGET_DISK_FULL where the box has too few bytes or inodes for a folder."""
        files = [path for path in folder.rglob("*") if path.is_file()]
        needs_bytes, needs_inodes = sum(path.stat().st_size for path in files) + RESERVE_BYTES, len(files) + RESERVE_INODES
        if capacity.free_bytes < needs_bytes:
            has, needs = f"{capacity.free_bytes >> 20} MiB", f"{needs_bytes >> 20} MiB"
        elif 0 < capacity.free_inodes < needs_inodes:  # file systems without a table of them say 0
            has, needs = f"{capacity.free_inodes} inodes", f"{needs_inodes}"
        else:
            return
        raise LoradError(
            f"target {self._road.target!r} has {has} free, {needs} are needed for {what}",
            hint="free space on it; the delivery goes on by itself",
            code=TARGET_DISK_FULL,
        )

    def _next_attempt(self, release: str) -> tuple[int, int]:
        """A number above all that any link of this target has used, and that of a broken attempt at this release (0: none).

        The box takes the newest attempt and sweeps the older.
        """
        path = self._home.target(self._road.target) / ATTEMPTS
        try:
            last, *under_way = path.read_text().split()
            attempt = int(last) + 1
        except (FileNotFoundError, ValueError):
            attempt, under_way = int(self._clock().timestamp()), []  # above those of a home that was lost
        replace_file(path, f"{attempt} {release}\n")
        return attempt, attempt - 1 if under_way == [release] else 0

    def _arrived(self, attempt: int) -> None:
        """Note that the attempt came through: a repeat sends everything anew, for the box did not find it whole."""
        replace_file(self._home.target(self._road.target) / ATTEMPTS, f"{attempt}\n", durable=False)

    def _must_repeat(self, sent: _Sent, view: View, alias: str) -> bool:
        """Whether the box, having spoken since, still misses the release, or has been silent for too long."""
        now, state = self._clock(), view.state_of(alias)
        spoke = view.active is not None and view.active.at != sent.heard
        if spoke and state is not None and is_missing(state) and now - sent.at >= PATIENCE:
            return True
        return now - max(sent.at, self._fresh_since or now) >= SILENCE

    def _send_wish(self, view: View, desired: Desired) -> None:
        path = self._home.target(self._road.target) / DESIRED
        digest = hash_file(path)  # the daemon may have replaced it since: then the newer wish goes, and its releases follow
        wait = PATIENCE if view.wish_unseen else SILENCE
        if self._wish is not None and self._wish[0] == digest and self._clock() - self._wish[1] < wait:
            return
        send_file(self._road, path)
        self._wish = (digest, self._clock())
        self._fence_pushed = max(self._fence_pushed, desired.fence)

    def _tell_status(self) -> LoradError | None:
        """Send what this box does, every ten seconds at most, where it has changed: `in/training-status.json`."""
        now = self._clock()
        try:
            changed = self._home.status.stat().st_mtime_ns
        except OSError:
            return None  # no daemon has run here
        if self._told is not None and (now - self._told[0] < TOLD_EVERY or changed == self._told[1]):
            return None
        try:
            send_file(self._road, self._home.status, TRAINING_STATUS)
        except TransferError as error:
            return error
        self._told = (now, changed)
        return None

    def _gather(self, view: View) -> LoradError | None:
        """Bring the signals, unless another training box owns the target. Returns what stands in the way."""
        try:
            check_fence(self._home, self._road.target, view.desired, view.active)
            if view.capacity is not None:
                self._gathering.turn(view.capacity.box, view.capacity.spooled)
        except (StateError, TransferError) as error:
            return error
        return None

    def _pace(self, view: View, trouble: LoradError | None) -> None:
        """Look often while something is on its way, seldom when nothing has moved for a while or the network is gone."""
        now = self._clock()
        seen = (view.desired, view.reachable, view.active)
        if seen != self._last:
            self._last, self._changed_at = seen, now
        is_busy = bool(view.unsettled or view.untried or view.wish_unseen) and now - self._changed_at < SILENCE
        self.pause_s = BUSY_S if is_busy else IDLE_S
        if self._unheard:
            most = BY_HAND_S if trouble is not None and trouble.code in BY_HAND else LOST_MOST_S
            self.pause_s = min(most, 2.0 ** min(self._unheard - 1, 6))

    def _note(self, view: View, trouble: LoradError | None) -> Observed:
        observed = Observed(
            target=self._road.target,
            at=self._clock(),
            reachable=view.reachable,
            fence_pushed=self._fence_pushed,
            active=view.active,
            capacity=view.capacity,
            ledger_lines=sum(1 for _ in lines_of(mirror(self._home, self._road.target) / "activations.jsonl")),
            code=trouble.code if trouble else "",
            reason=trouble.what if trouble else "",
            hint=trouble.hint if trouble else "",
        )
        # Not synced: after a crash the next turn writes it again.
        write(self._home.target(self._road.target) / OBSERVED, observed, durable=False)
        return observed


def is_settled(desired: Desired | None, seen: Observed) -> bool:
    """Whether the box has answered to the whole wish."""
    view = View(desired=desired, active=seen.active, capacity=seen.capacity, reachable=seen.reachable)
    return not view.wish_unseen and not view.unsettled


def note_obstacle(home: Home, target: str, trouble: LoradError, now: datetime) -> None:
    """Write observed.json for a target that cannot even be tried: what was known of it stays, and why nothing moves."""
    known = observed_of(home, target) or Observed(target=target, at=now, reachable=False)
    write(
        home.target(target) / OBSERVED,
        replace(known, at=now, reachable=False, code=trouble.code, reason=trouble.what, hint=trouble.hint),
        durable=False,
    )


def find_release(home: Home, alias: str, release: str) -> Path:
    """The folder of a release on this box, its bytes checked. Raises IntegrityError where it is gone or damaged."""
    for path in sorted((home.root / "adapters" / alias).glob(f"v*/{MANIFEST}")):
        if hash_file(path) == release and is_sealed(path.parent):
            try:
                check_release(path.parent, home.keys)
            except IntegrityError as error:
                raise IntegrityError(error.what, hint="the disk or a person changed it on this box: train again, or roll back", code=error.code) from None
            return path.parent
    raise IntegrityError(
        f"release {release[:12]} of {alias} is not in {home.root / 'adapters' / alias}",
        hint="`lorad jobs retry ID` makes it again; `lorad adapters rollback` goes back to one that is there",
        code="RELEASE_NOT_HERE",
    )
