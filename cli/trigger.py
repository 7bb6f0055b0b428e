"""`lorad trigger`: when pending signals become a drop, why they have or have not, when they could next; and doing it by hand."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from cli.options import config_option, format_option, show_json

if TYPE_CHECKING:
    from core.conditions import Part, Seen
    from core.config import Config
    from core.learning import TriggerConfig
    from core.signals import Counts
    from core.triggers import Judgement
    from daemon.readings import Readings
    from daemon.triggers import Memory
    from store.paths import Home

NOBODY = "*"  # stands in for an adapter while nothing was said of any


@click.group()
def trigger() -> None:
    """When pending signals become a drop by themselves, and why they have or have not."""


@trigger.command("list")
@config_option
@format_option()
def list_them(config: str | None, output: str) -> None:
    """Every trigger and adapter: whether it fires now, when it could next, when it did last."""
    look = _Look.of(config)
    found = list(look.judgements())
    if output == "json":
        show_json([_plain(judgement) for judgement in found])
        return
    for judgement in found:
        click.echo(f"{judgement.trigger:<16} {judgement.adapter:<24} next {judgement.next_in_words}")
        click.echo(f"{'':<16} {judgement.words}")
        if judgement.last is not None:
            click.echo(f"{'':<16} {_last(judgement)}")


@trigger.command()
@click.argument("name")
@click.option("--adapter", default="", help="Only this one (persona/domain).")
@config_option
@format_option()
def show(name: str, adapter: str, config: str | None, output: str) -> None:
    """Every condition of a trigger as it stands now, what keeps it from firing, and when it could next."""
    look = _Look.of(config)
    found = list(look.judgements(name, adapter))
    if output == "json":
        show_json([_plain(judgement) for judgement in found])
        return
    for judgement in found:
        _explain(judgement)


@trigger.command()
@click.argument("name", default="")
@click.option("--adapter", default="", help="Only this one (persona/domain).")
@click.option("--rows", type=click.IntRange(0), help="As if so many new rows were pending.")
@click.option("--at", "when", default="", metavar="TIME", help="As if it were then, for example 2026-03-07T03:00.")
@config_option
@format_option()
def test(name: str, adapter: str, rows: int | None, when: str, config: str | None, output: str) -> int:
    """Whether triggers would fire, now or as if; fires nothing. Exit status 0 where one would, 2 where none would."""
    look = replace(_Look.of(config), rows=rows, at=_moment(when) if when else None)
    found = list(look.judgements(name, adapter))
    if output == "json":
        show_json([_plain(judgement) for judgement in found])
    else:
        for judgement in found:
            says = "would fire" if judgement.fires else "would not fire"
            why = judgement.why if judgement.fires else f"{judgement.words}; next {judgement.next_in_words}"
            click.echo(f"{judgement.trigger} {says} for {judgement.adapter}: {why}")
    return 0 if any(judgement.fires for judgement in found) else 2


@trigger.command()
@click.argument("name", default="")
@click.option("--adapter", default="", help="Whose pending signals (persona/domain); needed where several have some.")
@click.option("--reason", default="", help="A word for the journal.")
@config_option
@format_option()
def fire(name: str, adapter: str, reason: str, config: str | None, output: str) -> None:
    """Make a drop of all that is pending, whatever conditions, cool-down, quiet hours and continuous mode say."""
    from cli.asking import ask, say
    from core.commands import CommandKind
    from core.names import parse_adapter

    look = _Look.of(config)
    if name:
        look.named(name)
    chosen = parse_adapter(adapter) if adapter else look.only_adapter()
    say(ask(look.home, CommandKind.TRIGGER, adapter=chosen, reason=reason, details={"what": "fire", "name": name}), output)


# ---------------------------------------------------------------- what there is to know, without the daemon


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """The triggers of a home as they stand on disk. `rows` and `at` put what one supposes in the place of what is so."""

    home: "Home"
    config: "Config"
    counts: Mapping[str, "Counts"]
    memory: "Memory"
    readings: "Readings"
    live: Mapping[str, str | None] = field(default_factory=dict)
    waits: str = ""
    rows: int | None = None
    at: datetime | None = None

    @classmethod
    def of(cls, config: str | None) -> "_Look":
        from cli.status import look
        from daemon.readings import Readings
        from daemon.triggers import read_memory
        from store.config import ConfigLoader
        from store.config_file import config_path, home_of
        from store.feedback import read_shelf
        from store.listings import read_waits
        from store.performance import performance_of

        settings, home = ConfigLoader(config).load().config, home_of(config_path(config))
        shelf = read_shelf(home)
        shelf.follow(settings.feedback)
        found, life = look(home)
        waits = read_waits(home)
        return cls(
            home=home,
            config=settings,
            counts=shelf.counts(),
            memory=read_memory(home),
            readings=Readings(partial(performance_of, home)),
            live={alias: one["release"] for alias, one in (found or {}).get("live", {}).items()},
            waits=waits.all or waits.barred if life["running"] else "no daemon runs",
        )

    def named(self, name: str) -> "dict[str, TriggerConfig]":
        """The trigger of this name, or all. Raises UsageError."""
        from core.errors import UsageError
        from core.triggers import triggers_of

        triggers = dict(triggers_of(self.config))
        if name and name not in triggers:
            raise UsageError(f"no trigger {name!r}", hint=f"there are {', '.join(triggers)}", code="TRIGGER_UNKNOWN")
        return {name: triggers[name]} if name else triggers

    def only_adapter(self) -> str:
        """The adapter that has pending rows. Raises UsageError where several have some, or none."""
        from core.errors import UsageError

        found = sorted(adapter for adapter, one in self.counts.items() if one.rows or one.mistakes)
        if len(found) == 1:
            return found[0]
        what = f"{', '.join(found)} have pending rows" if found else "nothing is pending"
        hint = "say which with --adapter" if found else "`lorad feedback status` counts what waits, and for what"
        raise UsageError(what, hint=hint, code="ADAPTER_UNCLEAR" if found else "NOTHING_PENDING")

    def judgements(self, name: str = "", adapter: str = "") -> "Iterator[Judgement]":
        """Every trigger with every adapter that it is about. Raises UsageError, ConfigError."""
        from core.conditions import Past
        from core.triggers import covered, judge

        for one, config in self.named(name).items():
            told = (adapter,) if adapter else () if config.adapter in ("", "*") else (config.adapter,)
            for each in told or tuple(sorted(self.counts)) or (NOBODY,):
                if covered(config, each) or each == NOBODY:
                    seen, past = self._seen(one, config, each), self.memory.pasts.get(each, Past())
                    found = judge(one, config, seen, past)
                    if found.fires and (busy := self._busy(each)):
                        seen = replace(seen, busy=busy)
                        found = judge(one, config, seen, past)
                    yield found

    def _seen(self, name: str, config: "TriggerConfig", adapter: str) -> "Seen":
        from core.conditions import Past, Seen, Stamp
        from core.signals import Counts
        from core.triggers import conditions_of
        from daemon.readings import opening
        from daemon.schedules import zone_of
        from daemon.triggers import Clocks
        from store.iterations import stopped

        now = Clocks().stamp() if self.at is None else Stamp(at=self.at)
        counts, past = self.counts.get(adapter, Counts()), self.memory.pasts.get(adapter, Past())
        rows, arrived = (counts.rows, counts.arrived) if self.rows is None else (self.rows, past.arrived + self.rows)
        conditions, opens = conditions_of(config), opening(self.config.schedule)
        came, comes = self._times(name, config, now.at)
        return Seen(
            adapter=adapter,
            now=now,
            rows=rows,
            arrived=arrived,
            quarantined=past.quarantined if self.rows is not None else counts.faulty,
            oldest_at=(counts.oldest_at or now.at) if rows else None,
            stopped=adapter in stopped(self.home),
            waits=self.waits if self.at is None else "" if opens(now.at) == now.at else "the calendar is closed then",
            came=came,
            comes=comes,
            readings=self.readings.measures(adapter, [one for one in conditions if one.metric], self.live.get(adapter), now.at),
            marks=self.readings.marks([one.changed for one in conditions if one.changed]),
            zone=zone_of(self.config.schedule),
            opens=opens,
        )

    def _times(self, name: str, config: "TriggerConfig", now: datetime) -> "tuple[dict[str, Any], dict[str, datetime]]":
        """(what has come, what comes next) of its cron texts, also where no daemon looked meanwhile."""
        from core.conditions import Came, Stamp
        from core.triggers import crons_of
        from daemon.schedules import Cron, Times, zone_of

        came, comes = dict(self.memory.came), dict[str, datetime]()
        zone = zone_of(self.config.schedule)
        for key, cron in crons_of({name: config}).items():
            times, plan = Times(name, Cron(cron), zone, now), self.memory.plans.get(key)
            is_known = plan is not None and plan.key == f"{cron} {zone}"
            if plan is not None and is_known and plan.next <= now:
                came[key] = Came(at=times.newest(plan.next, now), noticed=Stamp(at=now))
            after = times.after(now)
            if after is not None:
                comes[key] = after
        return came, comes

    def _busy(self, adapter: str) -> str:
        from store.listings import read_jobs

        rows = read_jobs(self.home) or () if self.at is None else ()
        mine = [row for row in rows if row["adapter"] == adapter and row["state"] in ("training", "ranking", "queued")]
        return f"{mine[0]['id']} is {mine[0]['state']}: what it learns comes first" if mine else ""


def _moment(text: str) -> datetime:
    """A time as people write it, of this machine's zone where it names none. Raises UsageError."""
    from core.errors import UsageError
    from daemon.schedules import machine_zone

    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no time", hint="write 2026-03-07T03:00, or with a zone 2026-03-07T03:00+01:00", code="TIME_SYNTAX") from None
    return (at if at.tzinfo is not None else at.replace(tzinfo=machine_zone())).astimezone(UTC)


