"""`lorad snapshot`, `lorad backup`, `lorad restore`: home as it stood at one moment, and the way back."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.asking import ask
from cli.options import config_option, format_option, show_json
from core.commands import CommandKind
from core.errors import UsageError

if TYPE_CHECKING:
    from store.paths import Home

PATIENCE_S = 3600.0


@click.group()
def snapshot() -> None:
    """Make and list snapshots of home or of a checkpoint."""


@snapshot.command()
@click.option("--job", default="", help="Of this job's best checkpoint instead of home's state.")
@config_option
@format_option()
def create(job: str, config: str | None, output: str) -> None:
    """Make a snapshot; sealed files are linked, so that it takes little room. Says its name."""
    from store.config_file import config_path, home_of
    from store.locks import is_locked

    home = home_of(config_path(config))
    name = ask(home, CommandKind.SNAPSHOT, PATIENCE_S, job=job).made if is_locked(home.lock) else _without_daemon(home, job)
    if output == "json":
        show_json({"snapshot": name, "folder": str(home.snapshots / name)})
    else:
        click.echo(f"snapshot {name}; `lorad restore {name} --into FOLDER` brings it back")


@snapshot.command("list")
@config_option
@format_option()
def list_snapshots(config: str | None, output: str) -> None:
    """The snapshots and scheduled backups of this home, oldest first."""
    from store.config_file import config_path, home_of
    from store.snapshots import notes

    found = [{"snapshot": name, **note} for name, note in notes(home_of(config_path(config)))]
    if output == "json":
        show_json(found)
        return
    for one in found:
        about = f"job {one['job']} step {one['step']}" if one["kind"] == "checkpoint" else f"{one['bytes']:,} bytes" if one["kind"] == "backup" else "home"
        click.echo(f"{one['snapshot']}  {about}")
    if not found:
        click.echo("no snapshots yet; `lorad snapshot create` makes one")


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@config_option
@format_option()
def backup(file: Path, config: str | None, output: str) -> None:
    """Pack state, signing keys, fences and the accepted rows into FILE (.tar.zst), mode 0600.

    Not inside: files that wait in the inbox, checkpoints of ended jobs, logs, base models, what inference boxes hold. It holds
    the private key and all rows: keep it as you keep home itself, and on another disk.
    """
    from store.archives import SUFFIX, pack
    from store.config_file import config_path, home_of
    from store.locks import is_locked

    if not file.name.endswith(SUFFIX):
        raise UsageError(f"{str(file)!r} does not end in {SUFFIX}", hint=f"call it {file.name.split('.')[0] or 'lorad'}{SUFFIX}", code="FILE_NAME")
    if file.exists():
        raise UsageError(f"{str(file)!r} exists already", hint="name another file, or move that one away", code="FILE_EXISTS")
    if not file.absolute().parent.is_dir():
        raise UsageError(f"no folder {str(file.absolute().parent)!r}", hint="make it first", code="NO_SUCH_FOLDER")
    home = home_of(config_path(config))
    if is_locked(home.lock):
        name = ask(home, CommandKind.SNAPSHOT, PATIENCE_S).made
        num_bytes = pack(home.snapshots / name, file)
    else:
        with _held(home):
            from store.archives import back_up
            from store.child import clock

            num_bytes = back_up(home, file, clock(), home.tmp / f"backup-{secrets.token_hex(4)}")["bytes"]
    if output == "json":
        show_json({"file": str(file), "bytes": num_bytes})
    else:
        click.echo(f"{file}: {num_bytes:,} bytes, with the private key and the rows; `lorad restore {file} --into HOME` brings it back")


@click.command()
@click.argument("source", metavar="FILE|SNAPSHOT")
@click.option("--into", required=True, type=click.Path(path_type=Path), help="Folder that does not exist or is empty.")
@config_option
@format_option()
def restore(source: str, into: Path, config: str | None, output: str) -> None:
    """Bring back a backup or a snapshot as a new home (or a checkpoint as a folder). Verifies every hash; overwrites nothing."""
    from store.archives import restore as bring_back
    from store.child import clock

    found = bring_back(_source(source, config), into.absolute(), clock())
    if output == "json":
        show_json({"into": str(found.into), "kind": found.kind, "of": found.at, "files": found.files, "not_inside": list(found.left_out)})
        return
    click.echo(f"{found.into}: {found.kind} as of {found.at[:19]}, {found.files:,} files, every hash verified")
    if found.left_out:
        click.echo(f"not inside: {', '.join(found.left_out)}")
        click.echo(f'set "home": "{found.into}" in the config and start `lorad daemon`; it wishes for nothing before each target has answered')


def _source(source: str, config: str | None) -> Path:
    """A path as it is; else a snapshot or scheduled backup of the config's home."""
    from store.config_file import config_path, home_of

    path = Path(source)
    if path.exists() or "/" in source:
        return path
    found = home_of(config_path(config)).snapshots / source
    if not found.exists():
        raise UsageError(f"no file or snapshot {source!r}", hint="`lorad snapshot list` names the snapshots of this home", code="NO_SNAPSHOT")
    return found


def _without_daemon(home: "Home", job: str) -> str:
    from store.child import clock
    from store.snapshots import chore_snapshot, new_id, place

    name = new_id(clock(), f"{secrets.token_hex(2)}-{job or 'home'}")
    with _held(home):
        try:
            chore_snapshot(home, {"id": name, "job": job})
            place(home, name)
        finally:
            shutil.rmtree(home.tmp / name, ignore_errors=True)
    return name


@contextmanager
def _held(home: "Home") -> Iterator[None]:
    """Hold the home, so that no daemon starts meanwhile. Raises UsageError where there is none."""
    from daemon.pids import PIDManager

    if not home.format_mark.exists():
        raise UsageError(f"no home at {str(home.root)!r}", hint="`lorad init` makes one", code="HOME_MISSING")
    home.prepare()
    with PIDManager(home, version="backup"):
        yield
