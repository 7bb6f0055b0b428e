"""Where things lie under home. Every path of lorad's state is named here and nowhere else."""

import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from core.errors import StateError
from core.records import ENDED, DropState, JobState
from store.durable import replace_file

FORMAT = 1
FOLDERS = ("inbox/rejected", "commands", "drops", "jobs", "runs", "adapters", "targets", "slots", "tmp", "caches", "keys", "snapshots")


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of lorad's state."""

    root: Path

    @property
    def inbox(self) -> Path:
        """Where people drop files."""
        return self.root / "inbox"

    @property
    def rejected(self) -> Path:
        """Refused drops with their reports, a folder each."""
        return self.root / "inbox" / "rejected"

    @property
    def commands(self) -> Path:
        """Wishes of people and the daemon's answers."""
        return self.root / "commands"

    @property
    def keys(self) -> Path:
        """The key pair that signs releases and wishes."""
        return self.root / "keys"

    @property
    def tmp(self) -> Path:
        """Half-made things; all but the trash is emptied when a daemon starts."""
        return self.root / "tmp"

    @property
    def format_mark(self) -> Path:
        """Which format this home has."""
        return self.root / "format.json"

    @property
    def trash(self) -> Path:
        """What was renamed out of its place and waits for a chore to delete it."""
        return self.root / "tmp" / "trash"

    @property
    def snapshots(self) -> Path:
        """Snapshots, scheduled backups, and the backup before a change of format."""
        return self.root / "snapshots"

    @property
    def pins(self) -> Path:
        """Releases that a person wants kept."""
        return self.root / "pins.json"

    @property
    def reserve(self) -> Path:
        """Room that is given up first when the disk is full."""
        return self.root / "reserve"

    @property
    def gc_report(self) -> Path:
        """What the last gc did."""
        return self.root / "caches" / "gc.json"

    @property
    def status(self) -> Path:
        """How things stand, replaced about once a second."""
        return self.root / "status.json"

    @property
    def status_log(self) -> Path:
        """Transitions and progress for `tail -F`."""
        return self.root / "status.jsonl"

    @property
    def metrics(self) -> Path:
        """The same in numbers, for the node exporter's textfile collector."""
        return self.root / "metrics.prom"

    @property
    def counters(self) -> Path:
        """Counts that only grow, kept over restarts."""
        return self.root / "series" / "counters.json"

    @property
    def alerts(self) -> Path:
        """Which alerts were told when, and what is still to be sent."""
        return self.root / "series" / "alerts.json"

    def performance(self, adapter: str) -> Path:
        """How an adapter fares over time."""
        return self.root / "series" / "adapters" / adapter / "series.jsonl"

    def drawn(self, skill: str) -> Path:
        """Which seeds of a skill's teacher were drawn."""
        return self.root / "curriculum" / "drawn" / f"{skill}.json"

    def course(self, skill: str) -> Path:
        """Where the learner of a skill stands."""
        return self.root / "curriculum" / f"{skill}.json"

    def course_history(self, skill: str) -> Path:
        """Every evaluation and move of a skill."""
        return self.root / "curriculum" / "history" / f"{skill}.jsonl"

    @property
    def journal(self) -> Path:
        """Every transition, append-only, for audit."""
        return self.root / "journal.jsonl"

    @property
    def live(self) -> Path:
        """What was live when, merged from the boxes' ledgers."""
        return self.root / "live.jsonl"

    @property
    def paused(self) -> Path:
        """Who paused the whole queue; it is there exactly while it is paused."""
        return self.root / "paused.json"

    @property
    def triggers(self) -> Path:
        """What has fired, and which times of cron texts have come."""
        return self.root / "series" / "triggers.json"

    @property
    def iterations(self) -> Path:
        """How each round of the loop went and goes."""
        return self.root / "iterations"

    @property
    def continuous(self) -> Path:
        """Whose loop a person stopped."""
        return self.root / "iterations" / "continuous.json"

    @property
    def schedule(self) -> Path:
        """When each entry of the schedule last came and comes next."""
        return self.root / "series" / "schedule.json"

    @property
    def lock(self) -> Path:
        """The lock of the one daemon of this home."""
        return self.root / "lorad.lock"

    @property
    def config_in_force(self) -> Path:
        """The config that the daemon goes by, whole and with absolute paths: its links read it, and `lorad config show`."""
        return self.root / "caches" / "config.json"

    @property
    def listing(self) -> Path:
        """Snapshot of jobs and drops for listings, so that `lorad jobs list` reads three files (see `queued_listing`, `ended_listing`)."""
        return self.root / "caches" / "listing.json"

    @property
    def queued_listing(self) -> Path:
        """The jobs that were queued and of which nothing more was known, one line each: added to, and made anew now and then."""
        return self.root / "caches" / "queued.jsonl"

    @property
    def ended_listing(self) -> Path:
        """The jobs that have ended, one line each, in the same form: added to, and made anew when the daemon starts."""
        return self.root / "caches" / "ended.jsonl"

    @property
    def known(self) -> Path:
        """What the gate children are told of earlier drops: made anew by each daemon, ids and hashes only."""
        return self.root / "caches" / "known"

    @property
    def tokens(self) -> Path:
        """Tokenised drops, by content: made by trainer children, kept for later jobs, and made anew where they are missing."""
        return self.root / "caches" / "tokens"

    @property
    def votes(self) -> Path:
        """What judges said of pairs of answers, by the hash of what they were asked: no text, kept for later rankings."""
        return self.root / "caches" / "votes"

    @property
    def suites(self) -> Path:
        """One's own regression suites, a JSON Lines file each."""
        return self.root / "suites"

    @property
    def suite_results(self) -> Path:
        """What models made of suites, by content: made by trainer children, values without text."""
        return self.root / "caches" / "suites"

    def slot_lock(self, slot: int) -> Path:
        """Locked exactly while a child lives in this slot."""
        return self.root / "slots" / f"{slot}.lock"

    def slot_hold(self, slot: int) -> Path:
        """Why the child in this slot is to pause between two steps; it is there exactly while it is to."""
        return self.root / "slots" / f"{slot}.hold"

    def drop(self, state: DropState, drop: str) -> Path:
        """Where a drop lies in this state."""
        return self.rejected / drop if state is DropState.REJECTED else self.root / "drops" / state / drop

    def job(self, state: JobState, job: str, ended_at: datetime | None = None) -> Path:
        """Where a job lies in this state; an ended one in the month of `ended_at`, which it must have."""
        folder = self.root / "jobs" / state
        if state in ENDED:
            assert ended_at is not None, "an ended job lies in the month of its end"
            folder = folder / f"{ended_at:%Y-%m}"
        return folder / job

    def runs(self, job: str) -> Path:
        """The run folders of a job."""
        return self.root / "runs" / job

    def release(self, adapter: str, version: int) -> Path:
        """A release: `adapters/<persona>/<domain>/v<N>/`."""
        return self.root / "adapters" / adapter / f"v{version}"

    def target(self, name: str) -> Path:
        """What is wished of a target, and what its link saw."""
        return self.root / "targets" / name

    def prepare(self) -> None:
        """Make the folders. Raises StateError for a home of a newer format, or an inbox on another file system."""
        self.root.mkdir(parents=True, exist_ok=True)
        mark = self.format_mark
        if mark.exists():
            found = json.loads(mark.read_text()).get("format", 0)
            if found > FORMAT:
                raise StateError(
                    f"{self.root} has format {found}; this lorad knows up to {FORMAT}",
                    hint="upgrade lorad, or name another home in the config",
                    code="HOME_NEWER",
                )
        for folder in FOLDERS:
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        for state in JobState:
            (self.root / "jobs" / state).mkdir(exist_ok=True)
        for drop_state in (DropState.SETTLING, DropState.GATING, DropState.ACCEPTED):
            (self.root / "drops" / drop_state).mkdir(exist_ok=True)
        if not mark.exists():
            replace_file(mark, json.dumps({"format": FORMAT}) + "\n")
        if self.inbox.stat().st_dev != self.tmp.stat().st_dev:
            raise StateError(
                f"{self.inbox} is on another file system than {self.root}",
                hint="a drop is taken by rename: put inbox/ on the file system of home, and let `lorad drop` copy into it",
                code="INBOX_OTHER_DEVICE",
            )


