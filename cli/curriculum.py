"""`lorad curriculum`: how far skills are learnt, level by level."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from cli.options import config_option, format_option, show_json

if TYPE_CHECKING:
    from core.config import Config
    from core.curriculum import Course, Evaluation, Move
    from corpus.curriculum.skills import Skill
    from store.paths import Home

HEIGHT = 10  # lines of a plot
NEWEST = 72  # evaluations that a plot shows at most


@click.group()
def curriculum() -> None:
    """Show how far skills are learnt; set a level."""


@curriculum.command()
@click.argument("name", required=False)
@config_option
@format_option()
def status(name: str | None, config: str | None, output: str) -> None:
    """Level, accuracy and baseline of skill NAME, or of every skill; what was drawn last, and what failed."""
    settings, home = _setting(config)
    rows = [_standing(settings, home, skill) for skill in _chosen(settings, name)]
    if output == "json":
        show_json({"auto_generate": settings.auto_generate.model_dump(mode="json"), "skills": rows})
        return
    for row in rows:
        _show_standing(row)
    if not settings.auto_generate.enabled:
        click.echo("nothing is evaluated or drawn by itself: auto_generate.enabled is false")


@curriculum.command("set")
@click.argument("name")
@click.option("--level", type=click.IntRange(min=1), required=True, metavar="L", help="Level to go on at.")
@config_option
@format_option()
def set_level(name: str, level: int, config: str | None, output: str) -> None:
    """Let skill NAME go on at a level. Its evaluations are counted anew; what had failed is tried again at once."""
    from cli.asking import ask, say
    from core.commands import CommandKind
    from core.errors import UsageError
    from corpus.curriculum.client import SkillAPIClient, TeacherError
    from corpus.curriculum.skills import skill_of

    settings, home = _setting(config)
    skill = skill_of(settings, name)
    try:
        levels = [offer.level for offer in SkillAPIClient(url=skill.settings.url, timeout_s=3.0, waits_s=()).levels()]
    except TeacherError:  # not there now: the next evaluation says whether it has the level
        levels = [level]
    if level not in levels:
        raise UsageError(f"the teacher of {name} has no level {level}", hint=f"its levels: {', '.join(map(str, levels))}", code="SKILL_LEVEL")
    say(ask(home, CommandKind.CURRICULUM, adapter=skill.adapter, details={"what": "set", "skill": name, "level": str(level)}), output)


@curriculum.command()
@click.argument("name")
@config_option
@format_option()
def history(name: str, config: str | None, output: str) -> None:
    """Every evaluation and move of skill NAME, oldest first."""
    from core.curriculum import Evaluation
    from store.codec import to_plain

    entries = _entries(config, name)
    if output == "json":
        show_json([to_plain(entry) | ({"accuracy": entry.accuracy} if isinstance(entry, Evaluation) else {}) for entry in entries])
        return
    for entry in entries:
        when = f"{entry.at:%Y-%m-%d %H:%M}"
        if isinstance(entry, Evaluation):
            click.echo(f"{when}  level {entry.level}  {_who(entry):<24} {_result(entry)}")
        else:
            click.echo(f"{when}  level {entry.before} -> {entry.after}: {entry.why}")
    if not entries:
        click.echo(f"nothing was evaluated of {name} yet")


@curriculum.command()
@click.argument("name")
@config_option
@format_option()
def plot(name: str, config: str | None, output: str) -> None:
    """Accuracy of skill NAME over time, in the terminal: what was live, the base's own, and the level."""
    points = _points(_entries(config, name))
    if output == "json":
        show_json(points)
        return
    if not points:
        click.echo(f"nothing was evaluated of {name} yet")
        return
    click.echo("\n".join(drawn(points[-NEWEST:])))


# ---------------------------------------------------------------- status


def _standing(config: "Config", home: "Home", skill: "Skill") -> dict[str, Any]:
    from core.curriculum import is_mastered
    from store.curriculum import read_course

    course = read_course(home, skill.name)
    row: dict[str, Any] = {
        "skill": skill.name,
        "adapter": skill.adapter,
        "level": course.level if course else skill.settings.level,
        "begun": course is not None,
    }
    if course is None:
        return row
    base = course.baselines.get(course.level)
    row |= {
        "levels": list(course.levels),
        "since": course.since.isoformat(),
        "mastered": is_mastered(course, skill.settings),
        "evaluations": [_plain(one) for one in course.evaluations],
        "needs": {"up_share": skill.settings.up_share, "up_evaluations": skill.settings.up_evaluations, "down_share": skill.settings.down_share},
        "baseline": _plain(base) if base is not None else None,
        "drawn": {"file": course.drawn, "at": course.drawn_at.isoformat() if course.drawn_at else None, "next_at": _next_draw(config, course)},
        "next": _next(config, home, skill, course),
        "troubles": [{"code": one.code, "message": one.message, "at": one.at.isoformat(), "again_at": one.until.isoformat()} for one in _troubles(course)],
    }
    return row


