"""Imports: an adapter of others becomes a release of an adapter name, signed, and live only once a person asks for it."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from core.commands import Answer, Command
from core.tasks import PackTask
from daemon import clock
from daemon.index import Index
from daemon.worker import BackgroundWorker, Chore, ChoreDone
from store.bases import STUB_BASE, base_folder
from store.codec import to_plain
from store.commands import put_answer
from store.journal import write_entry
from store.paths import Home
from store.releases import place_release, read_releases

KIND = "import"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Import:
    command: Command
    version: int


class Imports:
    """Has adapters packed beside the daemon's work and puts them into adapters/.

    `tell` is called with (now, action, fields) once each is in. A daemon that dies meanwhile leaves nothing behind: the
    wish is said again. Raises OSError from the worker's turn, where the disk is full.
    """

    def __init__(self, index: Index, worker: BackgroundWorker, tell: Callable[..., None]) -> None:
        self._index, self._worker, self._tell = index, worker, tell
        self._under_way: dict[str, _Import] = {}  # chore key -> what is asked
        worker.hear(KIND, self._on_done)

    @property
    def home(self) -> Home:
        """Where the releases go."""
        return self._index.home

    def begin(self, command: Command, version: int) -> None:
        """Have the staged adapter packed as this version; the command is answered at the end."""
        if self._index.base_sha256 is None:
            self._refuse(command, "there is no base model here", "run `lorad models pull`, then import again", "BASE_MISSING")
            return
        spec = {"task": to_plain(self._task(command, version)), "folder": str(self._folder(command))}
        if not self._worker.submit(Chore(kind=KIND, key=command.id, spec=spec)):
            self._refuse(command, "too many background chores wait", "try again in a minute", "BUSY")
            return
        self._under_way[command.id] = _Import(command=command, version=version)

    def _folder(self, command: Command) -> Path:
        return self.home.tmp / f"packed-{command.id}"

    def _task(self, command: Command, version: int) -> PackTask:
        """Nothing of the wish but the staged folder and its seal is taken over: adapter, base, keys are this daemon's own."""
        index, staged = self._index, Path(command.details.get("folder", ""))
        assert index.base_sha256 is not None
        is_stub = index.base_sha256 == STUB_BASE
        return PackTask(
            job="",
            adapter=command.adapter,
            version=version,
            backend="stub" if is_stub else "peft",
            checkpoint=str(staged / "adapter"),
            checkpoint_sha256=command.details.get("sha256", ""),
            base="" if is_stub else str(base_folder(index.config)),
            base_sha256=index.base_sha256,
            probe=str(staged / "probe.jsonl"),
            verdict="",
            parent=None,
            drops=(),
            keys=str(self.home.keys),
            origin="imported",
            encryption_key=index.config.deploy.encryption_key,
        )

    def _on_done(self, done: ChoreDone) -> None:
        work = self._under_way.pop(done.key, None)
        if work is None:
            return
        command, folder = work.command, self._folder(work.command)
        highest = self._index.highest_versions().get(command.adapter, 0)
        if done.ok and highest >= work.version:  # a job took the number meanwhile
            self.begin(command, highest + 1)
            return
        if done.ok:
            self._place(work, folder / "release", str(done.result["release"]), clock.now())
        else:
            self._refuse(command, done.message, "nothing was imported", str(done.result.get("code", "")) or "IMPORT_FAILED")
        shutil.rmtree(folder, ignore_errors=True)

    def _place(self, work: _Import, packed: Path, release: str, now: datetime) -> None:
        command, version = work.command, work.version
        place_release(self.home, packed, command.adapter, version, release)
        self._index.releases = {one.id: one for one in read_releases(self.home)}
        fields = {"release": release, "adapter": command.adapter, "version": version, "actor": command.actor, "source": command.details.get("source", "")}
        write_entry(self.home.journal, now, "release.imported", **fields)
        self._tell(now, "release.imported", **fields)
        serve = f"`lorad adapters rollback {command.adapter} --to v{version}` serves it"
        message = f"{command.adapter} v{version} ({release[:12]}) is imported, without a verdict; {serve}"
        put_answer(self.home, Answer(command=command.id, ok=True, message=message, made=release))

    def _refuse(self, command: Command, message: str, hint: str, code: str) -> None:
        put_answer(self.home, Answer(command=command.id, ok=False, message=message, hint=hint, code=code))
