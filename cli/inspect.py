"""`lorad inspect`: rows as the trainer sees them, token by token."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import config_option, format_option
from cli.setting import Asked, Target, target_of
from core.errors import LoradError, UsageError

if TYPE_CHECKING:
    from core.config import Config
    from core.records import Job
    from rendering.picture import Album, Picture, Unseen
    from rendering.profiles import DataProfile
    from rendering.rows import Row
    from rendering.tokens import Renderer
    from store.paths import Home
    from validation.checks.registry import Line

    Drawn = Iterator[Picture | Unseen]

FIRST_ROWS = 3
MOST_ROWS = 1_000
TEMPLATE_FINDINGS = {"TEMPLATE_RENDER": "N05", "TEMPLATE_NOT_PREFIX": "N07", "TEMPLATE_NO_EOS": "N08"}
NO_ROW = "-"  # in place of a finding's id


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """Which rows are drawn, and with what."""

    frame: "Album"  # still without rows
    base: Path
    lines: tuple[int, ...]  # empty: the first few
    profile: "DataProfile"
    last_turn_only: bool

    @classmethod
    def of(cls, base: Path, lines: tuple[int, ...], frame: "Album", config: "Config | None") -> "_View":
        """Of a base model's folder, under the profile of the config. Raises ConfigError."""
        from core.recipe import ProfileConfig
        from rendering.profiles import profile_of

        profile = profile_of(config.profile, config.profiles) if config else profile_of(ProfileConfig(), {})
        return cls(frame=frame, base=base, lines=lines, profile=profile, last_turn_only=bool(config and config.training.last_turn_only))


@click.command()
@click.argument("source", metavar="FILE|JOB")
@click.option("--rows", metavar="1,5-8", default="", help=f"Lines of the file, as reports number them; else the first {FIRST_ROWS} rows.")
@click.option("--schema", metavar="ID", help="Schema of the rows; else as `lorad check` takes it.")
@click.option("--model", metavar="NAME|PATH", help="Base model: its name in models_dir, or a Hugging Face folder; else the config's.")
@click.option("--max-length", type=click.IntRange(min=1), metavar="N", help="Where rows would be cut, in tokens; else the config's.")
@click.option("--columns", metavar="A,B", help="Extra columns that are passed through.")
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write here instead of to the terminal.")
@config_option
@format_option("html", "json")
def inspect(
    source: str,
    rows: str,
    schema: str | None,
    model: str | None,
    max_length: int | None,
    columns: str | None,
    out: Path | None,
    config: str | None,
    output: str,
) -> int:
    """Show which tokens of rows are supervised, masked or beyond max_length: exit 2 where no row can be drawn.

    FILE is a file of rows; JOB is the id of a job: the rows of its drop, under the job's own config. Rows are rendered
    with the base model's chat template, exactly as the trainer does it.
    """
    lines = _lines(rows)
    if os.path.lexists(source):
        target = target_of(Path(source), Asked(schema=schema, model=model, max_length=max_length, columns=columns, config=config))
        view = _view_of_file(target, lines)
        album = _album(view, lambda renderer: _rows_of_file(target, view, renderer))
    else:
        home, job = _job(source, config)
        view = _view_of_job(home, job, model, max_length, lines)
        album = _album(view, lambda renderer: _rows_of_job(home, job, view, renderer))
    _write(_written(album, output, colours=out is None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")), out, source)
    return 0 if album.num_drawn else 2


def _lines(rows: str) -> tuple[int, ...]:
    """`1,5-8` as numbers, in order, each once."""
    found: set[int] = set()
    for part in filter(None, (part.strip() for part in rows.split(","))):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or not 1 <= int(first) <= int(last or first):
            raise UsageError(f"--rows {rows!r}: {part!r} is no line and no range of lines", hint="write for example --rows 1,5-8", code="ROWS_SYNTAX")
        if int(last or first) - int(first) + len(found) >= MOST_ROWS:
            raise UsageError(f"--rows {rows!r} are more than {MOST_ROWS:,} rows", hint="ask for fewer at once", code="ROWS_TOO_MANY")
        found.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))


def _album(view: _View, rows: "Callable[[Renderer], Drawn]") -> "Album":
    from rendering.folders import renderer_of, template_is_generic

    renderer = renderer_of(view.base)
    notes = []
    if template_is_generic(renderer):
        notes.append(f"{view.frame.model} has no chat template: the rows are drawn as generic ChatML; `lorad models template` prints it for the model's folder")
    drawn = tuple(rows(renderer))
    if not drawn:
        notes.append("there are no rows")
    return replace(view.frame, rows=drawn, notes=tuple(notes))


