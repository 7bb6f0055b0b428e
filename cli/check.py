"""`lorad check`: the gate's answer about files, without a daemon."""

import os
import shutil
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.meter import Meter
from cli.options import format_option
from cli.setting import Asked, Target, any_target_of, gate_options
from core.errors import LoradError

if TYPE_CHECKING:
    from validation.pages import View
    from validation.report import Report

WIDEST_PAGE = 120
PIPED_PAGE = 100


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE…", type=click.Path(path_type=Path))
@gate_options
@format_option("md", "json")
def check(files: tuple[Path, ...], asked: Asked, output: str) -> int:
    """Check files as the gate would: exit 0 accepted, 2 refused.

    FILE is JSON Lines, or a folder NAME.drop with one such file and its pictures; a sidecar NAME.job.json beside it is
    read. Of one file JSON is an object, of several an array of them.
    """
    from validation.examination import Setting

    meters = [Meter(str(file)) for file in files]
    # Every mistake of the caller is told before anything is read.
    targets = [any_target_of(file, asked, Setting(on_progress=meter)) for file, meter in zip(files, meters, strict=True)]
    reports = []
    for target, meter in zip(targets, meters, strict=True):
        try:
            report = checked(target)
        except LoradError:
            raise
        except Exception as error:  # the border of a reader of untrusted bytes: a crash is a refusal
            report = crashed(target, error)
        finally:
            meter.clear()
        reports.append(report)
        if output != "json":
            show(report, output, view_of(target))
    if output == "json":
        plain = [report.to_plain() for report in reports]
        echo_json(plain[0] if len(plain) == 1 else plain)
    return 2 if any(report.verdict == "refused" for report in reports) else 0


def checked(target: Target) -> "Report":
    """The gate's report on a file, or on a folder that has none."""
    if target.obstacle:
        from validation.bundle import unread
        from validation.findings import Level

        return unread(target.name, target.schema_id, Level(target.level), target.obstacle)
    return target.validator.check_file(target.file, target.schema_id, target.level, name=target.name, columns=target.columns)


def crashed(target: Target, error: Exception) -> "Report":
    """The report on a file that the gate itself failed on; the traceback goes to standard error."""
    from validation.report import single

    traceback.print_exception(error)
    message = f"the gate failed on this file: {type(error).__name__} in {traceback.extract_tb(error.__traceback__)[-1].name}"
    hint = f"the file is the proof: please report it as a bug, with the traceback above; {target.again()} repeats it"
    return single(target.name, target.schema_id, code="GATE_CRASH", message=message, hint=hint)


def show(report: "Report", output: str, view: "View") -> None:
    """Print one report as text or Markdown."""
    echo(report.to_markdown(view) if output == "md" else report.to_text(view))


def echo(text: str) -> None:
    """Print text; a letter that the terminal's encoding has not is written as its escape."""
    encoding = sys.stdout.encoding or "utf-8"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding))


def echo_json(value: object) -> None:
    """Print JSON, which stays JSON whatever the terminal's encoding is."""
    from validation.report import as_json

    utf8 = (sys.stdout.encoding or "utf-8").lower().replace("-", "") == "utf8"
    click.echo(as_json(value, ascii_only=not utf8))


def view_of(target: Target, file: str = "") -> "View":
    """How pages look on this terminal, and the commands that they may name for the target, or for another file like it."""
    from validation.pages import View

    terminal = sys.stdout.isatty()
    width = min(shutil.get_terminal_size().columns, WIDEST_PAGE) if terminal else PIPED_PAGE
    onward = target.onward(file) if target.schema_id in target.specs else ""
    view = View(width=width, again=target.again(file), onward=onward)
    return replace(view, paint=_paint) if terminal and not os.environ.get("NO_COLOR") else view


def _paint(text: str, colour: str) -> str:
    return click.style(text, bold=True) if colour == "bold" else click.style(text, fg=colour, bold=colour == "red")
