"""A home whose daemon takes in signals, without its other parts: spools, commands, chores that are done at once, drops that a test judges."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from filled_index import index_of

from core.commands import Answer, Command, CommandKind
from core.records import Accepted, Claim, Drop, DropState
from core.signals import Ack, Counts, Signal, SignalKind, Spooled
from core.wire import Active
from daemon.chores import work_of
from daemon.feedback import Feedback
from daemon.index import Index
from daemon.worker import Chore, ChoreDone
from store.codec import put, write
from store.commands import put_command
from store.paths import Home
from store.targets import mirror

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ADAPTER = "support/tone"


def signal(number: int, **fields: Any) -> Signal:
    """A correction that a person agreed to."""
    said: dict[str, Any] = {
        "id": f"{number:032x}",
        "kind": SignalKind.CORRECTION,
        "persona": "support",
        "domain": "tone",
        "input": ({"role": "user", "content": f"What is the {number}th word of the book?"},),
        "wrong_output": f"Nobody knows word {number}.",
        "correct_output": f"The {number}th word is a good one, and it begins with {chr(97 + number % 26)}.",
        "at": NOON,
        "source": "api",
        "user": f"user{number % 7}",
        "consent": True,
    }
    return Signal(**(said | fields))


class AtOnce:
    """A background worker whose chores are done at its next turn, in this process."""

    def __init__(self, home: Home) -> None:
        self.home, self.waiting, self.heard = home, list[Chore](), dict[str, Any]()
        self.is_stuck = False

    def hear(self, kind: str, listener: Any) -> None:
        self.heard[kind] = listener

    def submit(self, chore: Chore) -> bool:
        if all(one.key != chore.key for one in self.waiting):
            self.waiting.append(chore)
        return True

    def turn(self) -> None:
        """Do what waits; what a chore raises is its failure."""
        if self.is_stuck:
            return
        while self.waiting:
            chore = self.waiting.pop(0)
            try:
                result = json.loads(json.dumps(work_of(chore.kind)(self.home, json.loads(json.dumps(dict(chore.spec))))))
                done = ChoreDone(kind=chore.kind, key=chore.key, ok=True, result=result)
            except Exception as error:  # as the child's border does
                done = ChoreDone(kind=chore.kind, key=chore.key, ok=False, message=str(error))
            self.heard[chore.kind](done)


@dataclass
class SignalHome:
    """`restart` forgets everything that was in memory."""

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    now: datetime = NOON
    told: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    index: Index = field(init=False)
    worker: AtOnce = field(init=False)
    feedback: Feedback = field(init=False)
    _commands: int = 0

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.index = index_of(self.folder, **self.config)
        from daemon.reload import write_in_force

        write_in_force(self.home, self.index.config)
        self.worker = AtOnce(self.home)
        self.feedback = Feedback(self.index, self.worker, lambda now, action, **fields: self.told.append((action, fields)))  # type: ignore[arg-type]

    @property
    def home(self) -> Home:
        return self.index.home

    def counts(self, adapter: str = ADAPTER) -> Counts:
        return self.feedback.counts().get(adapter, Counts())

    def turn(self, times: int = 3) -> None:
        """So many ticks, a minute apart by the daemon's own look at the gate."""
        for _ in range(times):
            self.feedback.batches._looked_s = float("-inf")  # its second has passed
            self.worker.turn()
            self.feedback.turn(self.now)

    # ---------------------------------------------------------------- what comes

    def spool(self, signals: Iterable[Signal], first: int, target: str = "local", torn: bytes = b"") -> None:
        """A segment in the mirror of a target."""
        folder = mirror(self.home, target) / "spool"
        folder.mkdir(parents=True, exist_ok=True)
        lines = [msgspec.json.encode(Spooled(number=first + place, signal=one)) + b"\n" for place, one in enumerate(signals)]
        (folder / f"{first:012d}.jsonl").write_bytes(b"".join(lines) + torn)
        active = Active(box="box-1", sequence=1, fence_seen=1, at=NOON)
        write(mirror(self.home, target) / "active.json", active)

    def ack(self, target: str = "local") -> int:
        path = self.home.target(target) / "ack.json"
        return msgspec.json.decode(path.read_bytes(), type=Ack).number if path.exists() else 0

    def command(self, what: str, adapter: str = ADAPTER, **details: str) -> Command:
        """What a person asks of feedback now."""
        self._commands += 1
        return Command(
            id=f"command-20260301-120000-000-{self._commands:06x}",
            kind=CommandKind.FEEDBACK,
            adapter=adapter,
            actor="ada",
            details={"what": what, **details},
            made_at=self.now,
            expires_at=self.now + timedelta(minutes=1),
        )

    def say(self, what: str, adapter: str = ADAPTER, **details: str) -> Answer:
        """A person's command, carried out as the daemon's step does."""
        command = self.command(what, adapter, **details)
        path = put_command(self.home, command)
        self.feedback.apply(command, self.now)
        for _ in range(20):
            if path.exists():
                break
            self.turn(1)
        return msgspec.json.decode(path.read_bytes(), type=Answer)

    # ---------------------------------------------------------------- what the gate does

    def inbox(self) -> list[Path]:
        return sorted(self.home.inbox.glob("support/tone/feedback-*.jsonl"))

    def accept(self, file: Path, aside: dict[int, list[str]] | None = None, **facts: Any) -> str:
        """The gate accepts a drop of the inbox, without the rows of some lines."""
        claim = self._claim(file)
        folder = self.home.drop(DropState.ACCEPTED, claim.drop)
        (folder / "rows").mkdir(parents=True)
        (folder / "rows" / "quarantine.jsonl").write_text(
            "".join(json.dumps({"line": line, "ids": ids, "text": ""}) + "\n" for line, ids in (aside or {}).items())
        )
        given = {"job": "job-1", "sha256": claim.drop, "identity": claim.drop, "rows": 1, "schema_id": "correction_v1", "job_made": True}
        accepted = Accepted(at=self.now, **{**given, **facts})
        put(folder / "claim.json", claim)
        put(folder / "accepted.json", accepted)
        self.index.keep_drop(Drop(claim=claim, state=DropState.ACCEPTED, facts=accepted))
        file.unlink()
        return claim.drop

    def refuse(self, file: Path, *findings: dict[str, Any]) -> str:
        """The gate refuses a drop of the inbox."""
        claim = self._claim(file)
        folder = self.home.rejected / claim.drop
        folder.mkdir(parents=True)
        put(folder / "claim.json", claim)
        (folder / "report.json").write_text(json.dumps({"verdict": "refused", "findings": [{"severity": "error", "count": 1, **one} for one in findings]}))
        file.rename(folder / file.name)
        return claim.drop

    def _claim(self, file: Path) -> Claim:
        self.now += timedelta(seconds=5)
        drop = f"drop-{self.now:%Y%m%d-%H%M%S}-000-abc"
        source = str(file.relative_to(self.home.inbox))
        return Claim(
            drop=drop, adapter=ADAPTER, source=source, device=1, inode=file.stat().st_ino, size_bytes=1, mtime_ns=1, file=file.name, claimed_at=self.now
        )


__all__ = ["ADAPTER", "NOON", "AtOnce", "SignalHome", "replace", "signal"]
