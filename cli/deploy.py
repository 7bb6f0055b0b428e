"""`lorad deploy`: the inference boxes. What each serves and what stands in the way; making one known, checking it, sending to it."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from cli.adapters import rollback
from cli.introducing import rotate, setup
from cli.options import config_option, format_option, show_json
from cli.rehearsing import rehearse
from cli.shipping import adopt, check, push

if TYPE_CHECKING:
    from core.deployment import TargetConfig
    from store.paths import Home

STALE = timedelta(seconds=60)  # a link looks every few seconds, every thirty where a person must mend something first


@click.group()
def deploy() -> None:
    """The inference boxes: set one up, check it, send to it, see what it serves, roll back, take it over."""


for _command in (setup, check, push, rollback, adopt, rotate, rehearse):
    deploy.add_command(_command)


@deploy.command()
@click.argument("target", required=False)
@config_option
@format_option()
def status(target: str | None, config: str | None, output: str) -> int:
    """What each target serves, what it was asked for, when it was last heard, and what stands in the way. Exit 2: something does."""
    from pathlib import Path

    from deploy.link import target_named
    from store.config import ConfigLoader
    from store.paths import Home

    loaded = ConfigLoader(config).load().config
    wanted = (target_named(loaded.deploy.targets, target),) if target else loaded.deploy.targets
    now = datetime.now(UTC)  # noqa: TID251 - a person asks now
    rows = [row_of(Home(Path(loaded.home)), one, now) for one in wanted]
    if output == "json":
        show_json(rows)
    else:
        for row in rows:
            click.echo("\n".join(_lines(row)))
    return 2 if any(row["code"] for row in rows) else 0


def row_of(home: "Home", target: "TargetConfig", now: datetime) -> dict[str, Any]:
    """One target in plain values, by the wish and by what its link last heard. `code` says what stands in the way."""
    from core.errors import IntegrityError
    from store.codec import to_plain
    from store.targets import desired_of, observed_of

    observed = observed_of(home, target.name)
    try:
        desired = desired_of(home, target.name)
    except IntegrityError:
        desired = None  # what is served is told all the same
    active = observed.active if observed else None
    is_stale = observed is None or now - observed.at > STALE
    code, reason, hint = (observed.code, observed.reason, observed.hint) if observed else ("", "", "")
    if is_stale:
        since = f"since {observed.at:%Y-%m-%d %H:%M:%S} UTC" if observed else "yet"
        code, reason, hint = "LINK_SILENT", f"nobody has looked {since}: what it serves now is unknown", "start `lorad daemon`, or `lorad deploy push`"
    return {
        "target": target.name,
        "kind": target.kind,
        "where": f"{target.user}@{target.host}:{target.path}" if target.kind == "ssh" else target.path,
        "canary": target.canary,
        "reachable": bool(observed and observed.reachable and not is_stale),
        "heard_at": observed.at.isoformat() if observed else None,
        "fence": {"asked": desired.fence if desired else 0, "sent": observed.fence_pushed if observed else 0, "seen": active.fence_seen if active else 0},
        "adapters": _adapters(desired.aliases if desired else {}, desired.fences if desired else {}, active.aliases if active else {}),
        "watches": to_plain(active.watches) if active else {},
        "trials": to_plain(active.trials) if active else {},
        "code": code,
        "reason": reason,
        "hint": hint,
    }


def _adapters(wishes: Mapping[str, Any], fences: Mapping[str, int], said: Mapping[str, Any]) -> dict[str, Any]:
    """Alias -> what is live by the box's word, and how the newest wish for it stands."""
    found = {}
    for alias in sorted({*wishes, *said}):
        state, wish = said.get(alias), wishes.get(alias)
        is_heard = state is not None and (wish is None or state.fence >= fences.get(alias, 0))
        found[alias] = {
            "live": state.release if state else None,
            "version": state.version if state else None,
            "wanted": wish.release if wish else state.release if state else None,
            "state": str(state.outcome) if is_heard and state else "asked",
            "code": state.code if is_heard and state else "",
            "reason": state.reason if is_heard and state else "",
        }
    return found


def _lines(row: Mapping[str, Any]) -> Iterator[str]:
    heard = row["heard_at"][:19].replace("T", " ") if row["heard_at"] else "never"
    yield f"{row['target']}{' (canary)' if row['canary'] else ''}  {row['where']}  {'reached' if row['reachable'] else 'not reached'}, last look {heard} UTC"
    for alias, state in row["adapters"].items():
        live = f"v{state['version']} {state['live'][:12]}" if state["live"] else "the base model"
        asked = (
            ""
            if state["wanted"] == state["live"]
            else f"; asked for {(state['wanted'] or 'the base model')[:14]}: {state['state']} {state['code']} {state['reason']}"
        )
        yield f"  {alias:<24} {live}{asked}".rstrip()
    for alias, watch in row["watches"].items():
        if watch["phase"] not in ("passed",):
            yield f"  {alias:<24} watch: {watch['phase']} until {watch['until'][:19]} {watch['reason']}".rstrip()
    if row["code"]:
        yield f"  {row['code']}: {row['reason']}\n  what to do: {row['hint']}"


@deploy.command()
@click.argument("target", required=False)
@click.option("--adapter", help="Only of this adapter.")
@config_option
@format_option()
def history(target: str | None, adapter: str | None, config: str | None, output: str) -> None:
    """What each box did, by its own ledger: live, restored, refused, deferred, rolled_back, moved, with the fence and the reason."""
    from pathlib import Path

    from core.names import parse_adapter
    from deploy.link import target_named
    from store.codec import to_plain
    from store.config import ConfigLoader
    from store.paths import Home
    from store.targets import ledger_of

    loaded = ConfigLoader(config).load().config
    home, alias = Home(Path(loaded.home)), parse_adapter(adapter, shared=True) if adapter else None
    wanted = (target_named(loaded.deploy.targets, target),) if target else loaded.deploy.targets
    lines = [(one.name, line) for one in wanted for line in ledger_of(home, one.name) if alias is None or line.alias == alias]
    if output == "json":
        show_json([{"target": name, **to_plain(line)} for name, line in lines])
        return
    _print_history(sorted(lines, key=lambda entry: entry[1].at))


def _print_history(lines: Sequence[tuple[str, Any]]) -> None:
    if not lines:
        click.echo("no target has done anything yet")
    for name, line in lines:
        what = f"v{line.version} {line.release[:12]}" if line.release else "the base model"
        click.echo(f"{line.at:%Y-%m-%d %H:%M:%S}  {name:<12} {line.event:<11} {line.alias:<24} {what}  fence {line.fence}  {line.code} {line.reason}".rstrip())
