"""`lorad drop`: put files, or folders with pictures, into the inbox the right way, and on request wait for the end."""

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from cli.asking import require_daemon
from cli.options import config_option
from core.errors import ConfigError, LoradError, RefusedError, UsageError
from core.names import parse_adapter, stamp
from core.urgency import priority_of
from store.config_file import config_path, home_of
from store.inbox import Dropped, put_drop
from store.paths import Home

POLL_S = 0.2
ENDS = {"released": 0, "refused": 2, "held": 2, "failed": 1, "cancelled": 1}


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--adapter", default="default/main", show_default=True, metavar="PERSONA/DOMAIN")
@click.option("--priority", metavar="P", help="high, normal, low, or a number: a higher one runs first, normal is 0.")
@click.option("--not-before", metavar="TIME", help="Train no earlier: an ISO date and time; without a zone it is this machine's.")
@click.option("--schema", metavar="ID", help="Schema of the rows, for example completion_v1.")
@click.option("--level", type=click.Choice(["quick", "standard", "deep"]), help="How deep to check; else by source, adapter and config.")
@click.option("--source", metavar="NAME", help="Where the rows come from: a name of validation.sources.")
@click.option("--columns", metavar="A,B", help="Extra columns that are passed through.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A config key that a sidecar may set; repeatable.")
@click.option("--again", is_flag=True, help="Train on the same bytes once more.")
@click.option("--wait", is_flag=True, help="Wait for the end: 0 released, 2 refused or held, 1 failed or cancelled.")
@config_option
def drop(files: tuple[Path, ...], adapter: str, settings: tuple[str, ...], wait: bool, config: str | None, **words: Any) -> int:
    """Put files into the inbox the right way: sidecar first, then one rename. A folder NAME.drop holds one file and its pictures."""
    from core.config import nest, sidecar_layer
    from core.gate import level_of
    from store.config import ConfigLoader

    sidecar = nest(parse_settings(settings) | _said(words))
    _refuse_bytes(sidecar)
    values, job = sidecar_layer(sidecar, "the command line")
    level_of(ConfigLoader(config).load(sidecar=values), parse_adapter(adapter), job.get("source", ""))  # tells an unknown source now
    for file in files:
        _refuse_folder(file, sidecar)
    home = home_of(config_path(config))
    home.prepare()
    if wait:
        require_daemon(home)
    since = f"drop-{stamp(datetime.now(UTC), '')}"  # noqa: TID251 - a person drops now; an inode alone may have served an earlier drop
    dropped = [put_drop(home, file, parse_adapter(adapter), sidecar) for file in files]
    for file, one in zip(files, dropped, strict=True):
        click.echo(f"dropped {file} as {one.path}")
    return max(follow(home, one, since) for one in dropped) if wait else 0


