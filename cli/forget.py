"""`lorad forget`: rows, drops or whole sources go out of everything, and what learnt from them is made again without them."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.asking import ask
from cli.options import config_option, format_option, show_json
from core.commands import CommandKind
from core.errors import UsageError
from store.config_file import config_path, home_of

if TYPE_CHECKING:
    from core.forgets import Forget, Traces
    from store.paths import Home

PATIENCE_S = 60.0
MOST_NAMED = 6  # of one kind of thing in the plan


@click.group(invoke_without_command=True)
@click.option("--rows", multiple=True, metavar="DROP:LINES|FILE", help="Lines of a drop (DROP:3,8-10), or a file with the rows themselves.")
@click.option("--drop", "drops", multiple=True, metavar="DROP", help="A whole drop, by its id.")
@click.option("--source", "sources", multiple=True, metavar="NAME", help="All drops of a file name, or of a source that their sidecars name.")
@click.option("--reason", default="", help="Why; stands in the record and the journal.")
@click.option("--now", "at_once", is_flag=True, help="Retire the old releases at once; the newest that did not learn from it, or the base, answers meanwhile.")
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
@config_option
@format_option()
@click.pass_context
def forget(ctx: click.Context, /, rows: tuple[str, ...], drops: tuple[str, ...], sources: tuple[str, ...], **options: Any) -> None:
    """Forget rows, drops or sources: in drops, caches, runs, snapshots, releases, here and on every target.

    Adapters that learnt from them are trained again without them. A signed record says what was removed and when.
    """
    if ctx.invoked_subcommand is not None:
        return
    if not (rows or drops or sources):
        raise UsageError("nothing is named", hint="give --rows, --drop or --source; `lorad forget status` shows the orders", code="NOTHING_NAMED")
    home = home_of(config_path(options["config"]))
    wanted = {"drops": sorted({*_known(home, drops), *_of_sources(home, sources)}), "rows": sorted(set(_fingerprints(home, rows)))}
    order, found = _plan(home, wanted)
    if options["dry_run"]:
        _show_plan(order, found, options["output"])
        return
    if found.is_clean and not found.releases:
        raise UsageError("nothing under this home holds these rows", hint="`--dry-run` shows what is looked at", code="NOTHING_FOUND")
    details = {"wanted": json.dumps(wanted), "at_once": "yes" if options["at_once"] else ""}
    answer = ask(home, CommandKind.FORGET, PATIENCE_S, reason=options["reason"], details=details)
    if options["output"] == "json":
        show_json({"order": answer.made, "message": answer.message})
        return
    _show_plan(order, found, "text")
    click.echo(f"{answer.message}; `lorad forget status {answer.made}` tells how far it is")


@forget.command()
@click.argument("order", required=False, default="")
@config_option
@format_option()
def status(order: str, config: str | None, output: str) -> None:
    """The orders to forget and how far they are; of one, its signed record."""
    from store.forgets import read_orders, read_record

    home = home_of(config_path(config))
    orders = [one for one in read_orders(home) if not order or one.id.startswith(order) or one.id.removeprefix("forget-").startswith(order)]
    if order and not orders:
        raise UsageError(f"no order {order!r}", hint="`lorad forget status` names them", code="FORGET_UNKNOWN")
    records = [read_record(home, one.id) for one in orders]
    if output == "json":
        show_json(records[0] if order and len(records) == 1 else records)
        return
    if not records:
        click.echo("nothing was ever asked to be forgotten")
    for record in records:
        _show_record(record, whole=bool(order))


@forget.command()
@click.argument("order")
@config_option
@format_option()
def now(order: str, config: str | None, output: str) -> None:
    """Let an order wait for no new release any more: what learnt from the rows is retired at once."""
    answer = ask(home_of(config_path(config)), CommandKind.FORGET, PATIENCE_S, details={"now": order})
    if output == "json":
        show_json({"order": order, "message": answer.message})
    else:
        click.echo(answer.message)


# ---------------------------------------------------------------- what is named


def _known(home: "Home", drops: Sequence[str]) -> Iterator[str]:
    for drop in drops:
        if drop.strip(".") != drop or "/" in drop or not any((folder / drop).is_dir() for folder in (_accepted(home), home.rejected)):
            raise UsageError(f"no accepted or rejected drop {drop!r}", hint="`ls drops/accepted` under home names them", code="DROP_UNKNOWN")
        yield drop


def _of_sources(home: "Home", sources: Sequence[str]) -> Iterator[str]:
    """The drops whose file has this name, or whose sidecar names this source. Raises UsageError where there are none."""
    from core.records import Claim
    from store.codec import read_if_whole
    from store.drops import CLAIM, sidecar_name

    for source in sources:
        found = []
        for folder in sorted((*_accepted(home).glob("*"), *home.rejected.glob("*"))):
            claim = read_if_whole(Claim, folder / CLAIM)
            named = [_source_in(folder / name) for name in ("original.job.json", sidecar_name(claim.file) if claim else "")]
            if claim is not None and (source in (claim.file, claim.source) or source in named):
                found.append(folder.name)
        if not found:
            raise UsageError(f"no drop is of {source!r}", hint="name a file as it was dropped, or the `source` of a sidecar", code="SOURCE_UNKNOWN")
        yield from found


def _source_in(sidecar: Path) -> str:
    from core.jsonc import loads

    try:
        values = loads(sidecar.read_text())
    except (OSError, ValueError):
        return ""
    return str(values.get("source", "")) if isinstance(values, dict) else ""


def _fingerprints(home: "Home", rows: Sequence[str]) -> Iterator[str]:
    """By what rows are found again that are named by drop and lines, or that stand in a file. Raises UsageError."""
    from store.rowprints import fingerprint, lines_of, marks_of

    for name in rows:
        drop, colon, numbers = name.rpartition(":")
        packed = _accepted(home) / drop / "rows" / "rows.jsonl.zst" if drop.strip(".") and "/" not in drop else None
        if colon and packed is not None and packed.is_file():
            wanted = _numbers(numbers)
            found = {number: line for number, line in enumerate(lines_of(packed), 1) if number in wanted}
            if missing := sorted(wanted - {number for number, line in found.items() if fingerprint(line)}):
                raise UsageError(f"{drop} has no row in line {missing[0]}", hint="lines are counted from 1", code="LINE_UNKNOWN")
            yield from (mark for line in found.values() for mark in marks_of(line))
        elif Path(name).is_file():
            yield from (mark for line in lines_of(Path(name)) for mark in marks_of(line))
        else:
            raise UsageError(f"{name!r} is neither DROP:LINES of an accepted drop nor a file", hint="for example drop-…:3,8-10", code="ROWS_UNKNOWN")


def _numbers(text: str) -> set[int]:
    """`3,8-10` as numbers. Raises UsageError."""
    found: set[int] = set()
    for piece in text.split(","):
        first, dash, last = piece.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise UsageError(f"lines {text!r} are no numbers", hint="for example 3,8-10", code="LINES_SYNTAX")
        found |= set(range(int(first), int(last if dash else first) + 1))
    return found


def _accepted(home: "Home") -> Path:
    return home.root / "drops" / "accepted"


# ---------------------------------------------------------------- what is shown


def _plan(home: "Home", wanted: dict[str, list[str]]) -> "tuple[Forget, Traces]":
    from core.forgets import Forget
    from store.child import clock
    from store.traces import Search

    order = Forget(id="plan", at=clock(), rows=tuple(wanted["rows"]), drops=tuple(wanted["drops"]))
    return order, Search.of(home, order).run()


def _show_plan(order: "Forget", found: "Traces", output: str) -> None:
    from store.codec import to_plain
    from store.forgets import OUTSIDE
    from store.rowprints import is_sense

    if output == "json":
        rows = sum(not is_sense(mark) for mark in order.rows)
        show_json({"named": {"rows": rows, "drops": list(order.drops)}, "found": to_plain(found), "outside": list(OUTSIDE)})
        return
    for part in found.parts:
        after = f"{part.left} stay, in a drop that takes its place" if part.left else "nothing of it stays"
        click.echo(f"drop      {part.drop}  {part.adapter}  {part.forgotten} rows go, {after}")
    _list("adapter", sorted({part.adapter for part in found.parts}), "is trained again without them")
    _list("release", found.releases, "is retired, then its bytes go, here and on every target")
    _list("job", found.jobs, "its weights, scores, samples and logs go")
    for place in found.places:
        if place.what != "runs":
            click.echo(f"{place.what:<9} {place.path}  {f'{place.rows} rows are cut out' if place.cut else 'goes'}")
    _list("coming", found.coming, "holds them too: taken care of once the gate has it")
    if found.is_clean and not found.releases:
        click.echo("nothing under this home holds these rows")
    for sentence in OUTSIDE:
        click.echo(f"not reached: {sentence}")


def _list(what: str, names: Iterable[str], then: str) -> None:
    named = list(names)
    for name in named[:MOST_NAMED]:
        click.echo(f"{what:<9} {name}  {then}")
    if len(named) > MOST_NAMED:
        click.echo(f"{what:<9} and {len(named) - MOST_NAMED} more")


def _show_record(record: dict[str, Any], *, whole: bool) -> None:
    ended = f" {str(record['ended_at'])[:19]}" if record["ended_at"] else ""
    click.echo(f"{record['id']}  {record['state']}{ended}  stage {record['stage']}  {record['reason']}".rstrip())
    if record["waits"]:
        click.echo(f"  waits {record['waits']}")
    if not whole:
        return
    for part in record["parts"]:
        click.echo(
            f"  drop {part['drop']}: {part['forgotten']} rows forgotten, {part['left']} stay" + (f" in {part['replaced_by']}" if part["replaced_by"] else "")
        )
    for adapter, job in record["retraining"].items():
        click.echo(f"  {adapter} is trained again by {job}")
    for one in record["removed"]:
        click.echo(f"  {one['at'][:19]}  removed {one['what']} {one['name']}")
    for target, releases in record["confirmed"].items():
        click.echo(f"  {target} has confirmed {len(releases)} of {len(record['releases'])} releases as removed")
