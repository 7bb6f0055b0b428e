"""Ranking as text for people: the sentence of a verdict, and the table of candidates. No heavy imports: a command calls it."""

import math
from collections.abc import Sequence
from pathlib import Path

from core.records import VerdictWord
from ranking.evidence import Interval, LegResult, MetricValue, Order, Standing, Verdict
from store.codec import read

HEADS = {VerdictWord.PROMOTE: "Promote", VerdictWord.HOLD: "Hold", VerdictWord.REFUSE: "Refuse"}
MOST_DECIMALS = 6
MADE_UP = "made up"  # name of the leg that says so


def signed(value: float) -> str:
    """A difference with its sign and at least two digits that say something: -0.79, +0.012, 0.00."""
    decimals = 2 if value == 0 else min(MOST_DECIMALS, max(2, 1 - math.floor(math.log10(abs(value)))))
    text = f"{value:+.{decimals}f}"
    return text if value else text[1:]


def difference(interval: Interval) -> str:
    """`-0.79, 95 % interval -0.95 to -0.64`."""
    return f"{signed(interval.mean)}, 95 % interval {signed(interval.low)} to {signed(interval.high)}"


def sentence(verdict: Verdict) -> str:
    """The verdict in one sentence: the word, and the legs that decided it."""
    if verdict.word is VerdictWord.PROMOTE:
        told = (LegResult.PASSED, LegResult.WARNED)
        legs = [leg for leg in verdict.legs if leg.result in told and (leg.comparison is not None or leg.name == MADE_UP)]
    elif verdict.word is VerdictWord.REFUSE:
        legs = [leg for leg in verdict.legs if leg.result is LegResult.REGRESSION]
    else:
        legs = [leg for leg in verdict.legs if not leg.passed]
    looks = f" (look {verdict.looks} at the gate split)" if verdict.looks > 1 else ""
    return f"{HEADS[verdict.word]}: {'; '.join(leg.reason for leg in legs)}{looks}"


def table(order: Order, verdict: Verdict | None = None) -> str:
    """Candidates best first, then incumbent and base, then the verdict by its legs. Several lines, none ends with a newline."""
    head = ("candidate", "dev loss", "against the incumbent (95 % interval)", "")
    rows = [head]
    for i, place in enumerate(order.places):
        mark = "best" if i == 0 else "tied with the best" if place.tied else f"{signed(place.against_best.mean)} behind the best"
        against = place.against_incumbent
        rows.append((place.id, f"{place.loss:.4f}", f"{signed(against.mean)} ({signed(against.low)} to {signed(against.high)})", mark))
    rows.append((order.incumbent.model[:12], f"{order.incumbent.loss:.4f}", "", "incumbent"))
    if order.base is not None and order.base.model != order.incumbent.model:
        rows.append((order.base.model, f"{order.base.loss:.4f}", "", "base"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append(f"loss per token on {order.rows} dev rows of {order.groups} conversations{', made up by the stub backend' if order.made_up else ''}")
    return "\n".join(lines + (["", *verdict_lines(verdict)] if verdict else []))


def verdict_lines(verdict: Verdict) -> list[str]:
    """The word, and a line for each leg."""
    width = max(len(leg.name) for leg in verdict.legs)
    legs = [f"  {leg.name.ljust(width)}  {leg.result.value.ljust(10)}  {leg.reason}" for leg in verdict.legs]
    base = [_base_line(verdict.base)] if verdict.base else []
    metrics = [f"  {line}" for line in metric_lines(verdict.metrics)]
    return [f"verdict: {verdict.word}", *legs, *(["measured of answers, shown beside the legs:", *metrics] if metrics else []), *base]


def metric_lines(values: Sequence[MetricValue]) -> list[str]:
    """A line for each: `relevance 0.91 (95 % interval 0.87 to 0.94), target 0.85: met; incumbent 0.82; 60 rows`."""
    return [_metric_line(value) for value in values]


def _metric_line(found: MetricValue) -> str:
    target = "" if found.target is None else f", target {found.target:g}"
    if found.value is None:
        return f"{found.metric}{target}: not run, {found.why}"
    text = f"{found.metric} {found.value.mean:.2f} (95 % interval {found.value.low:.2f} to {found.value.high:.2f}){target}"
    if found.met is not None and found.target is not None:
        sure = not found.value.low <= found.target <= found.value.high
        text += f": {'met' if found.met else 'not met'}{'' if sure else ', but the interval reaches over the target'}"
    return text + (f"; incumbent {found.before:.2f}" if found.before is not None else "") + f"; {found.rows} rows"


def _base_line(base: Standing) -> str:
    return f"  for proportion: the base model has a loss per token of {base.loss:.4f} on the {base.rows} {base.split} rows"


def render(ranking_json: Path, verdict_json: Path | None = None) -> str:
    """`table` of what lies in two run folders. Reads both files. Raises FileNotFoundError; IntegrityError for a damaged one."""
    return table(read(Order, ranking_json), read(Verdict, verdict_json) if verdict_json else None)
