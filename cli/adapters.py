"""`lorad adapters`: the vault. What lies in it, what was live when, how two versions differ, and the way back."""

import time
from collections.abc import Sequence
from typing import Any

import click

from cli.asking import ask
from cli.exporting import export
from cli.gc import gc
from cli.history import history
from cli.importing import import_
from cli.marking import MARKING
from cli.options import config_option, format_option, show_json
from cli.validating import validate
from core.commands import CommandKind
from core.errors import LoradError, UsageError
from core.marks import Marks
from core.names import DEFAULT_ADAPTER, parse_adapter
from core.wire import SWITCHES
from store.config_file import config_path, home_of
from store.paths import Home
from store.references import pins
from store.releases import Release, read_releases
from store.vault import choose, history_of, live_of, read_marks, releases_of, resolve

CONFIRM_S = 60.0


@click.group()
def adapters() -> None:
    """List adapters, their versions and history; mark, compare, import, validate; roll back.

    A version is named by persona/domain@v3, @v1.3.0 (its label), @latest, @live, or the first digits of its id.
    """


for _command in (export, gc, history, import_, validate, *MARKING):
    adapters.add_command(_command)


def row_of(release: Release, live: dict[str, str | None], marks: Marks, pinned: bool) -> dict[str, Any]:
    """A release in plain values: what made it, what is written on it, whether it is live and pinned."""
    manifest, mark = release.manifest, marks.of(release.version)
    return {
        "adapter": release.adapter,
        "version": release.version,
        "label": mark.label,
        "release": release.id,
        "live": live.get(release.adapter) == release.id,
        "pinned": pinned,
        "tags": list(mark.tags),
        "note": mark.note,
        "expires_at": mark.expires_at.isoformat() if mark.expires_at else None,
        "origin": manifest.origin or "trained",
        "encrypted": bool(manifest.encryption),
        "parent": manifest.parent,
        "job": manifest.job,
        "backend": manifest.backend,
        "base_sha256": manifest.base_sha256,
        "profile": f"{manifest.profile.name} {manifest.profile.version}" if manifest.profile else "",
        "created_at": manifest.created_at.isoformat(),
        "folder": str(release.folder),
    }


def rows_of(home: Home, releases: Sequence[Release]) -> list[dict[str, Any]]:
    """`row_of` of each."""
    live, pinned = live_of(home), pins(home)
    marks = {name: read_marks(home, name) for name in {release.adapter for release in releases}}
    return [row_of(release, live, marks[release.adapter], release.id in pinned) for release in releases]


def is_known(home: Home, adapter: str) -> bool:
    """Whether a job of this adapter was ever made, or it answers to drops that name none."""
    from cli.jobs import rows_of as jobs_of

    return adapter == DEFAULT_ADAPTER or any(row["adapter"] == adapter for row in jobs_of(home))


def _show(rows: Sequence[dict[str, Any]], output: str, empty: str) -> None:
    if output == "json":
        show_json(list(rows))
        return
    if not rows:
        click.echo(empty)
    for row in rows:
        click.echo(_line(row))


def _line(row: dict[str, Any]) -> str:
    about = [row["job"] or row["origin"]]
    about += [f"#{tag}" for tag in row["tags"]] + (["pinned"] if row["pinned"] else []) + (["encrypted"] if row["encrypted"] else [])
    about += [f"expires {row['expires_at'][:10]}"] if row["expires_at"] else []
    about += [f"“{row['note'].splitlines()[0][:60]}”"] if row["note"] else []
    name = f"v{row['version']}" + (f" ({row['label']})" if row["label"] else "")
    return f"{'*' if row['live'] else ' '} {row['adapter']:<24} {name:<5} {row['release'][:12]}  {row['created_at'][:19]}  {' '.join(about)}"


@adapters.command("list")
@click.option("--tag", help="Only versions with this tag, all of them.")
@config_option
@format_option()
def list_adapters(tag: str | None, config: str | None, output: str) -> None:
    """Every adapter's newest version; `*` marks what is live."""
    home = home_of(config_path(config))
    if tag:
        found = [row for row in rows_of(home, list(read_releases(home))) if tag in row["tags"]]
        _show(found, output, f"no version has the tag {tag!r}")
        return
    newest: dict[str, Release] = {}
    for release in read_releases(home):
        if release.adapter not in newest or release.version > newest[release.adapter].version:
            newest[release.adapter] = release
    _show(rows_of(home, list(newest.values())), output, "no adapter is released yet; the base model answers")


@adapters.command()
@click.argument("adapter")
@config_option
@format_option()
def show(adapter: str, config: str | None, output: str) -> None:
    """Every version of one adapter (`*`: live), or with NAME@VERSION all that is known of one version."""
    from store.codec import to_plain

    home = home_of(config_path(config))
    if "@" in adapter:
        release = resolve(home, adapter)
        (row,) = rows_of(home, [release])
        told = row | {"manifest": to_plain(release.manifest)}
        if output == "json":
            show_json(told)
            return
        for key, value in {**row, "drops": ", ".join(drop[:12] for drop in release.manifest.drops)}.items():
            if value not in (None, "", []):
                click.echo(f"{key:<12} {', '.join(value) if isinstance(value, list) else value}")
        return
    name = parse_adapter(adapter, shared=True)
    rows = rows_of(home, releases_of(home, name))
    if not rows and not is_known(home, name):
        raise UsageError(f"no adapter {name!r} in {str(home.root)!r}", hint="`lorad adapters list` names them", code="ADAPTER_UNKNOWN")
    _show(rows, output, f"{name} has no release yet")


@adapters.command()
@click.argument("one")
@click.argument("other")
@config_option
@format_option()
def diff(one: str, other: str, config: str | None, output: str) -> None:
    """How two versions differ: what they learnt from, their base, their shape, the settings they were trained with."""
    from cli.lineage import differences

    home = home_of(config_path(config))
    before, after = resolve(home, one), resolve(home, other)
    told = differences(home, before, after)
    if output == "json":
        show_json({"one": before.id, "other": after.id, "differences": told})
        return
    click.echo(f"{before.adapter} v{before.version} ({before.id[:12]}) -> {after.adapter} v{after.version} ({after.id[:12]})")
    for row in told:
        click.echo(f"  {row['what']}: {row['one'] or '-'} -> {row['other'] or '-'}")
    if not told:
        click.echo("  nothing differs")


@adapters.command()
@click.argument("adapter")
@click.option("--to", "version", metavar="VERSION", help="v3, 3, a label such as v1.3.0, or base; else the release that was live before.")
@config_option
@format_option()
def rollback(adapter: str, version: str | None, config: str | None, output: str) -> None:
    """Serve an earlier release again; returns once the first target says that it is live."""
    home, name = home_of(config_path(config)), parse_adapter(adapter, shared=True)
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


def _wanted(home: Home, adapter: str, version: str | None, live: str | None) -> str | None:
    """The release to go back to; None is the base. Raises UsageError."""
    if version == "base":
        return None
    if version is not None:
        return choose(home, adapter, version).id
    history = history_of(home, adapter)
    bad = {entry["previous"] for entry in history if entry["event"] == "rolled_back"}  # only by name, as a person's own word
    was_live = [entry["release"] for entry in history if entry["event"] in SWITCHES and entry["release"] not in bad]
    if live is None:
        raise UsageError(f"{adapter} serves the base model already", hint="name a release with --to", code="NOTHING_TO_ROLL_BACK")
    return next((release for release in reversed(was_live) if release != live), None)