def _drawn(row: "Row", view: _View, renderer: "Renderer", notes: tuple[str, ...] = ()) -> "Drawn":
    """The pictures of one row as it is learnt: under the profile, each answer of a pair by itself."""
    from rendering.picture import Unseen, draw
    from rendering.profiles import changes, prepare

    try:
        (learnt,) = prepare([row], view.profile, last_turn_only=view.last_turn_only)
    except LoradError as error:
        yield Unseen(line=row.line, id=error.code, message=error.what, hint=error.hint)
        return
    parts = [("", row.messages, learnt.messages)]
    if row.rejected is not None and learnt.rejected is not None:
        parts = [("chosen", row.messages, learnt.messages), ("rejected", row.rejected, learnt.rejected)]
    for part, before, after in parts:
        try:
            encoding = renderer.encode(after, tools=row.tools)
        except LoradError as error:
            id = TEMPLATE_FINDINGS.get(error.code, error.code)
            yield Unseen(line=row.line, part=part, id=id, message=error.what, hint=error.hint)
            continue
        picture = draw(renderer, encoding, view.frame.max_length, line=row.line, part=part, weight=row.weight)
        yield replace(picture, notes=(*notes, *picture.notes), profile=view.profile.name, changes=tuple(changes(before, after)))


# --- rows of a file


def _view_of_file(target: Target, lines: tuple[int, ...]) -> _View:
    around = target.validator.setting.around
    if not around.base:
        raise UsageError("no base model is here", hint="pass --model NAME or PATH, or run `lorad models pull`", code="MODEL_MISSING")
    from rendering.picture import Album

    frame = Album(source=target.name, schema=target.schema_id, model=Path(around.base).name, max_length=around.max_length, rows=())
    return _View.of(Path(around.base), lines, frame, target.config)


def _rows_of_file(target: Target, view: _View, renderer: "Renderer") -> "Drawn":
    from rendering.picture import Unseen
    from rendering.rows import Row
    from rendering.specs import BAD_JSON
    from validation.checks.files import BOM

    spec = target.spec
    for found in _lines_of(target, view):
        line, raw = found.number, found.raw
        if found.size_bytes > found.limits.max_row_bytes:
            yield _too_large(found)
            continue
        if not raw.strip():
            yield Unseen(line=line, id=NO_ROW, message="there is no row in this line", hint="name another line")
            continue
        try:
            row = spec.decode(raw.removeprefix(BOM) if line == 1 else raw)
        except BAD_JSON:
            yield _refused(line, raw, target)
            continue
        yield from _drawn(
            Row(
                drop="",
                line=line,
                group="",
                split="train",
                schema_id=spec.id,
                messages=spec.messages(row),
                weight=row.weight,
                tools=spec.tools(row),
                rejected=spec.rejected(row) if spec.objective == "dpo" else None,
            ),
            view,
            renderer,
        )


def _lines_of(target: Target, view: _View) -> "Iterator[Line]":
    """The lines that are asked for. Reads no further than the last of them; lines that the file lacks come empty."""
    from validation.checks.registry import Line
    from validation.source import Source, lines

    limits, wanted, seen = target.validator.setting.limits, set(view.lines), 0
    with Source(target.file, limits) as source:
        if source.opened.obstacle:
            raise UsageError(source.opened.obstacle, hint="name a file of rows", code="SOURCE_UNREADABLE")
        for line in lines(source.blocks(), limits):
            if line.number in wanted if view.lines else line.raw.strip():
                seen += 1
                wanted.discard(line.number)
                yield line
                if not wanted and (view.lines or seen >= FIRST_ROWS):
                    return
    yield from (Line(number, 0, b"", 0, True, limits) for number in sorted(wanted))


def _too_large(line: "Line") -> "Unseen":
    """What the gate says of a row of which only the beginning was read."""
    from rendering.picture import Unseen
    from validation.checks import CHECKS
    from validation.checks.files import large_row

    problem, id = large_row(line), "F10"
    assert problem is not None
    return Unseen(line=line.number, id=id, message=problem.message, hint=next(check.hint for check in CHECKS if check.id == id))


