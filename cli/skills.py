"""`lorad skills`: teachers of skills, and rows from them."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from cli.options import config_option, format_option, show_json

if TYPE_CHECKING:
    from core.config import Config
    from corpus.curriculum.skills import Skill
    from store.paths import Home

STATUS_TIMEOUT_S = 3.0
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@click.group()
def skills() -> None:
    """List the teachers of skills, serve those that ship, draw rows from them."""


@skills.command("list")
@config_option
@format_option()
def list_them(config: str | None, output: str) -> None:
    """The skills that are known: those that ship, and those of `skills` in the config."""
    from corpus.curriculum.skills import TEACHERS, known_skills

    settings, _ = _setting(config)
    rows = [{"name": name, "url": skill.settings.url, "adapter": skill.adapter, "ships": name in TEACHERS} for name, skill in known_skills(settings).items()]
    if output == "json":
        show_json(rows)
        return
    for row in rows:
        click.echo(f"{row['name']:<16} {row['url']:<32} {row['adapter']}")


@skills.command()
@config_option
@format_option()
def status(config: str | None, output: str) -> int:
    """Which teachers answer, their levels, and what was drawn of each. Exit 1 where one does not answer."""
    from corpus.curriculum.skills import known_skills

    settings, home = _setting(config)
    rows = [_standing(home, skill) for skill in known_skills(settings).values()]
    if output == "json":
        show_json(rows)
    else:
        for row in rows:
            _show_standing(row)
    return 1 if any("fault" in row for row in rows) else 0


def _standing(home: "Home", skill: "Skill") -> dict[str, Any]:
    from core.errors import LoradError
    from corpus.curriculum.client import SkillAPIClient
    from store.skills import read_drawn

    row: dict[str, Any] = {"name": skill.name, "url": skill.settings.url, "adapter": skill.adapter}
    client = SkillAPIClient(url=skill.settings.url, timeout_s=STATUS_TIMEOUT_S, waits_s=())
    try:
        health, levels, drawn = client.health(), client.levels(), read_drawn(home, skill.name)
    except LoradError as error:
        return row | {"fault": error.what, "code": error.code, "hint": error.hint}
    row |= {"generator": health.generator, "version": health.version, "schema_id": health.schema_id, "levels": []}
    for offer in levels:
        seen = drawn.level(offer.level)
        told = {"level": offer.level, "title": offer.title, "seeds": offer.seeds, "next_seed": seen.next_seed, "rows_drawn": seen.rows}
        row["levels"].append(told | {"drawn_at": seen.at.isoformat() if seen.at else None})
    return row


def _show_standing(row: dict[str, Any]) -> None:
    if "fault" in row:
        click.echo(f"{row['name']}: {row['fault']}\n  what to do: {row['hint']}")
        return
    click.echo(f"{row['name']}: {row['generator']} {row['version']} at {row['url']}, rows of {row['schema_id']} for {row['adapter']}")
    for level in row["levels"]:
        left = f"{level['next_seed']:,} of {level['seeds']:,} seeds" if level["seeds"] else f"{level['next_seed']:,} seeds"
        click.echo(f"  level {level['level']:<3} {level['title']:<32} {level['rows_drawn']:>9,} rows drawn, {left}")


@skills.command()
@click.argument("name", required=False)
@config_option
def serve(name: str | None, config: str | None) -> None:
    """Serve the teacher NAME that ships, or both, until Ctrl-C or TERM; where the config gives its address on this machine, there."""
    from core.errors import UsageError
    from corpus.curriculum import services
    from corpus.curriculum.skills import TEACHERS

    if name is not None and name not in TEACHERS:
        hint = f"those that ship: {', '.join(TEACHERS)}; another's service is started by its maker"
        raise UsageError(f"no teacher {name!r} ships", hint=hint, code="SKILL_UNKNOWN")
    settings, _ = _setting(config)
    addresses = {each: _address(settings, each) for each in ([name] if name else TEACHERS)}
    services.serve([TEACHERS[each] for each in addresses], addresses, lambda who, url: click.echo(f"{who} teaches at {url}"))


def _address(config: "Config", name: str) -> tuple[str, int]:
    """Where a shipped teacher listens: its port on loopback, or the config's where that is on loopback too. Raises UsageError."""
    from core.errors import UsageError
    from corpus.curriculum.skills import skill_of

    url = skill_of(config, name).settings.url
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname not in LOOPBACK or parts.path:
        hint = "leave the url out, or give one such as http://127.0.0.1:8085; elsewhere, start it on that machine"
        raise UsageError(f"skills.{name}.url = {url!r} is not on this machine's loopback", hint=hint, code="SKILL_ELSEWHERE")
    return ("127.0.0.1" if parts.hostname == "localhost" else parts.hostname), parts.port or 80


@skills.command()
@click.argument("name", required=False)
@click.option("--count", type=click.IntRange(1, 100_000), required=True, metavar="N", help="Rows of each skill.")
@click.option("--level", type=click.IntRange(min=1), metavar="L", help="Level of the puzzles; else the one that the skill is learnt at.")
@click.option("--seed", type=click.IntRange(min=0), metavar="S", help="First seed; else the first that was not drawn yet.")
@click.option("--force", is_flag=True, help="Draw seeds that were drawn before, and train on their rows once more.")
@config_option
@format_option()
def generate(name: str | None, config: str | None, output: str, **words: Any) -> None:
    """Draw rows of skill NAME, or of every skill, from its teacher; check each with the teacher's checker, and drop them into the inbox."""
    from core.errors import UsageError
    from corpus.curriculum.drawing import Order, draw_into_inbox
    from corpus.curriculum.skills import known_skills, skill_of
    from store.curriculum import read_course

    settings, home = _setting(config)
    chosen = [skill_of(settings, each) for each in ([name] if name else known_skills(settings))]
    if len(chosen) > 1 and words["seed"] is not None:
        raise UsageError("--seed needs the name of a skill", hint="for example `lorad skills generate binary --count 100 --seed 3`", code="SKILL_UNKNOWN")
    home.prepare()
    told = []
    for skill in chosen:
        course = read_course(home, skill.name)
        level = words["level"] or (course.level if course is not None else skill.settings.level)
        order = Order(count=words["count"], level=level, seed=words["seed"], again=words["force"])
        batch, dropped = draw_into_inbox(home, settings, skill, order, datetime.now(UTC))  # noqa: TID251 - a person draws now
        told.append(batch.lineage | {"rows": len(batch.rows), "left_out": batch.left_out, "adapter": skill.adapter, "file": str(dropped.path)})
        if output != "json":
            _show_drawn(told[-1])
    if output == "json":
        show_json(told)


def _show_drawn(row: dict[str, Any]) -> None:
    left_out = ", ".join(f"{count} {why}" for why, count in row["left_out"].items() if count)
    first, last = row["first_seed"], row["last_seed"]
    told = f"seed {first}" if first == last else f"seeds {first} to {last}"
    click.echo(
        f"{row['skill']}: {row['rows']} rows of level {row['level']}, {told}; dropped as {row['file']}" + (f"; left out: {left_out}" if left_out else "")
    )


def _setting(config: str | None) -> tuple["Config", "Home"]:
    from store.config import ConfigLoader
    from store.config_file import config_path, home_of

    return ConfigLoader(config).load().config, home_of(config_path(config))