def _next(config: "Config", home: "Home", skill: "Skill", course: "Course") -> str:
    """What the daemon does next for the skill and why, by how it said last that things stand; in words."""
    from core.curriculum import SkillSeen, choose
    from daemon.status import read_status
    from store.iterations import stopped

    seen = read_status(home)
    if seen is None:
        return "no daemon has run here yet"
    live = seen["live"].get(skill.adapter) or {}
    words = f"a person has stopped {skill.adapter}: `lorad continuous start` lets it go on" if skill.adapter in stopped(home) else seen["schedule"]["paused"]
    waiting = int(seen["queue"].get("queued", 0)) + sum(seen["drops"].values())
    facts = SkillSeen(release=live.get("release") or "", waiting=waiting, stopped=words or "")
    choice = choose(course, skill.settings, config.auto_generate, facts, datetime.now(UTC))  # noqa: TID251 - a person asks now
    return f"{choice.does.value}: {choice.why}"


def _plain(one: "Evaluation") -> dict[str, Any]:
    return {
        "at": one.at.isoformat(),
        "release": one.release,
        "version": one.version,
        "rows": one.rows,
        "right": one.right,
        "accuracy": one.accuracy,
        "loss": one.loss,
    }


def _next_draw(config: "Config", course: "Course") -> str | None:
    return (course.drawn_at + timedelta(seconds=config.auto_generate.cooldown_s)).isoformat() if course.drawn_at is not None else None


def _troubles(course: "Course") -> list[Any]:
    return [trouble for trouble in (course.trouble, course.draw_trouble) if trouble is not None]


def _show_standing(row: dict[str, Any]) -> None:
    if not row["begun"]:
        click.echo(f"{row['skill']}: level {row['level']} for {row['adapter']}; not begun, a daemon with auto_generate.enabled begins it")
        return
    of = f" of {max(row['levels'])}" if row["levels"] else ""
    click.echo(f"{row['skill']}: level {row['level']}{of} for {row['adapter']} since {row['since'][:16]}{', mastered' if row['mastered'] else ''}")
    needs = row["needs"]
    shares = ", ".join(f"{one['accuracy']:.0%} of {one['rows']}" for one in row["evaluations"]) or "none yet"
    click.echo(f"  evaluations  {shares}; up at {needs['up_share']:.0%} over {needs['up_evaluations']}, down below {needs['down_share']:.0%}")
    if row["baseline"] is not None:
        click.echo(f"  the base     {row['baseline']['accuracy']:.0%} of {row['baseline']['rows']}")
    if row["drawn"]["at"]:
        click.echo(f"  drawn        {row['drawn']['file'] or 'asked for'}, {row['drawn']['at'][:16]}; not again before {row['drawn']['next_at'][:16]}")
    click.echo(f"  next         {row['next']}")
    for trouble in row["troubles"]:
        click.echo(f"  {trouble['code']}: {trouble['message']}; tried again at {trouble['again_at'][:16]}")


# ---------------------------------------------------------------- history and plot


def _entries(config: str | None, name: str) -> "list[Evaluation | Move]":
    from corpus.curriculum.skills import skill_of
    from store.curriculum import course_history

    settings, home = _setting(config)
    return course_history(home, skill_of(settings, name).name)


def _points(entries: "list[Evaluation | Move]") -> list[dict[str, Any]]:
    """The evaluations of what was live, each with the base's accuracy at its level, as far as it was known then."""
    from core.curriculum import Evaluation

    points, bases = list[dict[str, Any]](), dict[int, float]()
    for entry in entries:
        if not isinstance(entry, Evaluation):
            continue
        if not entry.release:
            bases[entry.level] = entry.accuracy
        if not entry.is_baseline:
            points.append(_plain(entry) | {"level": entry.level, "baseline": bases.get(entry.level)})
    return points


def drawn(points: list[dict[str, Any]]) -> list[str]:
    """The lines of a plot: a column for each evaluation, `*` its accuracy, `-` the base's at its level, the level below."""
    lines = []
    for height in range(HEIGHT, -1, -1):
        marks = "".join(_mark(point, height) for point in points)
        lines.append(f"{height * 100 // HEIGHT:>4} % |{marks}".rstrip())
    lines.append("       +" + "-" * len(points))
    lines.append(" level  " + "".join(str(point["level"] % 10) for point in points))
    first, last = (datetime.fromisoformat(points[place]["at"]).astimezone(UTC) for place in (0, -1))
    lines.append(f"        {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC; * what was live, - the base")
    return lines


def _mark(point: dict[str, Any], height: int) -> str:
    if round(point["accuracy"] * HEIGHT) == height:
        return "*"
    return "-" if point["baseline"] is not None and round(point["baseline"] * HEIGHT) == height else " "


def _who(one: "Evaluation") -> str:
    return f"v{one.version} ({one.release[:12]})" if one.release else "the base, to compare" if one.is_baseline else "the base"


def _result(one: "Evaluation") -> str:
    loss = f", loss {one.loss:.3f}" if one.loss is not None else ""
    return f"{one.right} of {one.rows} right, {one.accuracy:.0%}{loss}{' (made up: no model)' if one.made_up else ''}"


def _chosen(config: "Config", name: str | None) -> "list[Skill]":
    from corpus.curriculum.skills import known_skills, skill_of

    return [skill_of(config, name)] if name is not None else list(known_skills(config).values())


def _setting(config: str | None) -> "tuple[Config, Home]":
    from store.config import ConfigLoader
    from store.config_file import config_path, home_of

    return ConfigLoader(config).load().config, home_of(config_path(config))
