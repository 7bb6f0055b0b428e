"""Snapshots: home's state, or one checkpoint, as it stood at one moment. `snapshots/<id>/`, sealed last.

    snapshot.json   what it is, of when, what is not inside
    home/           the records as they were; sealed folders hard-linked (they never change), everything else copied
    checkpoint/     instead, for the snapshot of a checkpoint
    SEALED          SHA-256 of every file

At one moment: the records (jobs, drops, wishes) are copied again until two looks in a row find them unchanged. What only
grows (journal, ledgers, progress) is copied after that. Nothing of the inbox, of logs, of a serving box is inside.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from core.errors import StateError, UsageError
from core.names import stamp
from core.records import ENDED, JobState
from store.child import clock
from store.durable import replace_file, sync_dir
from store.jobs import find_folder, folders
from store.paths import FORMAT, Home
from store.runs import candidates_of
from store.seals import SEAL, hash_file, is_sealed
from store.usage import KEPT_OF_RUNS

NOTE = "snapshot.json"
HOME = "home"
CHECKPOINT = "checkpoint"
RECORDS = ("jobs", "drops")  # watched until they hold still, with each target's wish
FOLDERS = ("keys", "adapters", "targets", "feedback", "series", "suites", "curriculum", "iterations", "forgets")  # copied as they stand after that
LEFT_OUT_FILES = frozenset({"status.json", "status.jsonl"})
LEFT_OUT_OF_TARGETS = frozenset({"observed.json", "link.log", "link.lock"})
NOT_INSIDE = ("files that wait in inbox/ and inbox/rejected/", "checkpoints and scores of ended jobs", "logs", "base models", "what inference boxes hold")
ROUNDS = 50  # looks at the records; two jobs a second change them, a look takes about 0.1 s with 10,000 jobs

Mark = tuple[int, int, int]  # inode, mtime, size


def new_id(now: datetime, of: str) -> str:
    """`20260301-120000-000-home`: names sort by time."""
    return stamp(now, of)


def snapshot_home(home: Home, into: Path, now: datetime) -> dict[str, Any]:
    """Fill `into` with a snapshot of home's state and seal it. Returns its note. Raises StateError, OSError."""
    root = into / HOME
    root.mkdir(parents=True)
    _copy_records(home, root)
    for name in FOLDERS:
        _copy_tree(home.root / name, root / name)
    for path in sorted(home.root.iterdir()):
        if path.suffix in (".json", ".jsonl", ".zst") and path.name not in LEFT_OUT_FILES and path.is_file():
            _copy(path, root / path.name)
    _copy_runs(home, root)
    note = {"format": 1, "kind": HOME, "at": now.isoformat(), "home_format": FORMAT, "home": str(home.root), "not_inside": list(NOT_INSIDE)}
    return _finish(into, note)


def snapshot_checkpoint(home: Home, job: str, into: Path, now: datetime) -> dict[str, Any]:
    """Fill `into` with the job's best checkpoint (else its newest) and seal it. Raises UsageError where it has none."""
    found = find_folder(home, job)
    candidates = candidates_of(home, job)
    if found is None or not candidates:
        what = f"job {job!r} has no whole checkpoint" if found else f"no job {job!r}"
        raise UsageError(what, hint="`lorad jobs list` names the jobs; checkpoints of old jobs are deleted (retention.keep_jobs)", code="CHECKPOINT_UNKNOWN")
    best = _best_of(home, job)
    chosen = next((candidate for candidate in candidates if candidate.id == best), candidates[-1])
    _copy_tree(home.runs(job) / chosen.path, into / CHECKPOINT)
    _copy(found[1] / "job.json", into / "job.json")
    note = {"format": 1, "kind": CHECKPOINT, "at": now.isoformat(), "job": job, "step": chosen.step, "seal": chosen.sha256, "is_best": chosen.id == best}
    return _finish(into, note)


