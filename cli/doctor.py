"""`lorad doctor`: whether everything that lorad needs is as it should be, and what to do where it is not."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import config_option, format_option, show_json

if TYPE_CHECKING:
    from cli.checkups.registry import Answer, Finding, Visit

COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}


@click.command()
@click.option("--fix", is_flag=True, help="Do what is safe: make missing folders and keys, close keys to others, delete old half-written files.")
@click.option("--full", is_flag=True, help="Read every byte of the base model, however large.")
@config_option
@format_option()
def doctor(fix: bool, full: bool, config: str | None, output: str) -> int:
    """Check machine, GPU, disk, permissions, config, base, targets, clock, units and versions.

    Each line says ok, note or problem, with a stable code and what to do. Exit 0 where no problem is left, else 2. Nothing
    is fetched, and nothing that lorad or a person made is deleted.
    """
    answer = look(config, fix=fix, full=full)
    if output == "json":
        show_json(as_plain(answer))
    else:
        click.echo(as_text(answer))
    return 2 if answer.problems else 0


def look(config: str | None, *, fix: bool = False, full: bool = False) -> "Answer":
    """Everything that the checks find. Never raises LoradError: a config that is wrong is a finding."""
    from cli import checkups
    from cli.checkups.registry import examine

    checkups.load()
    return examine(visit_of(config, full), fix=fix)


def visit_of(config: str | None, full: bool) -> "Visit":
    """What is to be looked at, as far as the config tells it."""
    from cli.checkups.registry import Visit
    from core.errors import LoradError
    from store.config import ConfigLoader
    from store.config_file import config_path, home_in_force
    from store.paths import Home

    path = config_path(config)
    now = datetime.now(UTC)  # noqa: TID251 - a person asks now
    try:
        resolved = ConfigLoader(path).load()
    except LoradError as error:
        home = _home_or_none(lambda: home_in_force(path))
        return Visit(config_path=path, now=now, full=full, trouble=error, home=home, daemon_runs=_runs(home))
    home = Home(Path(resolved.config.home))
    return Visit(config_path=path, now=now, full=full, config=resolved.config, warnings=resolved.warnings, home=home, daemon_runs=_runs(home))


def _home_or_none(find: Any) -> Any:
    from core.errors import LoradError

    try:
        return find()
    except (LoradError, OSError):
        return None


def _runs(home: Any) -> bool:
    from store.locks import is_locked

    try:
        return home is not None and is_locked(home.lock)
    except OSError:
        return False


def as_plain(answer: "Answer") -> dict[str, Any]:
    """For JSON: {problems, findings: [{code, level, text, todo, done}]}."""
    rows = [{"code": one.code, "level": one.level.value, "text": one.text, "todo": one.todo, "done": one.done} for one in answer.findings]
    return {"problems": answer.problems, "findings": rows}


def as_text(answer: "Answer") -> str:
    """A line for each finding, a second one for what to do or was done."""
    lines = [line for one in answer.findings for line in _lines(one)]
    mendable = sum(one.mend is not None and not one.done for one in answer.findings)
    end = f"{answer.problems} problem{'s' if answer.problems != 1 else ''}" if answer.problems else "everything is as it should be"
    return "\n".join([*lines, end + (f"; `lorad doctor --fix` mends {mendable} of what is above" if mendable else "")])


def _lines(one: "Finding") -> list[str]:
    lines = [f"{click.style(f'{one.level.value:<8}', fg=COLOURS[one.level.value])} {one.code:<22} {one.text}"]
    if one.done:
        return [*lines, f"{'':31} {click.style('done:', fg='green')} {one.done}"]
    return [*lines, f"{'':31} what to do: {one.todo}"] if one.todo else lines
