"""SnapshotService: snapshots of home's state or of a checkpoint, and scheduled backups, made by chores beside the daemon's work."""

import logging
import secrets
from collections.abc import Callable
from datetime import datetime

from core.commands import Answer, Command
from daemon import clock
from daemon.worker import BackgroundWorker, Chore, ChoreDone
from store.archives import SUFFIX
from store.commands import put_answer
from store.journal import write_entry
from store.paths import Home
from store.snapshots import new_id, place

log = logging.getLogger(__name__)

SNAPSHOT = "snapshot"
BACKUP = "backup"


class SnapshotService:
    """Makes snapshots and backups, one after another.

    Args: home: whose state is kept. worker: runs the chores. tell: called with (now, action, fields) once each has ended.
    Returns: of `begin`, the id, which is the name under `snapshots/`; it lies there once it is whole.
    Raises: OSError, from the worker's turn, where the disk is full. What a chore fails of is told, journalled and answered, not raised.
    Side effects: chores write under `tmp/`; what is whole is renamed into `snapshots/`; lines of the journal, answers to commands.
    """

    def __init__(self, home: Home, worker: BackgroundWorker, tell: Callable[..., None]) -> None:
        self._home, self._worker, self._tell = home, worker, tell
        self._commands: dict[str, Command] = {}  # chore key -> who waits for the answer
        worker.hear(SNAPSHOT, self._on_done)
        worker.hear(BACKUP, self._on_done)

    def begin(self, does: str, now: datetime, *, job: str = "", command: Command | None = None) -> str:
        """Ask for a snapshot (of home, or of a job's checkpoint) or a backup. Returns its id; a command is answered at its end."""
        suffix = f"{secrets.token_hex(2)}-{job or 'home'}{SUFFIX if does == BACKUP else ''}"
        name = new_id(now, suffix)
        taken = self._worker.submit(Chore(kind=does, key=name, spec={"id": name, "job": job}))
        if command is not None and taken:
            self._commands[name] = command
        elif command is not None:
            self._answer(command, ok=False, message="too many background chores wait", code="BUSY", made="")
        return name

    def _on_done(self, done: ChoreDone) -> None:
        now = clock.now()
        message, code = done.message, str(done.result.get("code", "")) or "SNAPSHOT_FAILED"
        if done.ok:
            place(self._home, done.key)
            self._note(now, f"{done.kind}.made", snapshot=done.key)
        else:
            log.error("%s %s failed: %s", done.kind, done.key, message, extra={"action": f"{done.kind}_failed"})
            self._note(now, f"{done.kind}.failed", snapshot=done.key, code=code, reason=message)
        command = self._commands.pop(done.key, None)
        if command is not None:
            self._answer(command, ok=done.ok, message=message, code="" if done.ok else code, made=done.key if done.ok else "")

    def _answer(self, command: Command, *, ok: bool, message: str, code: str, made: str) -> None:
        hint = "" if ok else "see the daemon's log, and `lorad status` for the disk"
        put_answer(self._home, Answer(command=command.id, ok=ok, message=message, hint=hint, code=code, made=made))

    def _note(self, now: datetime, action: str, **fields: object) -> None:
        write_entry(self._home.journal, now, action, **fields)
        self._tell(now, action, **fields)