@dataclass(frozen=True, slots=True)
class Box:
    """The folder that a serving process owns (ARCHITECTURE: release and activation)."""

    root: Path

    @property
    def incoming(self) -> Path:
        """Releases on their way in; the link writes here."""
        return self.root / "in" / "incoming"

    @property
    def bases(self) -> Path:
        """Base models on their way in: `lorad deploy push --base` writes here."""
        return self.root / "in" / "bases"

    @property
    def desired(self) -> Path:
        """The whole wish, as the link brought it."""
        return self.root / "in" / "desired.json"

    @property
    def releases(self) -> Path:
        """Verified releases, never changed."""
        return self.root / "releases"

    @property
    def checking(self) -> Path:
        """Arrivals that are being verified; on the same file system as `incoming`."""
        return self.root / "releases" / ".checking"

    @property
    def out(self) -> Path:
        """What the box says of itself; the link reads it back."""
        return self.root / "out"

    @property
    def active(self) -> Path:
        """What the box serves, computed from its ledger."""
        return self.root / "out" / "active.json"

    @property
    def activations(self) -> Path:
        """The box's own ledger, append-only."""
        return self.root / "out" / "activations.jsonl"

    @property
    def capacity(self) -> Path:
        """The box's sign of life."""
        return self.root / "out" / "capacity.json"

    @property
    def spool(self) -> Path:
        """Signals that wait to be fetched: segments that are never changed."""
        return self.root / "out" / "spool"

    @property
    def taking(self) -> Path:
        """The segment of signals that still grows."""
        return self.root / "spool"

    @property
    def ack(self) -> Path:
        """Up to where the training box has stored this box's signals; the link writes it."""
        return self.root / "in" / "ack.json"

    @property
    def forms(self) -> Path:
        """The engine's own form of the base. It may be deleted while no server runs: the next start makes it again."""
        return self.root / "forms"

    @property
    def lock(self) -> Path:
        """The lock of the one server of this box."""
        return self.root / "serving.lock"

    def prepare(self) -> None:
        """Make the folders that serving owns, and `in/` where nobody made it yet."""
        for folder in (self.incoming, self.bases, self.checking, self.out):
            folder.mkdir(parents=True, exist_ok=True)


def default_models_dir() -> Path:
    """`lorad/models` in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(cache) / "lorad" / "models"
