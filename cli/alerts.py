"""`lorad alerts`: what needs a person, and whether people can be told."""

from datetime import UTC, datetime
from typing import Any

import click

from cli.options import config_option, format_option, show_json
from cli.status import read_status
from core.errors import LoradError, UsageError
from store.config_file import config_path, home_of


@click.group()
def alerts() -> None:
    """List alerts; send one through every channel to try it."""


@alerts.command("list")
@config_option
@format_option()
def list_alerts(config: str | None, output: str) -> None:
    """What is open, and what happened within a day, newest first; then the alerts that there are."""
    found = read_status(home_of(config_path(config))) or {}
    rows, sending = found.get("alerts") or [], found.get("notices") or {}
    if output == "json":
        show_json({"alerts": rows, "notices": sending})
        return
    for row in rows:
        state = "open" if row["open"] else "told" if row["told_at"] else "not told"
        click.echo(f"{row['opened_at'][:19]}Z  {row['severity']:<8}  {row['rule']:<16}  {state:<8}  {row['title']}: {row['reason']}")
        click.echo(f"{'':22}next: {row['next']}")
    if not rows:
        click.echo("no alerts")
    if sending and not sending["channels_set"]:
        click.echo("nobody is told: set alerts.webhook or alerts.urls_file (docs/howto/alerts.md)")
    for channel, why in (sending.get("failed") or {}).items():
        click.echo(f"{channel} fails: {why}; {sending['waiting']} notices wait")
    _show_rules()


def _show_rules() -> None:
    from core.alerts import RULES

    click.echo("\nalerts that there are (alerts.off names those that are not told):")
    for rule in RULES.values():
        click.echo(f"  {rule.name:<18}{rule.text}")


@alerts.command()
@config_option
@format_option()
def test(config: str | None, output: str) -> None:
    """Send one alert through each channel, now and from here, and say what failed (exit 1). Needs no daemon."""
    from daemon.channels import ChannelError, channels_of
    from store.config import ConfigLoader

    found = ConfigLoader(config).load().config.alerts
    if not found.webhook and not found.urls_file:
        hint = "set alerts.webhook with alerts.webhook_key_file, or alerts.urls_file (docs/howto/alerts.md)"
        raise UsageError("the config names no channel", hint=hint, code="NO_CHANNEL")
    channels = channels_of({"webhook": found.webhook, "webhook_key_file": found.webhook_key_file, "urls_file": found.urls_file})
    if not channels:
        raise UsageError(f"{found.urls_file!r} holds no URL", hint="write one Apprise URL a line", code="NO_CHANNEL")
    results: dict[str, Any] = {}
    for channel in channels:
        try:
            channel.send(_notice())
        except ChannelError as error:
            results[channel.name] = f"{error.what}; {error.hint}"
        else:
            results[channel.name] = None
        if output != "json":
            click.echo(f"{channel.name}: {'FAILED: ' + results[channel.name] if results[channel.name] else 'sent'}")
    if output == "json":
        show_json({"sent": [name for name, why in results.items() if not why], "failed": {name: why for name, why in results.items() if why}})
    failed = [name for name, why in results.items() if why]
    if failed:
        raise LoradError(f"{len(failed)} of {len(results)} channels failed: {', '.join(failed)}", hint="each line above says why", code="CHANNEL_FAILED")


def _notice() -> dict[str, Any]:
    """A notice as the daemon makes them."""
    from core.alerts import Alert, Severity
    from core.notices import Notice
    from store.codec import to_plain

    now = datetime.now(UTC)  # noqa: TID251 - a person acts now
    reason = "you asked for it: lorad alerts test"
    alert = Alert(rule="test", severity=Severity.INFO, title="alerts arrive here", reason=reason, next="lorad alerts list")
    plain: dict[str, Any] = to_plain(Notice(id=f"test-{now:%Y%m%d%H%M%S%f}", kind="test", at=now, alert=alert, opened_at=now))
    return plain
