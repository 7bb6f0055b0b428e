"""`lorad adapters`: what is live, what was, and the way back."""

import json
import time
from collections.abc import Sequence
from typing import Any

import click

from cli.asking import ask, say
from cli.options import config_option, format_option, show_json
from core.commands import CommandKind
from core.errors import LoradError, UsageError
from core.names import DEFAULT_ADAPTER, parse_adapter
from store.config_file import config_path, home_of
from store.durable import lines_of
from store.paths import Home
from store.releases import Release, read_releases

CONFIRM_S = 60.0


@click.group()
def adapters() -> None:
    """List adapters, their releases and history; roll back."""


def live_of(home: Home) -> dict[str, str | None]:
    """Adapter -> live release by the first target's ledger, from the merged history."""
    live: dict[str, str | None] = {}
    first: str | None = None
    for entry in history_of(home, None):
        first = first or entry["target"]
        if entry["target"] == first and entry["event"] in ("live", "restored"):
            live[entry["alias"]] = entry["release"]
    return live


def history_of(home: Home, adapter: str | None) -> list[dict[str, Any]]:
    """The lines of live.jsonl, of one adapter or of all."""
    entries = [json.loads(line) for line in lines_of(home.live)]
    return [entry for entry in entries if adapter in (None, entry["alias"])]


def _row(release: Release, live: dict[str, str | None]) -> dict[str, Any]:
    manifest = release.manifest
    return {
        "adapter": release.adapter,
        "version": release.version,
        "release": release.id,
        "live": live.get(release.adapter) == release.id,
        "parent": manifest.parent,
        "job": manifest.job,
        "backend": manifest.backend,
        "base_sha256": manifest.base_sha256,
        "profile": f"{manifest.profile.name} {manifest.profile.version}" if manifest.profile else "",
        "created_at": manifest.created_at.isoformat(),
        "folder": str(release.folder),
    }


def is_known(home: Home, adapter: str) -> bool:
    """Whether a job of this adapter was ever made, or it answers to drops that name none."""
    from cli.jobs import rows_of

    return adapter == DEFAULT_ADAPTER or any(row["adapter"] == adapter for row in rows_of(home))


def _show(rows: Sequence[dict[str, Any]], output: str, empty: str) -> None:
    if output == "json":
        show_json(list(rows))
        return
    if not rows:
        click.echo(empty)
    for row in rows:
        click.echo(f"{'*' if row['live'] else ' '} {row['adapter']:<24} v{row['version']:<4} {row['release'][:12]}  {row['created_at'][:19]}  {row['job']}")


@adapters.command("list")
@config_option
@format_option()
def list_adapters(config: str | None, output: str) -> None:
    """Every adapter's newest release; `*` marks what is live."""
    home = home_of(config_path(config))
    newest: dict[str, Release] = {}
    for release in read_releases(home):
        if release.adapter not in newest or release.version > newest[release.adapter].version:
            newest[release.adapter] = release
    live = live_of(home)
    _show([_row(release, live) for release in newest.values()], output, "no adapter is released yet; the base model answers")


@adapters.command()
@click.argument("adapter")
@config_option
@format_option()
def show(adapter: str, config: str | None, output: str) -> None:
    """Every release of one adapter; `*` marks what is live."""
    home, name = home_of(config_path(config)), parse_adapter(adapter)
    live = live_of(home)
    rows = [_row(release, live) for release in read_releases(home) if release.adapter == name]
    if not rows and not is_known(home, name):
        raise UsageError(f"no adapter {name!r} in {str(home.root)!r}", hint="`lorad adapters list` names them", code="ADAPTER_UNKNOWN")
    _show(rows, output, f"{name} has no release yet")