def _refused(line: int, raw: bytes, target: Target) -> "Unseen":
    """Why a line is no row: the gate's own first finding about it."""
    from rendering.picture import Unseen

    with tempfile.TemporaryDirectory(prefix="lorad-") as scratch:
        path = Path(scratch, "row.jsonl")
        path.write_bytes(raw + b"\n")
        report = target.validator.check_file(path, target.schema_id, "quick", columns=target.columns)
    # What keeps the row from being read comes first; that the file has one row only (F09) is no fault of the row.
    ranked = sorted((finding for finding in report.errors if finding.id != "F09"), key=lambda finding: finding.id[0] not in "JS")
    if not ranked:  # a decoder that is stricter than the gate
        return Unseen(line=line, id="S04", message=f"it is not a row of {target.schema_id}", hint="compare it with an example of the spec")
    return Unseen(line=line, id=ranked[0].id, path=ranked[0].path, message=ranked[0].message, hint=ranked[0].hint)


# --- rows of a job


def _job(job: str, config: str | None) -> "tuple[Home, Job]":
    from store.config_file import config_path, home_of
    from store.jobs import find_folder, read_job

    path = config_path(config)
    home = home_of(path) if config is not None or path.exists() else None
    found = find_folder(home, job) if home and (home.root / "jobs").is_dir() else None
    if home is None or found is None:
        raise UsageError(f"{job!r} is neither a file nor a job", hint="check the path; `lorad jobs list` names the jobs", code="SOURCE_UNKNOWN")
    return home, read_job(found[1], found[0])


def _view_of_job(home: "Home", job: "Job", model: str | None, max_length: int | None, lines: tuple[int, ...]) -> _View:
    from core.config import Config
    from rendering.picture import Album
    from store.bases import base_folder, models_dir
    from store.jobs import read_config

    try:
        frozen = Config.model_validate(read_config(home, job)["values"])
    except (OSError, ValueError, KeyError) as error:
        what = f"the config that was frozen with job {job.id!r} cannot be read: {type(error).__name__}"
        raise LoradError(what, hint="inspect the file itself, with --model and --max-length", code="SETTINGS_UNFIT") from None
    folder = base_folder(frozen) if model is None else Path(model) if Path(model).is_dir() else models_dir(frozen) / model
    frame = Album(source=f"job {job.id} ({job.card.file})", schema=frozen.schema_id, model=folder.name, max_length=max_length or frozen.max_length, rows=())
    return _View.of(folder, lines, frame, frozen)


def _rows_of_job(home: "Home", job: "Job", view: _View, renderer: "Renderer") -> "Drawn":
    from core.records import Accepted
    from core.tasks import RowsOf
    from rendering.picture import Unseen
    from rendering.rows import read_rows
    from store.drops import read_drops, rows_folder

    drop = job.card.drop
    facts = next((found.facts for found in read_drops(home) if found.claim.drop == drop), None)
    if not isinstance(facts, Accepted):
        raise UsageError(f"the drop {drop!r} of job {job.id!r} is not among the accepted ones", hint="inspect the file itself", code="DROP_MISSING")
    rows = read_rows([RowsOf(drop=drop, sha256=facts.sha256, folder=str(rows_folder(home, drop)), schema_id=facts.schema_id)])
    by_line = {row.line: row for row in rows}
    for line in view.lines or tuple(by_line)[:FIRST_ROWS]:
        row = by_line.get(line)
        if row is None:
            yield Unseen(line=line, id=NO_ROW, message="the drop has no accepted row in this line", hint="name another line")
            continue
        note = f"it belongs to the {row.split} split" + ("" if row.split == "train" else ": it is never trained on")
        yield from _drawn(row if row.objective == "dpo" else replace(row, rejected=None), view, renderer, (note,))


# --- out


def _written(album: "Album", output: str, *, colours: bool) -> str:
    from rendering.picture import to_html, to_text

    if output == "html":
        return to_html(album)
    if output == "text":
        return to_text(album, colours)
    import json

    return json.dumps(album.to_plain(), ensure_ascii=False, indent=1) + "\n"


def _write(text: str, out: Path | None, source: str) -> None:
    if out is None:
        encoding = sys.stdout.encoding or "utf-8"
        click.echo(text.encode(encoding, "backslashreplace").decode(encoding), nl=False, color=True)
        return
    if out.exists() and Path(source).exists() and out.samefile(source):
        raise UsageError(f"-o {str(out)!r} is the file that is inspected", hint="name another file", code="OUT_IS_SOURCE")
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{str(out)!r} cannot be written: {error.strerror or error}", hint="name another file", code="OUT_UNWRITABLE") from None
    click.echo(f"written to {out}")
