"""`lorad iteration`: each round of the loop with its stages, criteria and what it waits for."""

from typing import TYPE_CHECKING

import click

from cli.asking import ask, say
from cli.options import config_option, format_option, show_json
from core.commands import CommandKind
from core.errors import UsageError
from core.iterations import STAGES, Criterion, Flag, Iteration, State, Weight
from store.config_file import config_path, home_of

if TYPE_CHECKING:
    from store.paths import Home

MARKS = {Flag.IN_PROGRESS: "…", Flag.PAUSED: "!", Flag.COMPLETED: "✓", Flag.FAILED: "✗"}


@click.group()
def iteration() -> None:
    """The rounds that the loop made by itself, from signals or a teacher to what serves."""


@iteration.command("list")
@click.option("--adapter", default="", metavar="PERSONA/DOMAIN", help="Only this one's.")
@click.option("--open", "only_open", is_flag=True, help="Only those that have not ended.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="The newest so many.")
@config_option
@format_option()
def list_them(adapter: str, only_open: bool, limit: int, config: str | None, output: str) -> None:
    """The iterations, oldest first."""
    from itertools import islice

    from core.names import parse_adapter
    from store.codec import to_plain
    from store.iterations import newest_iterations

    wanted = parse_adapter(adapter) if adapter else ""
    known = newest_iterations(home_of(config_path(config)))
    found = list(islice((one for one in known if wanted in ("", one.adapter) and (one.is_open or not only_open)), limit))[::-1]
    if output == "json":
        show_json([to_plain(one) for one in found])
        return
    if not found:
        click.echo("no iteration" + (" is open" if only_open else "; the loop makes one for each drop that a trigger or a teacher made"))
    for one in found:
        click.echo(f"{one.id}  {one.adapter:<24} {standing(one)}")


@iteration.command()
@click.argument("name", metavar="[ITERATION]", default="")
@config_option
@format_option()
def show(name: str, config: str | None, output: str) -> None:
    """One iteration, the newest without a name: its stages with their flags, criteria and numbers, and what it waits for."""
    from store.codec import to_plain

    found = _find(home_of(config_path(config)), name)
    if output == "json":
        show_json(to_plain(found) | {"stage": _number(found), "of": len(STAGES)})
        return
    click.echo("\n".join(page(found)))


@iteration.command("continue")
@click.argument("name", metavar="ITERATION")
@click.option("--reason", default="", help="Why; stands in the journal.")
@config_option
@format_option()
def go_on(name: str, reason: str, config: str | None, output: str) -> None:
    """Let an iteration go on that waits for a person: what was missed is taken as it is."""
    _say("continue", name, reason, config, output)


@iteration.command()
@click.argument("name", metavar="ITERATION")
@click.option("--reason", default="", help="Why; stands in the journal.")
@config_option
@format_option()
def stop(name: str, reason: str, config: str | None, output: str) -> None:
    """End an iteration: its job is cancelled, or where its release is live, the one before comes back."""
    _say("stop", name, reason, config, output)


def _say(what: str, name: str, reason: str, config: str | None, output: str) -> None:
    home = home_of(config_path(config))
    found = _find(home, name)
    say(ask(home, CommandKind.ITERATION, adapter=found.adapter, reason=reason, details={"what": what, "iteration": found.id}), output)


# ---------------------------------------------------------------- what is shown


def standing(one: Iteration) -> str:
    """Where an iteration is, in a line."""
    if not one.is_open:
        return f"{one.state.value}: {one.reason}" if one.reason else one.state.value
    flag = Flag.PAUSED if one.pause else Flag.IN_PROGRESS
    waits = f"; waits for {one.waits}" if one.waits else ""
    return f"{one.state.value} ({_number(one)} of {len(STAGES)}), {flag.value}{waits}"


def page(one: Iteration) -> list[str]:
    """An iteration as lines for a terminal."""
    made = f"trigger {one.of!r}, {one.signals} signals" if one.made_by == "feedback" else f"teacher of {one.of!r}"
    lines = [f"{one.id}  {one.adapter}", f"  {standing(one)}", f"  begun {one.begun_at:%Y-%m-%d %H:%M:%S}Z by {made}; drop {one.drop} ({one.file})"]
    lines += [f"  job {one.job}"] if one.job else []
    lines += [f"  release v{one.version} {one.release[:12]}"] if one.release else []
    for stage in STAGES:
        part = one.stages.get(stage)
        if part is None:
            lines.append(f"  · {stage.value}")
            continue
        count = f"  {part.done:,} of {part.total:,} {part.unit}" if part.total else f"  {part.done:,} {part.unit}" if part.done else ""
        waived = f"  (waived by {part.waived})" if part.waived else ""
        lines.append(f"  {MARKS[part.flag]} {stage.value:<10} {part.flag.value}{count}{waived}" + (f"  {part.reason}" if part.reason else ""))
        lines += [f"      {_criterion(criterion)}" for criterion in part.criteria]
    if one.back:
        lines.append(f"  goes back: {one.back}")
    if one.pause:
        lines += [f"  a person decides: {one.pause}", f"  what to do: `lorad iteration continue {one.id}`, or `lorad iteration stop {one.id}`"]
    return lines


def _criterion(one: Criterion) -> str:
    if one.met is None:
        return f"? {one.name}: not measured" + (f" ({one.why})" if one.why else "")
    return f"{'+' if one.met else '-'} {one.words}" + ("" if one.met or one.weight is not Weight.WARNS else "; only a warning")


def _number(one: Iteration) -> int:
    """Which of the stages it is in, or was in last."""
    return max((STAGES.index(stage) + 1 for stage in one.stages if isinstance(stage, State) and stage in STAGES), default=1)


def _find(home: "Home", name: str) -> Iteration:
    """The iteration of this id, or of the job or drop of this id, or whose id begins so; the newest without a name. Raises UsageError."""
    from store.iterations import newest_iterations

    known = list(newest_iterations(home))
    if not name and known:
        return known[0]
    found = [one for one in known if name in (one.id, one.job, one.drop)] or [
        one for one in known if one.id.startswith(name) or one.id.removeprefix("iteration-").startswith(name)
    ]
    if len(found) != 1:
        what = (f"no iteration {name!r}" if name else "there is no iteration yet") if not found else f"{name!r} is the beginning of {len(found)} iterations"
        raise UsageError(what, hint="`lorad iteration list` names them", code="ITERATION_UNKNOWN")
    return found[0]