@adapters.command()
@click.argument("adapter")
@config_option
@format_option()
def history(adapter: str, config: str | None, output: str) -> None:
    """What was live when, by the word of the inference boxes."""
    entries = history_of(home_of(config_path(config)), parse_adapter(adapter))
    if output == "json":
        show_json(entries)
        return
    for entry in entries:
        what = f"v{entry['version']} {entry['release'][:12]}" if entry["release"] else "the base model"
        click.echo(f"{entry['at'][:19]}  {entry['target']:<12} {entry['event']:<9} {what}  {entry['code']} {entry['reason']}".rstrip())
    if not entries:
        click.echo("nothing was live yet")


@adapters.command()
@click.argument("adapter")
@click.option("--to", "version", metavar="VERSION", help="v3, 3, or base; else the release that was live before.")
@config_option
@format_option()
def rollback(adapter: str, version: str | None, config: str | None, output: str) -> None:
    """Serve an earlier release again; returns once the first target says that it is live."""
    home, name = home_of(config_path(config)), parse_adapter(adapter)
    live = live_of(home).get(name)
    target = _wanted(home, name, version, live)
    answer = ask(home, CommandKind.ROLLBACK, adapter=name, from_release=live, to_release=target)
    deadline = time.monotonic() + CONFIRM_S
    while live_of(home).get(name) != target:
        if time.monotonic() > deadline:
            raise LoradError("no target has confirmed the rollback yet", hint="it stays wished for; `lorad status` shows the targets", code="NOT_CONFIRMED")
        time.sleep(0.1)
    if output == "json":
        show_json({"adapter": name, "release": target, "message": answer.message})
    else:
        click.echo(f"{name} serves {target[:12] if target else 'the base model'}")


@adapters.command()
@click.argument("adapter")
@click.argument("release", metavar="RELEASE")
@click.option("--reason", default="", help="Why; stands in pins.json and the journal.")
@config_option
@format_option()
def pin(adapter: str, release: str, reason: str, config: str | None, output: str) -> None:
    """Keep a release (v3, 3, or the beginning of its id) whatever retention says."""
    _set_pin(CommandKind.PIN, adapter, release, reason, config, output)


@adapters.command()
@click.argument("adapter")
@click.argument("release", metavar="RELEASE")
@click.option("--reason", default="", help="Why; stands in the journal.")
@config_option
@format_option()
def unpin(adapter: str, release: str, reason: str, config: str | None, output: str) -> None:
    """Let retention decide about a release again."""
    _set_pin(CommandKind.UNPIN, adapter, release, reason, config, output)


def _set_pin(kind: CommandKind, adapter: str, release: str, reason: str, config: str | None, output: str) -> None:
    home, name = home_of(config_path(config)), parse_adapter(adapter)
    found = [one for one in read_releases(home) if one.adapter == name]
    number = release.removeprefix("v")
    chosen = next((one for one in found if number == str(one.version) or (len(release) >= 6 and one.id.startswith(release))), None)
    if chosen is None:
        known = ", ".join(f"v{one.version}" for one in found) or "none"
        raise UsageError(f"{name} has no release {release!r}", hint=f"releases on this box: {known}", code="RELEASE_UNKNOWN")
    say(ask(home, kind, adapter=name, to_release=chosen.id, reason=reason), output)


def _wanted(home: Home, adapter: str, version: str | None, live: str | None) -> str | None:
    """The release to go back to; None is the base. Raises UsageError."""
    if version == "base":
        return None
    releases = {release.version: release.id for release in read_releases(home) if release.adapter == adapter}
    if version is not None:
        number = version.removeprefix("v")
        if not number.isdigit() or int(number) not in releases:
            known = ", ".join(f"v{number}" for number in sorted(releases)) or "none"
            raise UsageError(f"{adapter} has no release {version!r}", hint=f"releases on this box: {known}; or `--to base`", code="RELEASE_UNKNOWN")
        return releases[int(number)]
    was_live = [entry["release"] for entry in history_of(home, adapter) if entry["event"] in ("live", "restored")]
    if live is None:
        raise UsageError(f"{adapter} serves the base model already", hint="name a release with --to", code="NOTHING_TO_ROLL_BACK")
    return next((release for release in reversed(was_live) if release != live), None)
