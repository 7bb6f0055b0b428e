"""Home and its disk: room, permissions, keys, left-overs."""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cli.checkups.registry import Finding, Findings, Level, Visit, check, note, ok, problem
from store.paths import Home

OLD = timedelta(days=1)  # a .part file of that age has no writer any more
MOST_JOBS = 2_000  # records that are read
MOST_LOOKED_AT = 50_000  # entries of home: a look stays short


@check("home")
def home(visit: Visit) -> Findings:
    """Whether the home is there, whole, and of a format that this lorad knows."""
    place = visit.home
    assert place is not None
    if place.root.exists() and not place.root.is_dir():
        yield problem("HOME_NO_FOLDER", f"home {str(place.root)!r} is a file", "name a folder with the key home, or move the file away")
        return
    if not place.root.is_dir():
        yield problem("HOME_MISSING", f"there is no home {str(place.root)!r} yet", "`lorad init` makes it", _making(place.prepare, f"made {place.root}"))
        return
    from core.errors import LoradError
    from store.migration import format_of
    from store.paths import FOLDERS, FORMAT

    try:
        found = format_of(place)
    except LoradError as error:
        yield problem(error.code, error.what, error.hint)
        return
    if found is not None and found > FORMAT:
        yield problem("HOME_NEWER", f"{place.root} has format {found}; this lorad knows up to {FORMAT}", "upgrade lorad, or name another home")
        return
    missing = [folder for folder in FOLDERS if not (place.root / folder).is_dir()]
    if missing:
        text = f"{place.root} has no {', '.join(missing)}"
        yield problem("FOLDER_MISSING", text, "`lorad init` makes them", _making(place.prepare, f"made {', '.join(missing)}"))
    else:
        yield ok("HOME", f"{place.root}, format {found if found is not None else FORMAT}")


def _making(make: Callable[[], None], done: str) -> Callable[[], str]:
    def mend() -> str:
        make()
        return done

    return mend


@check("home")
def disk(visit: Visit) -> Findings:
    """Free bytes and inodes against the floor, and whether the inbox lies on the disk of home."""
    from core.needs import gigabytes
    from core.sections import RetentionConfig

    assert visit.home is not None
    place = nearest(visit.home.root)
    limits = visit.config.retention if visit.config else RetentionConfig()
    usage, inodes = shutil.disk_usage(place), os.statvfs(place)
    words = f"{gigabytes(usage.free)} of {gigabytes(usage.total)} free at {visit.home.root}"
    todo = "free some space, or `lorad gc`; lorad goes on by itself"
    if usage.free < limits.min_free_mb << 20:
        yield problem("DISK_LOW", f"{words}: under the floor of {limits.min_free_mb} MB (retention.min_free_mb), training waits", todo)
    elif inodes.f_files and inodes.f_favail < limits.min_free_inodes:
        words = f"{inodes.f_favail:,} inodes are free: under the floor of {limits.min_free_inodes:,} (retention.min_free_inodes), training waits"
        yield problem("INODES_LOW", words, "delete small files on this disk")
    else:
        yield ok("DISK", words + (f", {inodes.f_favail:,} inodes" if inodes.f_files else ""))
    inbox = visit.home.inbox
    if inbox.is_dir() and inbox.stat().st_dev != visit.home.root.stat().st_dev:
        yield problem("INBOX_OTHER_DEVICE", f"{inbox} is on another file system than {visit.home.root}", "put it on the file system of home")


def nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    while not path.exists():
        path = path.parent
    return path


@check("home")
def permissions(visit: Visit) -> Findings:
    """Whether this user may write where lorad writes."""
    assert visit.home is not None
    if not visit.home.root.is_dir():
        return
    if os.statvfs(visit.home.root).f_flag & os.ST_RDONLY:
        yield problem("READ_ONLY", f"the file system of {visit.home.root} is mounted read-only", "see dmesg for errors of the disk; mount it read-write again")
        return
    shut = [str(place) for place in (visit.home.root, visit.home.inbox, visit.home.tmp) if place.is_dir() and not os.access(place, os.W_OK | os.X_OK)]
    if shut:
        who = f"owned by uid {visit.home.root.stat().st_uid}, this is uid {os.geteuid()}"
        yield problem("NOT_WRITABLE", f"not writable here: {', '.join(shut)} ({who})", "run lorad as the user who owns them, or give them to this one (chown)")
    else:
        yield ok("WRITABLE", "home, inbox and tmp are writable")
    yield from _strange(visit.home)
    inbox = visit.home.inbox
    if inbox.is_dir() and inbox.stat().st_mode & stat.S_IWOTH and not inbox.stat().st_mode & stat.S_ISVTX:
        text = f"anybody on this machine may take files out of {inbox}"
        yield note("INBOX_OPEN", text, f"chmod +t {inbox}; inbox.users says whose files each persona takes")


