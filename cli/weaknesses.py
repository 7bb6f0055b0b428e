"""`lorad weaknesses`: what an adapter gets wrong again and again, and what can be done about it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import config_option, format_option, show_json

if TYPE_CHECKING:
    from core.config import Config
    from core.weaknesses import Weakness, Weaknesses
    from store.paths import Home

SHOWN = 100  # letters of an example
LESSON = 200  # rows


@click.group()
def weaknesses() -> None:
    """Kinds of questions that an adapter answers wrong: list them, show one, teach against it."""


@weaknesses.command("list")
@click.argument("adapter", required=False)
@click.option("--again", is_flag=True, help="Look for them now; else what was found last.")
@config_option
@format_option()
def list_them(adapter: str | None, again: bool, config: str | None, output: str) -> None:
    """The weaknesses of ADAPTER, or of every adapter, the largest first: by signals, failed suite items, and unseen rows of its skills."""
    from core.names import parse_adapter
    from store.codec import to_plain

    settings, home = _setting(config)
    name = parse_adapter(adapter) if adapter else ""
    found = _looked_for(settings, home, name) if again else _known(home, name)
    if output == "json":
        show_json([to_plain(one) for one in found])
        return
    for one in found:
        _show_all(one)
    if not found:
        click.echo("nobody has looked yet; `lorad weaknesses list ADAPTER --again` does, and the daemon does by itself")


@weaknesses.command()
@click.argument("name")
@config_option
@format_option()
def show(name: str, config: str | None, output: str) -> None:
    """The weakness NAME: examples, what they have in common, what can be done."""
    from store.codec import to_plain

    _, home = _setting(config)
    one = _named(home, name)
    if output == "json":
        show_json(to_plain(one))
        return
    click.echo(f"{one.name} of {one.adapter}: {one.size} failures ({_origins(one)}), known since {one.since:%Y-%m-%d %H:%M}")
    if one.pattern:
        click.echo(f"in common: {one.pattern}")
    for example in one.examples:
        click.echo(f"\n{example.ref}\n  asked  {_short(example.question)}")
        for told, text in (("right ", example.right), ("said  ", example.wrong)):
            if text:
                click.echo(f"  {told} {_short(text)}")
    for lesson in one.taught:
        click.echo(f"\ntaught {lesson.at:%Y-%m-%d %H:%M}: {lesson.rows} rows in {lesson.file}")
    click.echo(f"\nnext: lorad weaknesses teach {one.name}: {_does(one)}")


@weaknesses.command()
@click.argument("name")
@click.option("--count", type=click.IntRange(1, 100_000), default=LESSON, show_default=True, metavar="N", help="Rows that a teacher is asked for.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write the template there; else it is printed.")
@config_option
@format_option()
def teach(name: str, count: int, out: Path | None, config: str | None, output: str) -> None:
    """Ask the teacher of the skill for rows against the weakness NAME and drop them; without a teacher, give a template to fill in."""
    settings, home = _setting(config)
    one = _named(home, name)
    told = _from_teacher(settings, home, one, count) if one.skill else _template(one, out)
    if output == "json":
        show_json(told)
    elif one.skill:
        click.echo(f"{one.name}: {told['rows']} rows of {told['skill']}, level {told['level']}; dropped as {told['file']}")
    elif out is None:
        click.echo(told["template"], nl=False)
    else:
        click.echo(f"{out} has {told['rows']} rows to fill in; then: lorad drop {out} --adapter {one.adapter}")


def _from_teacher(settings: "Config", home: "Home", one: "Weakness", count: int) -> dict[str, Any]:
    from core.weaknesses import Taught
    from corpus.curriculum.drawing import Order, draw_into_inbox
    from corpus.curriculum.skills import skill_of
    from store.curriculum import read_course
    from store.weaknesses import finding, read_weaknesses, write_weaknesses

    now = datetime.now(UTC)  # noqa: TID251 - a person teaches now
    skill = skill_of(settings, one.skill)
    course = read_course(home, skill.name)
    level = one.level or (course.level if course is not None else skill.settings.level)
    home.prepare()
    with finding(home, one.adapter):
        batch, dropped = draw_into_inbox(home, settings, skill, Order(count=count, level=level), now)
        found = read_weaknesses(home, one.adapter)
        if found is not None:
            write_weaknesses(home, found.with_lesson(one.name, Taught(at=now, rows=len(batch.rows), file=dropped.path.name)))
    return {"weakness": one.name, "skill": skill.name, "level": level, "rows": len(batch.rows), "file": str(dropped.path), "adapter": skill.adapter}


def _template(one: "Weakness", out: Path | None) -> dict[str, Any]:
    from feedback.weaknesses import template_lines

    text = template_lines(one)
    if out is not None:
        out.write_text(text, encoding="utf-8")
    return {"weakness": one.name, "rows": text.count("\n"), "adapter": one.adapter, "template": text}


def _looked_for(settings: "Config", home: "Home", adapter: str) -> "list[Weaknesses]":
    """Look now, at one adapter or at all that have feedback or a release. Raises as `feedback.weaknesses.find` does, and without a sentence model."""
    from core.errors import LoradError
    from core.names import SENTENCE_MODEL
    from feedback.weaknesses import Search, find
    from store.bases import models_dir
    from store.embedding import PULL
    from store.feedback import read_shelf
    from store.seals import is_sealed
    from store.vault import live_of

    embedder = models_dir(settings) / SENTENCE_MODEL
    if not is_sealed(embedder):
        raise LoradError(f"{SENTENCE_MODEL} is not here: failures are compared by what they mean", hint=f"`{PULL}`", code="SENTENCE_MODEL_MISSING")
    now = datetime.now(UTC)  # noqa: TID251 - a person asks now
    names = [adapter] if adapter else sorted({*read_shelf(home).counts(), *live_of(home)})
    demand, taught = settings.feedback.require_consent, _skills(settings)
    searches = (Search(adapter=name, embedder=str(embedder), demand_consent=demand, skills=taught.get(name, ())) for name in names)
    return [find(home, search, now) for search in searches]


def _skills(settings: "Config") -> dict[str, tuple[str, ...]]:
    from corpus.curriculum.skills import skills_of

    return skills_of(settings)


def _known(home: "Home", adapter: str) -> "list[Weaknesses]":
    from store.weaknesses import all_weaknesses

    return [one for one in all_weaknesses(home) if adapter in ("", one.adapter)]


def _named(home: "Home", name: str) -> "Weakness":
    """The weakness of that name, or ADAPTER:NAME where several adapters have one. Raises UsageError."""
    from core.errors import UsageError

    adapter, _, bare = name.rpartition(":")
    everything = _known(home, adapter)
    found = [one for each in everything if (one := each.named(bare)) is not None]
    if len(found) == 1:
        return found[0]
    if found:
        hint = f"name one of {', '.join(f'{one.adapter}:{one.name}' for one in found)}"
        raise UsageError(f"several adapters have a weakness {name!r}", hint=hint, code="WEAKNESS_UNKNOWN")
    known = ", ".join(dict.fromkeys(one.name for each in everything for one in each.found[:10]))
    raise UsageError(f"no weakness {name!r}", hint=f"known: {known}" if known else "`lorad weaknesses list --again` looks for them", code="WEAKNESS_UNKNOWN")


def _show_all(found: "Weaknesses") -> None:
    click.echo(f"{found.adapter}: {len(found.found)} kinds in {found.failures} failures, {found.alone} alone; {found.at:%Y-%m-%d %H:%M}")
    for one in found.found:
        taught = f"  taught {len(one.taught)} times" if one.taught else ""
        click.echo(f"  {one.name:<40} {one.size:>5}  {_origins(one):<28} {_short(one.pattern or one.examples[0].question)}{taught}")


def _origins(one: "Weakness") -> str:
    return ", ".join(f"{count} {origin}" for origin, count in one.origins.items())


def _does(one: "Weakness") -> str:
    if one.skill:
        return f"rows of {one.skill}{f', level {one.level}' if one.level else ''}, from its teacher"
    return "a template to fill in (--out FILE), as no teacher has more of the kind"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"


def _setting(config: str | None) -> "tuple[Config, Home]":
    from store.config import ConfigLoader
    from store.config_file import config_path, home_of

    return ConfigLoader(config).load().config, home_of(config_path(config))
