"""`lorad compare A B`: two models on the same rows, by numbers with intervals, by their answers, or by a person who does not know which is which."""

from typing import TYPE_CHECKING, Any

import click

from cli.options import config_option, format_option, show_json

if TYPE_CHECKING:
    from cli.comparison import Compared, Shown
    from ranking.evidence import Comparison
    from ranking.page.words import Part


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--on", default="gate", show_default=True, metavar="FILE|gate|suite:NAME", help="Rows of a file, held-out rows of the adapter, or a suite.")
@click.option("--rows", default=20, show_default=True, type=click.IntRange(0), help="Rows that both answer, to be shown or rated; 0: losses alone.")
@click.option("--rate", is_flag=True, help="Show the answers blind and shuffled, and let a person choose by keys.")
@click.option("--seed", default=0, show_default=True, help="Of the order and the sides of --rate.")
@config_option
@format_option()
def compare(a: str, b: str, on: str, rows: int, rate: bool, seed: int, config: str | None, output: str) -> None:
    """Compare A (what was) with B (what would be).

    Each is base, persona/domain@v3 (or @live, @latest, a label, the beginning of an id), a job (its best candidate), or a
    folder with an adapter. Both are scored here and now by one child; asked again, nothing is scored again. With --rate,
    keys are 1, 2, = (tie), s (skip), q (quit; what was rated is kept). The rating of a held job's candidate against what
    is live goes to the daemon, which judges the job again with it.
    """
    from pathlib import Path

    from cli.comparison import Asked, compared
    from cli.sides import side_of
    from core.errors import UsageError
    from store.config import ConfigLoader
    from store.paths import Home

    if rate and (on.startswith("suite:") or not rows):
        raise UsageError("--rate needs answers to rows", hint="leave --on suite:… and --rows 0 out", code="NOTHING_TO_RATE")
    resolved = ConfigLoader(config).load()
    home = Home(Path(resolved.config.home))
    found = compared(home, resolved, (side_of(home, a), side_of(home, b)), Asked(on=on, rows=rows))
    if rate:
        from cli.rating import rate as ask_person

        ask_person(home, found, seed, output)
    elif output == "json":
        show_json(plain(found))
    else:
        show(found, rows)


def plain(found: "Compared") -> dict[str, Any]:
    """Everything, for programs."""
    from dataclasses import asdict

    sides = [{"word": side.word, "name": side.name, "model": side.model.id, "job": side.job} for side in found.sides]
    return {
        "a": sides[0],
        "b": sides[1],
        "on": found.on,
        "made_up": found.made_up,
        "measures": [asdict(measure) | {"says": says(measure)} for measure in found.measures],
        "rows": [asdict(row) for row in found.rows],
        "lost": list(found.lost),
        "won": list(found.won),
        "notes": list(found.notes),
    }


def says(measure: "Comparison") -> str:
    """What an interval proves, in words."""
    return "B is better" if measure.is_better else "B is worse" if measure.is_worse else "no difference is proven"


def show(found: "Compared", most: int) -> None:
    """Print it for people: the numbers, then the answers, worst for B first."""
    from ranking.page.words import clean

    for letter, side in zip("AB", found.sides, strict=True):
        click.echo(f"{letter}  {side.name}")
    click.echo(f"on {found.on}" + (", made up by the stub backend: it proves nothing" if found.made_up else ""))
    for line in table(found.measures):
        click.echo(f"  {line}")
    if found.lost or found.won:
        click.echo(f"  items that B answers worse: {', '.join(found.lost) or 'none'}\n  items that B answers better: {', '.join(found.won) or 'none'}")
    for note in found.notes:
        click.echo(f"  note: {clean(note)}")
    shown = found.rows[:most]
    if shown:
        click.echo(f"\n{len(shown)} of {len(found.rows)} rows, those first on which B loses most:")
    for row in shown:
        _show_row(row)


def table(measures: "tuple[Comparison, ...]") -> list[str]:
    """A line for each measure: before, after, the difference with its interval, what that proves."""
    from ranking.report import signed

    rows = []
    for one in measures:
        interval = f"{signed(one.difference.mean)} ({signed(one.difference.low)} to {signed(one.difference.high)})"
        rows.append((one.measure, f"{one.before:.3f}", "->", f"{one.after:.3f}", interval, says(one), f"{one.rows} rows, {one.groups} conversations"))
    widths = [max((len(row[place]) for row in rows), default=0) for place in range(7)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _show_row(row: "Shown") -> None:
    from ranking.page.words import clean, side_by_side
    from ranking.report import signed

    change = row.after - row.before
    verdict = "worse" if change > 0 else "better" if change < 0 else "the same"
    click.echo(f"\nline {row.line} of {clean(row.drop)}: loss per token {row.before:.2f} -> {row.after:.2f} ({signed(change)}), {verdict}")
    if row.question:
        click.echo(f"  question  {indented(clean(row.question))}")
    if row.wanted:
        click.echo(f"  wanted    {indented(clean(row.wanted))}")
    if row.answers is not None:
        left, right = side_by_side(*row.answers)
        click.echo(f"  A         {indented(_marked(left))}\n  B         {indented(_marked(right))}")


def indented(text: str) -> str:
    """The text with its later lines under its first."""
    return text.replace("\n", "\n            ")


def _marked(parts: "tuple[Part, ...]") -> str:
    return "".join(click.style(part.text, underline=True, bold=True) if part.differs else part.text for part in parts)
