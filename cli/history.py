"""`lorad adapters history`: what was live when, how it fared, and what got worse."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from cli.options import config_option, format_option, show_json
from core.wire import SWITCHES

if TYPE_CHECKING:
    from core.trends import Regression
    from store.performance import Performance


@click.command()
@click.argument("adapter")
@click.option("--scores", "with_scores", is_flag=True, help="Every measure of every version, not only of what is live.")
@config_option
@format_option()
def history(adapter: str, with_scores: bool, config: str | None, output: str) -> None:
    """What was live when by the word of the inference boxes, how each version fared, and what is proven to be worse.

    In JSON: `live` (the boxes' own lines), `scores`, `tallies`, `incidents`, `regressions`.
    """
    from core.names import parse_adapter
    from core.opinions import by_day
    from core.trends import regressions
    from store.codec import to_plain
    from store.config_file import config_path, home_of
    from store.performance import first_target, incidents_by_day, incidents_in, performance_of
    from store.vault import history_of, live_of

    home, name = home_of(config_path(config)), parse_adapter(adapter, shared=True)
    entries, known = history_of(home, name), performance_of(home, name)
    told_first = first_target(entries)
    incidents = list(incidents_in(told_first))
    now = datetime.now(UTC)  # noqa: TID251 - a person asks now
    tallies = (*by_day(known.tallies, now), *incidents_by_day(told_first, now))
    worse = regressions(name, known.scores, tallies, live_of(home).get(name))
    if output == "json":
        told = {"live": entries, "scores": to_plain(known.scores), "tallies": to_plain(known.tallies)}
        show_json({"adapter": name, **told, "incidents": to_plain(incidents), "regressions": [_plain(one) for one in worse]})
        return
    if not entries:
        click.echo("nothing was live yet")
    for line in (*map(_entry, entries), *_scores(known, entries, with_scores), *_tallies(known), *(_worse(one) for one in worse)):
        click.echo(line)


def _plain(one: "Regression") -> dict[str, Any]:
    from store.codec import to_plain

    return {**to_plain(one), "sentence": one.sentence}


def _entry(entry: Mapping[str, Any]) -> str:
    what = f"v{entry['version']} {entry['release'][:12]}" if entry["release"] else "the base model"
    return f"{entry['at'][:19]}  {entry['target']:<12} {entry['event']:<9} {what}  {entry['code']} {entry['reason']}".rstrip()


def _scores(known: "Performance", entries: Sequence[Mapping[str, Any]], everything: bool) -> Iterator[str]:
    live = next((entry["release"] for entry in reversed(entries) if entry["event"] in SWITCHES), None)
    told = [one for one in known.scores if everything or one.release == live]
    if told:
        yield "scores at the verdict, and their change against what was replaced (95 % interval):"
    width = max((len(one.measure) for one in told), default=0)
    for one in told:
        change = f"{one.change.mean:+.4g} ({one.change.low:+.4g} to {one.change.high:+.4g})" if one.change else ""
        better = "more is better" if one.higher_is_better else "less is better"
        yield f"  v{one.version:<4} {one.measure:<{width}}  {one.value:<9.4g} {change}  {one.count} rows, {better}"


def _tallies(known: "Performance") -> Iterator[str]:
    from core.trends import USER_SATISFACTION

    sums: dict[tuple[str, int], list[float]] = {}
    for one in known.tallies:
        held = sums.setdefault((one.measure, one.version), [0.0, 0.0])
        held[0] += one.hits
        held[1] += one.out_of
    if sums:
        yield "counted while it served:"
    for (measure, version), (hits, out_of) in sums.items():
        of = f"v{version}" if version else "base"
        told = out_of - hits if measure == USER_SATISFACTION else hits
        yield f"  {of:<5} {measure}  {told:g} of {out_of:g} ({told / out_of:.3g})" if out_of else f"  {of:<5} {measure}  nothing yet"


def _worse(one: "Regression") -> str:
    return f"worse: {one.sentence}, since {one.since:%Y-%m-%d %H:%M}"
