"""`lorad gc`: let go what retention does not keep, now."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.asking import ask
from cli.options import config_option, format_option, show_json
from core.commands import CommandKind

if TYPE_CHECKING:
    from core.config import Config
    from store.paths import Home

PATIENCE_S = 3600.0  # where there is much, to look and to delete takes minutes


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go, and why.")
@config_option
@format_option()
def gc(dry_run: bool, config: str | None, output: str) -> None:
    """Delete what retention.* does not keep: beyond the counts always, more where the disk is low or home over its budget.

    Live, previous, best, newest, pinned and running are never deleted. With a daemon it does the work, else this command.
    """
    from store.config import ConfigLoader
    from store.locks import is_locked
    from store.paths import Home

    settings = ConfigLoader(config).load().config
    home = Home(Path(settings.home))
    if dry_run:
        _show_plan(home, settings, output)
    elif is_locked(home.lock):
        answer = ask(home, CommandKind.GC, PATIENCE_S)
        _say(answer.message, output, home)
    else:
        _collect(home, settings, output)


def _targets(settings: "Config") -> list[str]:
    return [target.name for target in settings.deploy.targets]


def _show_plan(home: "Home", settings: "Config", output: str) -> None:
    from core.needs import gigabytes
    from store.child import clock
    from store.codec import to_plain
    from store.collection import report_of, survey

    now = clock()
    found = survey(home, settings.retention, _targets(settings), now)
    report = report_of(found.plan.going, found.plan, now, "lorad gc --dry-run")
    if output == "json":
        show_json({"usage": to_plain(found.usage), "plan": to_plain(found.plan), "report": to_plain(report)})
        return
    for one in found.plan.going:
        click.echo(f"{gigabytes(one.item.bytes):>8}  {one.item.part.value:<18} {one.item.paths[0]}  {one.why}")
    name, most = found.usage.most()
    click.echo(f"home holds {gigabytes(found.usage.bytes)}" + (f", most of it in {name} ({gigabytes(most)})" if name else ""))
    click.echo(report.sentence("would free"))


def _collect(home: "Home", settings: "Config", output: str) -> None:
    from core.errors import RefusedError
    from daemon.pids import PIDManager
    from store.child import clock
    from store.collection import collect
    from store.journal import write_entry
    from store.reserve import give_up

    with PIDManager(home, version="gc"):
        give_up(home)  # what this command writes needs a little room; the next daemon makes it again
        home.prepare()
        report = collect(home, settings.retention, _targets(settings), clock())
        write_entry(home.journal, clock(), "gc.done", why=report.asked_by, freed_bytes=report.bytes, items=report.num_items, reason=report.sentence())
    if report.refused:
        raise RefusedError(report.sentence(), hint="mend or restore what cannot be read; then run it again", code="GC_REFUSED")
    _say(report.sentence(), output, home)


def _say(message: str, output: str, home: "Home") -> None:
    import json

    if output == "json":
        show_json(json.loads(home.gc_report.read_text()))
    else:
        click.echo(message)
