"""`lorad fix`: a mended copy of a file, and what was done to get there."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.check import echo, echo_json, show, view_of
from cli.meter import Meter
from cli.options import format_option
from cli.setting import Asked, Target, gate_options, target_of
from core.errors import UsageError
from validation.findings import Level, printable

if TYPE_CHECKING:
    from validation import DataValidator
    from validation.examination import Examined
    from validation.repairs.mending import Examine, Mended


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, metavar="OUT", type=click.Path(path_type=Path), help="The mended file; FILE itself is never changed.")
@click.option("--repair", "repairs", multiple=True, metavar="NAME", help="Apply this repair too; repeatable. The names are in the guide to fixing a file.")
@click.option("--ids", default="", metavar="D01,N02", help="With --repair drop: leave out the rows that have these findings.")
@click.option("--lines", default="", metavar="3,7-9", help="With --repair drop: leave out the rows in these lines of FILE.")
@click.option("--force", is_flag=True, help="Replace OUT where it exists.")
@gate_options
@format_option()
def fix(file: Path, out: Path, repairs: tuple[str, ...], ids: str, lines: str, force: bool, asked: Asked, output: str) -> int:
    """Write a mended copy of a file: exit 0 the copy is accepted, 2 it is refused still.

    Repairs that lose nothing are applied wherever the report on FILE offers them: bom, unroll, decode, convert, columns,
    nulls, roles, mojibake; convert only where --schema, the sidecar or the config says the schema. Those that guess or
    lose something are asked for by name: --repair encoding, redact, drop, dedup.
    """
    from validation.repairs.catalogue import chosen
    from validation.repairs.mending import Wish, mend

    target = target_of(file, asked)
    wish = Wish(
        repairs=chosen(repairs),
        ids=tuple(id.strip().upper() for id in ids.split(",") if id.strip()),
        lines=line_numbers(lines),
        level=Level(target.level),
        force=force,
        is_schema_said=target.is_schema_said,
    )
    meter = Meter(str(file))
    try:
        mended = mend(target.file, out, target.spec, wish, _examine(target, asked, out, meter))
    finally:
        meter.clear()
    mended = replace(mended, file=target.name)
    if output == "json":
        echo_json(mended.to_plain())
    else:
        echo(summary(mended))
        show(mended.report, output, view_of(target, str(out)))
    return 2 if mended.report.verdict == "refused" else 0


def _examine(target: Target, asked: Asked, out: Path, meter: Meter) -> "Examine":
    from validation.examination import Setting

    @cache
    def validator(of_file: bool, keep_rows: bool) -> "DataValidator":
        # The copy is made in a folder of its own; its pictures are those beside its place, or in the drop that it came from.
        beside = target.file.parent if of_file or Path(target.named).is_dir() else out.parent
        images = asked.images or str(beside)
        return target_of(Path(target.named), replace(asked, images=images), Setting(keep_rows=keep_rows, on_progress=meter, options=target.options)).validator

    def examine(path: Path, level: Level, keep_rows: bool) -> "Examined":
        of_file = path == target.file
        name = target.name if of_file else str(out)
        return validator(of_file, keep_rows).examine(path, target.schema_id, level, name=name, columns=target.columns)

    return examine


def line_numbers(text: str) -> tuple[int, ...]:
    """`3,7-9` as numbers. Raises UsageError."""
    found: list[int] = []
    for word in filter(None, (word.strip() for word in text.split(","))):
        first, dash, last = word.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or not 1 <= int(first) <= int(last or first):
            raise UsageError(f"--lines {text!r}: {word!r} is no line", hint="write line numbers with commas between: --lines 3,7-9", code="LINES_SYNTAX")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


def summary(mended: "Mended") -> str:
    """What was done, repair by repair, and the count of rows: in = out + left out."""
    from validation.repairs.catalogue import REPAIRS

    lines = [f"{mended.file} -> {mended.out}", ""]
    for done in mended.applied:
        more = ", …" if done.rows > len(done.lines) else ""
        rows = f"{done.rows:,} row{'' if done.rows == 1 else 's'}, line{'' if done.rows == 1 else 's'} {', '.join(map(str, done.lines))}{more}"
        lines.append(f"{done.name:<9}{REPAIRS[done.name].title}: {rows}")
        if done.before or done.after:
            lines.append(f"{'':9}{done.before or '(not shown)'}  ->  {done.after or '(taken away)'}")
    if not mended.applied:
        lines.append("nothing to mend: the copy is the file, byte for byte")
    lines += [f"{'':9}{note}" for note in mended.notes]
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in mended.dropped.items())
    left_out = f"{mended.rows_in - mended.rows_out:,} left out" + (f" ({reasons})" if reasons else "")
    lines += ["", f"Rows: {mended.rows_in:,} in = {mended.rows_out:,} out + {left_out}", ""]
    return "\n".join(printable(line) for line in lines)