def _strange(home: Home) -> Findings:
    """Folders that anybody may replace files in, and folders of another owner than home's."""
    for place in (home.root, home.keys):
        if place.is_dir() and place.stat().st_mode & stat.S_IWOTH:
            mode = stat.S_IMODE(place.stat().st_mode) & ~stat.S_IWOTH
            mend = _making(lambda place=place, mode=mode: place.chmod(mode), f"chmod o-w {place}")  # type: ignore[misc]
            yield problem("FOLDER_OPEN", f"anybody on this machine may put files into {place}", f"chmod o-w {place}", mend)
    owner, names = home.root.stat().st_uid, ("inbox", "drops", "jobs", "runs", "adapters", "keys", "commands", "tmp")
    other = [name for name in names if (home.root / name).is_dir() and (home.root / name).stat().st_uid != owner]
    if other:
        text = f"{', '.join(other)} in {home.root} have another owner than home itself (uid {owner}): the daemon cannot write there"
        yield problem("FOLDER_OWNER", text, f"chown -R --reference={home.root} " + " ".join(str(home.root / name) for name in other))


@check("home")
def keys(visit: Visit) -> Findings:
    """The signing key and the files of secrets: there, and for their owner alone."""
    from store.keys import PRIVATE, PUBLIC, ensure_keys

    assert visit.home is not None
    folder = visit.home.keys
    private, public = folder / PRIVATE, folder / PUBLIC
    if not visit.home.root.is_dir():
        return
    if not os.path.lexists(private) and not os.path.lexists(public):
        yield problem("KEY_MISSING", f"there is no signing key in {folder}", "`lorad init` makes it", _making(lambda: ensure_keys(folder), f"made {private}"))
    elif not os.path.lexists(private):
        yield problem("KEY_LOST", f"{private} is gone, its public half is there", "restore it from a backup (`lorad restore`): boxes trust that key alone")
    secrets = [path for path in (private, *_secret_files(visit)) if path.is_file()]
    loose = [path for path in secrets if stat.S_IMODE(path.stat().st_mode) & 0o077]
    for path in loose:
        mode = stat.S_IMODE(path.stat().st_mode)
        mend = _making(lambda path=path: path.chmod(0o600), f"chmod 0600 {path}") if path.stat().st_uid == os.geteuid() else None  # type: ignore[misc]
        yield problem("KEY_OPEN", f"{path} may be read by others (mode {mode:04o})", f"chmod 0600 {path}", mend)
    if secrets and not loose:
        yield ok("KEYS", f"{len(secrets)} file{'s' if len(secrets) > 1 else ''} of keys, readable by the owner alone")


def _secret_files(visit: Visit) -> Iterator[Path]:
    if visit.config is None:
        return
    for name in (visit.config.alerts.urls_file, visit.config.alerts.webhook_key_file):
        if name and not name.startswith("/run/credentials/"):  # systemd's own, which it keeps for the service
            yield (visit.config_path.parent / Path(name).expanduser()).resolve()
    assert visit.home is not None
    named = visit.config.serving.home
    box = visit.config_path.parent / Path(named).expanduser() if named else visit.home.root / "serving"
    yield from (box / "secret", box / "keys.json")


@check("home")
def records(visit: Visit) -> Findings:
    """Whether the records of the jobs that have not ended can be read."""
    from core.errors import LoradError
    from core.records import ENDED, JobState
    from store.jobs import read_job

    assert visit.home is not None
    looked = 0
    for state in (state for state in JobState if state not in ENDED):
        for folder in sorted(visit.home.root.glob(f"jobs/{state}/*"))[: max(0, MOST_JOBS - looked)]:
            looked += 1
            try:
                read_job(folder, state)
            except (LoradError, OSError) as error:
                what = error.what if isinstance(error, LoradError) else str(error)
                todo = "restore its folder from a backup, or move it out of home"
                yield problem("RECORD_DAMAGED", f"job {folder.name} ({state}) is left alone: {what}", todo)


@check("home")
def leftovers(visit: Visit) -> Findings:
    """Half-written files without a writer, and locks of children that outlived their daemon."""
    from store.locks import is_locked

    assert visit.home is not None
    if not visit.home.root.is_dir():
        return
    old = _old_parts(visit.home.root, visit.now)
    if old:
        text = f"{len(old)} half-written files are older than a day, the first is {old[0]}"
        yield Finding(code="PARTS_LEFT", level=Level.NOTE, text=text, todo="`lorad doctor --fix` deletes them", mend=lambda: _deleted(old))
    locks = [path for path in sorted(visit.home.root.glob("slots/*.lock")) if os.access(path, os.W_OK)]
    held = [path.name for path in locks if not visit.daemon_runs and is_locked(path)]
    if held:
        text = f"no daemon runs, and a child of an earlier one holds {', '.join(held)}"
        yield note("ORPHAN", text, "start the daemon: it lets it write a checkpoint and ends it")
    if not old and not held:
        yield ok("LEFTOVERS_NONE", "nothing is left over")


def _old_parts(root: Path, now: datetime) -> list[Path]:
    """Files of ours that were written under a temporary name and never renamed. The inbox is not ours: its .part files are people's."""
    found: list[Path] = []
    looked = 0
    for folder, folders, names in os.walk(root):
        if Path(folder) == root:
            folders[:] = [name for name in folders if name not in ("inbox", "serving", "rows")]
        looked += len(names)
        if looked > MOST_LOOKED_AT:
            break
        for name in names:
            if name.startswith(".") and name.endswith(".part"):
                path = Path(folder, name)
                try:
                    age = now - datetime.fromtimestamp(path.lstat().st_mtime, UTC)
                except OSError:
                    continue
                if age > OLD:
                    found.append(path)
    return sorted(found)


def _deleted(paths: list[Path]) -> str:
    for path in paths:
        path.unlink(missing_ok=True)
    return f"deleted {len(paths)} half-written files"