# ---------------------------------------------------------------- words


def _last(judgement: "Judgement") -> str:
    from core.conditions import shown

    last = judgement.last
    assert last is not None
    by = f" by {last.actor}" if last.actor else ""
    batch = f": {last.batch}" if last.batch else ": its batch is to be begun"
    return f"last fired {shown(last.stamp.at, judgement.seen.zone)} by {last.trigger!r}{by} with {last.rows:,} rows ({last.why}){batch}"


def _explain(judgement: "Judgement") -> None:
    click.echo(f"{judgement.trigger} for {judgement.adapter}: {'fires' if judgement.fires else 'does not fire'}")
    for title, parts in (("any of", judgement.any), ("each of", judgement.all), ("and", (judgement.enough,))):
        for number, part in enumerate(parts):
            click.echo(f"  {title if not number else '':<8} {'yes' if part.holds else 'no':<4} {part.words}")
    for number, brake in enumerate(judgement.brakes):
        click.echo(f"  {'but' if not number else '':<8} {'':<4} {brake.words}")
    click.echo(f"  next     {judgement.next_in_words}")
    if judgement.last is not None:
        click.echo(f"  {_last(judgement)}")


def _plain(judgement: "Judgement") -> dict[str, Any]:
    last = judgement.last
    return {
        "trigger": judgement.trigger,
        "adapter": judgement.adapter,
        "fires": judgement.fires,
        "holds": judgement.holds,
        "words": judgement.words,
        "next_at": _iso(judgement.next_at),
        "any": [_plain_part(part) for part in judgement.any],
        "all": [_plain_part(part) for part in judgement.all],
        "enough": _plain_part(judgement.enough),
        "brakes": [{"words": brake.words, "until": _iso(brake.until)} for brake in judgement.brakes],
        "last": None
        if last is None
        else {"at": _iso(last.stamp.at), "trigger": last.trigger, "rows": last.rows, "why": last.why, "actor": last.actor, "batch": last.batch},
    }


def _plain_part(part: "Part") -> dict[str, Any]:
    return {"words": part.words, "holds": part.holds, "at": _iso(part.at)}


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at is not None else None
