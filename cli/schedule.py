"""`lorad schedule`: what the clock starts, when it comes next, and when training may run."""

from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any

import click

from cli.options import config_option, format_option, show_json
from store.config_file import config_path, home_of

if TYPE_CHECKING:
    from core.config import Config
    from daemon.schedules import Plan, Times


@click.group()
def schedule() -> None:
    """What the clock starts, and when training may run."""


@schedule.command("list")
@config_option
@format_option()
def list_entries(config: str | None, output: str) -> None:
    """Every entry with its last and next time, and whether training may run now."""
    from core.windows import closed_at, in_words
    from daemon.schedules import zone_of

    settings, now = _load(config), datetime.now(UTC)  # noqa: TID251 - a person asks now
    zone = zone_of(settings.schedule)
    closed = closed_at(settings.schedule.windows, settings.schedule.quiet_hours, now, zone)
    rows = [_row(name, times, plan, now) | {"says": _says(settings, name)} for name, times, plan in _entries(config, settings, zone, now)]
    if output == "json":
        show_json({"time_zone": str(zone), "closed": in_words(closed, zone) if closed else "", "entries": rows})
        return
    spans = ", ".join(settings.schedule.windows) or "always"
    quiet = f", never {', '.join(settings.schedule.quiet_hours)}" if settings.schedule.quiet_hours else ""
    click.echo(f"training may run {spans}{quiet} ({zone}): " + (f"not now, {in_words(closed, zone)}" if closed else "now"))
    if not rows:
        click.echo("no entries; write schedule.entries into config.json to train, tidy up or back up by the clock")
    for row in rows:
        last = f", last {_shown(row['last'], zone)}" if row["last"] else ""
        click.echo(f"{row['entry']:<16} {row['says']:<40} next {_shown(row['next'], zone)}{last}")


@schedule.command("next")
@click.option("--count", default=10, show_default=True, type=click.IntRange(1, 1000), help="How many times to show.")
@config_option
@format_option()
def next_times(count: int, config: str | None, output: str) -> None:
    """The next times of all entries, in order; each may come up to its jitter later."""
    from daemon.schedules import zone_of

    settings, now = _load(config), datetime.now(UTC)  # noqa: TID251 - a person asks now
    zone = zone_of(settings.schedule)
    rows: list[dict[str, Any]] = []
    for name, times, plan in _entries(config, settings, zone, now):
        comes = plan.comes_at if plan is not None else times.after(now)
        for _ in range(count):
            if comes is None:
                break
            rows.append({"at": comes.isoformat(), "entry": name, "does": settings.schedule.entries[name].does})
            comes = times.after(max(comes, now))
    rows = sorted(rows, key=lambda row: str(row["at"]))[:count]
    if output == "json":
        show_json(rows)
        return
    for row in rows:
        click.echo(f"{_shown(row['at'], zone)}  {row['entry']:<16} {row['does']}")


def _load(config: str | None) -> "Config":
    from store.config import ConfigLoader

    return ConfigLoader(config).load().config


def _entries(config: str | None, settings: "Config", zone: tzinfo, now: datetime) -> "list[tuple[str, Times, Plan | None]]":
    """(name, times, plan) of each entry; no plan where no daemon has seen it as it stands now. Raises ConfigError."""
    from daemon.schedules import Times, key_of, read_plans

    plans = read_plans(home_of(config_path(config)))
    found = []
    for name, entry in settings.schedule.entries.items():
        plan = plans.get(name)
        plan = plan if plan is not None and plan.key == key_of(entry, zone) else None
        found.append((name, Times(name, entry, zone, plan.since if plan is not None else now), plan))
    return found


def _row(name: str, times: "Times", plan: "Plan | None", now: datetime) -> dict[str, Any]:
    comes = plan.comes_at if plan is not None else times.after(now)
    last = plan.last.isoformat() if plan is not None and plan.last else None
    return {"entry": name, "next": comes.isoformat() if comes else None, "last": last}


def _says(settings: "Config", name: str) -> str:
    entry = settings.schedule.entries[name]
    when = f'"{entry.cron}"' if entry.cron else f"every {entry.every_s:g} s"
    return " ".join(part for part in (entry.does, entry.adapter, when) if part)


def _shown(at: str | None, zone: tzinfo) -> str:
    return f"{datetime.fromisoformat(at).astimezone(zone):%a %Y-%m-%d %H:%M:%S}" if at else "never"
