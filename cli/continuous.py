"""`lorad continuous`: whether the loop of an adapter runs by itself."""

from typing import TYPE_CHECKING, Any

import click

from cli.asking import ask, say
from cli.options import config_option, format_option, show_json
from core.commands import CommandKind
from store.config_file import config_path, home_of

if TYPE_CHECKING:
    from store.paths import Home

persona_option = click.option("--persona", required=True, metavar="PERSONA[/DOMAIN]", help="Whose loop; without a domain that of main.")


@click.group()
def continuous() -> None:
    """Whether triggers fire and teachers are asked by themselves: for each adapter they do, until a person stops it."""


@continuous.command()
@persona_option
@click.option("--reason", default="", help="Why; stands in the journal.")
@config_option
@format_option()
def start(persona: str, reason: str, config: str | None, output: str) -> None:
    """Let the loop of an adapter run by itself again."""
    _say("start", persona, reason, config, output)


@continuous.command()
@persona_option
@click.option("--reason", default="", help="Why; stands in the journal and in the status.")
@config_option
@format_option()
def stop(persona: str, reason: str, config: str | None, output: str) -> None:
    """Let no trigger of an adapter fire and no teacher be asked for it. What is under way goes on; signals are still kept."""
    _say("stop", persona, reason, config, output)


@continuous.command()
@click.option("--persona", default="", metavar="PERSONA[/DOMAIN]", help="Only this one.")
@config_option
@format_option()
def status(persona: str, config: str | None, output: str) -> None:
    """Each adapter: whether its loop runs, what is pending, the iteration that is open, and how the last one ended."""
    from core.names import parse_adapter

    home = home_of(config_path(config))
    rows = _rows(home, parse_adapter(persona) if persona else "")
    if output == "json":
        show_json(rows)
        return
    if not rows:
        click.echo("no adapter has signals or an iteration yet; each runs by itself unless a person stops it")
    for row in rows:
        who = f"stopped by {row['stopped_by'] or 'a person'}, {row['stopped_at'][:16]}Z" if row["stopped_at"] else "runs by itself"
        why = f": {row['reason']}" if row["reason"] else ""
        click.echo(f"{row['adapter']:<24} {who}{why}; {row['rows']:,} rows pending")
        for one in row["open"]:
            click.echo(f"  {one['id']}  {one['standing']}")
        if row["last"]:
            click.echo(f"  last: {row['last']['id']}  {row['last']['standing']}")


def _say(what: str, persona: str, reason: str, config: str | None, output: str) -> None:
    from core.names import parse_adapter

    answer = ask(home_of(config_path(config)), CommandKind.CONTINUOUS, adapter=parse_adapter(persona), reason=reason, details={"what": what})
    say(answer, output)


def _rows(home: "Home", wanted: str) -> list[dict[str, Any]]:
    from cli.iteration import standing
    from store.feedback import read_shelf
    from store.iterations import newest_iterations, stopped

    counts, stops, iterations = read_shelf(home).counts(), stopped(home), list(newest_iterations(home))
    adapters = {wanted} if wanted else {*counts, *stops, *(one.adapter for one in iterations)}
    rows = []
    for adapter in sorted(adapters):
        mine = [one for one in iterations if one.adapter == adapter]
        told = [{"id": one.id, "standing": standing(one), "open": one.is_open} for one in mine]
        ended = [one for one in told if not one["open"]]
        stop = stops.get(adapter)
        rows.append(
            {
                "adapter": adapter,
                "runs": stop is None,
                "stopped_at": stop.at.isoformat() if stop else "",
                "stopped_by": stop.actor if stop else "",
                "reason": stop.reason if stop else "",
                "rows": counts[adapter].rows if adapter in counts else 0,
                "open": [one for one in reversed(told) if one["open"]],
                "last": ended[0] if ended else None,
            }
        )
    return rows