def chore_snapshot(home: Home, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The chore "snapshot": make `tmp/<id>` whole; the daemon renames it in. `spec`: id, and job for that of a checkpoint."""
    into = home.tmp / str(spec["id"])
    shutil.rmtree(into, ignore_errors=True)
    job = str(spec.get("job", ""))
    note = snapshot_checkpoint(home, job, into, clock()) if job else snapshot_home(home, into, clock())
    return {"id": spec["id"], "files": note["files"], "message": f"snapshot {spec['id']}: {note['files']} files"}


def place(home: Home, name: str) -> Path:
    """Rename what a chore made under tmp/ into snapshots/. A repeat finds it there."""
    home.snapshots.mkdir(exist_ok=True)
    destination = home.snapshots / name
    if not destination.exists():
        os.rename(home.tmp / name, destination)
        sync_dir(home.snapshots)
    return destination


def notes(home: Home) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, note) of every whole snapshot, oldest first; a backup's note is only its size."""
    for path in sorted(home.snapshots.iterdir()) if home.snapshots.is_dir() else ():
        if path.is_file():
            yield path.name, {"kind": "backup", "bytes": path.stat().st_size}
        elif is_sealed(path):
            yield path.name, json.loads((path / NOTE).read_text())


# ---------------------------------------------------------------- copying


def _copy_records(home: Home, root: Path) -> None:
    """Copy jobs, drops and wishes until two looks find the same."""
    known: dict[str, Mark] = {}
    for _ in range(ROUNDS):
        found = _records(home)
        if found == known:
            _drop_empty(root)
            return
        for relative in known.keys() - found.keys():
            _forget(root / relative)
        for relative, mark in found.items():
            if known.get(relative) != mark:
                _forget(root / relative)
                _copy_record(home.root / relative, root / relative)
        known = found
    raise StateError("home changed all the while that it was copied", hint="try again when less is going on", code="SNAPSHOT_UNSTABLE")


def _drop_empty(root: Path) -> None:
    """Remove the folders of jobs and drops that moved on meanwhile."""
    for name in RECORDS:
        for folder, _, _ in os.walk(root / name, topdown=False):
            with suppress(OSError):
                os.rmdir(folder)


def _records(home: Home) -> dict[str, Mark]:
    """Every record, and every sealed folder of a drop as one: path -> what changes when it is replaced."""
    found: dict[str, Mark] = {}
    for name in RECORDS:
        for folder, names, files in os.walk(home.root / name):
            relative = os.path.relpath(folder, home.root)
            if SEAL in files:
                names.clear()
                _mark(found, relative, os.path.join(folder, SEAL))
                continue
            for file in files:
                if not file.endswith(".part"):
                    _mark(found, f"{relative}/{file}", os.path.join(folder, file))
    for path in home.root.glob("targets/*/desired.json"):
        _mark(found, str(path.relative_to(home.root)), str(path))
    return found


def _mark(found: dict[str, Mark], relative: str, path: str) -> None:
    try:
        state = os.lstat(path)
    except OSError:
        return  # it has moved on: the next look finds it
    found[relative] = (state.st_ino, state.st_mtime_ns, state.st_size)


def _forget(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _copy_record(source: Path, destination: Path) -> None:
    if source.is_dir() and not source.is_symlink():
        _copy_tree(source, destination)
    else:
        _copy(source, destination)


def _copy_runs(home: Home, root: Path) -> None:
    """Of jobs on their way everything that is whole; of ended jobs what tells how they ended."""
    ended = {folder.name for state, folder in folders(home) if state in ENDED}
    for state in JobState:
        (root / "jobs" / state).mkdir(parents=True, exist_ok=True)
    runs = home.root / "runs"
    for job in sorted(runs.iterdir()) if runs.is_dir() else ():
        if job.name not in ended:
            _copy_tree(job, root / "runs" / job.name)
            continue
        for path in job.glob("*/*"):
            if path.name in KEPT_OF_RUNS and path.is_file():
                _copy(path, root / "runs" / path.relative_to(runs))


def _copy_tree(source: Path, destination: Path, sealed: bool = False) -> None:
    """Copy a folder: what is sealed by links, the rest by bytes. A checkpoint without its seal does not exist. No such folder: nothing."""
    try:
        with os.scandir(source) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    sealed = sealed or any(entry.name == SEAL for entry in found)
    if source.parent.name in ("checkpoints", "resume") and not sealed:
        return
    destination.mkdir(parents=True, exist_ok=True)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            if not entry.name.startswith("."):  # being made
                _copy_tree(Path(entry.path), destination / entry.name, sealed)
        elif entry.is_file(follow_symlinks=False) and not entry.name.endswith(".part") and entry.name not in LEFT_OUT_OF_TARGETS:
            (_link if sealed else _copy)(Path(entry.path), destination / entry.name)


def _link(source: Path, destination: Path) -> None:
    try:
        os.link(source, destination)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links, or too many of them
        _copy(source, destination)


def _copy(source: Path, destination: Path) -> None:
    """A copy with the same mode; a file that has vanished is left out."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copy2(source, destination, follow_symlinks=False)
    except FileNotFoundError:
        return


# ---------------------------------------------------------------- sealing


def _finish(into: Path, note: dict[str, Any]) -> dict[str, Any]:
    """Write note and seal. The hashes of what was sealed before are taken from its own seal: nothing large is read again."""
    digests = _digests(into)
    note = note | {"files": len(digests)}
    replace_file(into / NOTE, json.dumps(note, indent=1, ensure_ascii=False) + "\n", durable=False)
    digests[NOTE] = hash_file(into / NOTE)
    os.sync()  # one call instead of one fsync for each of many thousand small files
    replace_file(into / SEAL, "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())))
    return note


def _digests(into: Path) -> dict[str, str]:
    digests: dict[str, str] = {}
    for folder, _, files in os.walk(into):
        prefix = os.path.relpath(folder, into)
        if SEAL in files:
            lines = (line.partition("  ") for line in Path(folder, SEAL).read_text().splitlines())
            sealed = {os.path.normpath(f"{prefix}/{name}"): digest for digest, _, name in lines if name}
            digests |= {name: digest for name, digest in sealed.items() if (into / name).is_file()}
        for name in files:
            relative = os.path.normpath(f"{prefix}/{name}")
            if relative not in digests:
                digests[relative] = hash_file(Path(folder, name))
    return digests


def _best_of(home: Home, job: str) -> str:
    """The candidate that the newest ranking of a job put first; empty where there is none."""
    for path in sorted(home.runs(job).glob("*-rank/ranking.json"), reverse=True):
        try:
            return str(json.loads(path.read_text()).get("best", ""))
        except (OSError, ValueError):
            continue
    return ""
