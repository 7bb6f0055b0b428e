"""Where the lines of a picture go: intervals on a common scale, and learning curves. Pure: numbers in, coordinates out; the template draws.

Coordinates are those of an SVG view box: x to the right, y down, one unit about one CSS pixel.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 320.0  # of an interval's picture
HEIGHT = 26.0
EDGE = 8.0  # left free on both sides
CURVE_WIDTH, CURVE_HEIGHT = 640.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 10.0, 28.0  # of a curve's picture: room for its scales
MOST_POINTS = 400  # of a curve: more than a screen shows
TICKS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """An interval as it is drawn: from `low` to `high` with a dot at `mean`; `zero` and `margin` are upright lines."""

    low: float
    mean: float
    high: float
    zero: float
    margin: float | None
    cut_low: bool = False
    """Whether the interval goes on beyond the picture."""
    cut_high: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A mark on a scale with its words."""

    at: float
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A curve: `points` as SVG's polyline wants them; `dots` where single values are to be seen."""

    name: str
    points: str
    dots: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Learning curves with their scales."""

    lines: tuple[Line, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]


def reach(intervals: Sequence[tuple[float, float]], margin: float = 0.0) -> float:
    """How far from 0 a common scale must go so that every interval and the margin are seen; 1 where all are 0."""
    most = max([abs(end) for pair in intervals for end in pair if math.isfinite(end)] + [abs(margin)], default=0.0)
    return most * 1.08 or 1.0


def bar(low: float, mean: float, high: float, *, most: float, margin: float | None = None) -> Bar:
    """The interval on a scale from -most to +most."""

    def at(value: float) -> float:
        inside = min(max(value, -most), most) if math.isfinite(value) else math.copysign(most, value)
        return round(EDGE + (inside + most) / (2 * most) * (WIDTH - 2 * EDGE), 2)

    return Bar(
        low=at(low), mean=at(mean), high=at(high), zero=at(0.0), margin=at(margin) if margin is not None else None, cut_low=low < -most, cut_high=high > most
    )


def curves(named: Sequence[tuple[str, Sequence[tuple[float, float]], bool]]) -> Picture | None:
    """A picture of (name, points (step, value), whether each value gets a dot); None where there is nothing to draw."""
    lines = [(name, [point for point in points if all(map(math.isfinite, point))], dotted) for name, points, dotted in named]
    lines = [line for line in lines if line[1]]
    if not lines:
        return None
    xs = [x for _, points, _ in lines for x, _ in points]
    ys = [y for _, points, _ in lines for _, y in points]
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1)
    pad = 0.05 * (max(ys) - min(ys)) or 0.5
    y_low, y_high = min(ys) - pad, max(ys) + pad

    def right(x: float) -> float:
        return round(LEFT + (x - x_low) / (x_high - x_low) * (CURVE_WIDTH - LEFT - RIGHT), 1)

    def down(y: float) -> float:
        return round(TOP + (y_high - y) / (y_high - y_low) * (CURVE_HEIGHT - TOP - BOTTOM), 1)

    drawn = []
    for name, points, dotted in lines:
        placed = [(right(x), down(y)) for x, y in _thinned(points)]
        drawn.append(Line(name=name, points=" ".join(f"{x},{y}" for x, y in placed), dots=tuple(placed) if dotted else ()))
    across = tuple(Tick(at=right(x), words=f"{x:,.0f}") for x in _ticks(x_low, x_high))
    return Picture(lines=tuple(drawn), across=across, up=tuple(Tick(at=down(y), words=f"{y:.2f}") for y in _ticks(y_low, y_high)))


def _ticks(low: float, high: float) -> list[float]:
    return [low + (high - low) * part / TICKS for part in range(TICKS + 1)]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most 400 points: the means of equal stretches, the last point as it is."""
    if len(points) <= MOST_POINTS:
        return list(points)
    size = math.ceil(len(points) / (MOST_POINTS - 1))
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    means = [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]
    return [*means[:-1], points[-1]]