def _said(words: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as sidecar keys."""
    columns = [column.strip() for column in words["columns"].split(",")] if words["columns"] else None
    priority = words["priority"]
    said = {
        "priority": None if priority is None else priority_of(priority, "--priority"),
        "not_before": _moment(words["not_before"]),
        "schema_id": words["schema"],
        "again": words["again"] or None,
    }
    said |= {"level": words["level"], "source": words["source"], "columns": columns}
    return {key: value for key, value in said.items() if value is not None}


def _moment(text: str | None) -> str | None:
    """A time as a person says it here, with this machine's zone where none is named."""
    try:
        return datetime.fromisoformat(text).astimezone().isoformat() if text is not None else None
    except (ValueError, OverflowError):
        return text  # `sidecar_layer` says what is wrong with it


def _refuse_bytes(sidecar: dict[str, Any]) -> None:
    """Raises UsageError for words that are no text: the sidecar, and every record of the job, is UTF-8."""
    try:
        json.dumps(sidecar, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"an option holds bytes that are no UTF-8: {error.object!a}", hint="set the terminal's encoding to UTF-8", code="NOT_UTF8") from None


def _refuse_folder(file: Path, sidecar: dict[str, Any]) -> None:
    """Raises UsageError for a folder that would be refused unread."""
    if file.suffix != ".drop" or not file.is_dir():
        return
    from validation.bundle import SIDECAR_SUFFIX, rows_file

    _, obstacle = rows_file(file)
    if obstacle:
        raise UsageError(f"{file}: {obstacle}", hint="a drop with pictures is a folder NAME.drop with one .jsonl file in it", code="FILE_KIND")
    inside = next((path.name for path in file.iterdir() if path.name.endswith(SIDECAR_SUFFIX)), "")
    if inside and sidecar:
        raise UsageError(f"{file} has a sidecar of its own, {inside!r}", hint="say everything there, or take it out of the folder", code="SIDECAR_TWICE")


def parse_settings(settings: tuple[str, ...]) -> dict[str, Any]:
    """`KEY=VALUE` words as a mapping; a value is JSON where it parses, else text. Raises ConfigError."""
    parsed: dict[str, Any] = {}
    for word in settings:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {word!r} is not KEY=VALUE", hint="for example --set training.epochs=1", code="CONFIG_SYNTAX")
        try:
            parsed[key] = json.loads(text)
        except ValueError:
            parsed[key] = text
    return parsed


def follow(home: Home, dropped: Dropped, since: str) -> int:
    """Wait until the dropped file's job has ended or is held; only drops whose id is after `since` count. Returns the exit status; shows each change."""
    told = ""
    while True:
        row = _job_row(home, dropped, since)
        if row is not None:
            told = _tell(row, told)
            if row["state"] in ENDS:
                click.echo(f"{row['id']}: {row['state']}" + (f": {row['reason']}" if row["reason"] else ""))
                return ENDS[row["state"]]
        elif (folder := _rejected(home, dropped, since)) is not None:
            raise RefusedError(f"{dropped.path.name} was refused: {_first_finding(folder)}", hint=f"read {folder / 'report.md'}", code="DROP_REFUSED")
        require_daemon(home)
        time.sleep(POLL_S)


def _job_row(home: Home, dropped: Dropped, since: str) -> dict[str, Any] | None:
    try:
        listing = json.loads(home.listing.read_text())
    except (FileNotFoundError, ValueError):
        return None
    recent = [row for row in listing["drops"] if row["id"] > since]
    drop_row = next((row for row in recent if (row["device"], row["inode"]) == (dropped.device, dropped.inode)), None)
    if drop_row is None or drop_row["job"] is None:
        return None
    return next((row for row in listing["jobs"] if row["id"] == drop_row["job"]), None)


def _rejected(home: Home, dropped: Dropped, since: str) -> Path | None:
    for folder in (folder for folder in home.rejected.iterdir() if folder.name > since):
        try:
            claim = json.loads((folder / "claim.json").read_text())
        except (OSError, ValueError):
            continue
        if (claim["device"], claim["inode"]) == (dropped.device, dropped.inode):
            return folder
    return None


def _first_finding(folder: Path) -> str:
    try:
        finding = json.loads((folder / "report.json").read_text())["findings"][0]
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise LoradError(f"the report in {folder} cannot be read: {error}", hint="look at the folder", code="REPORT_DAMAGED") from None
    return f"{finding['id']} {finding['message']}"


def _tell(row: dict[str, Any], told: str) -> str:
    """Show a line for each new state, and a moving one on a terminal."""
    metrics = row["metrics"]
    line = f"{row['id']}: {row['state']} {row['progress']} %"
    if metrics.get("loss") is not None and row["state"] == "training":
        line += f"  step {metrics.get('step')}/{metrics.get('total_steps')}  loss {metrics['loss']:.3f}"
    if metrics.get("eta_s") is not None:
        line += f"  {metrics['eta_s']:.0f} s left"
    terminal = sys.stdout.isatty()
    if terminal and line != told:
        click.echo(f"\r\x1b[K{line}", nl=False)
        return line
    if not terminal and row["state"] != told:
        click.echo(f"{row['id']}: {row['state']}")
        return str(row["state"])
    return told
