"""The curve of a training as a picture: `loss.svg` in the run folder."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from store.durable import replace_file

PICTURE = "loss.svg"
SMOOTH = 0.1
"""Share of the steps over which the drawn loss is averaged; the single steps stand behind it in grey."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What a training went through: steps count from 1, losses are nats per learnt token."""

    losses: Sequence[tuple[int, float]] = ()
    dev: Sequence[tuple[int, float]] = ()
    rates: Sequence[tuple[int, float]] = ()
    total_steps: int = 0
    pace: Sequence[float] = field(default=())
    """Tokens per second of the steps that were told of."""
    shares: Sequence[float] = field(default=())
    """Of these steps: reached tokens per second by those that the device's matrix products alone would allow, 0 to 1."""


def smoothed(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Each point as the mean of the points up to it, over a tenth of all of them."""
    width = max(1, round(len(points) * SMOOTH))
    return [(step, sum(value for _, value in points[max(0, place - width + 1) : place + 1]) / min(width, place + 1)) for place, (step, _) in enumerate(points)]


def draw(curve: Curve, root: Path) -> None:
    """Write loss.svg: train loss, dev loss at the checkpoints, learning rate. Imports matplotlib (about a second)."""
    import io

    import matplotlib

    matplotlib.use("svg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(*_columns(curve.losses), color="0.8", linewidth=0.8)
    axes.plot(*_columns(smoothed(curve.losses)), color="C0", label="train loss (mean of the last steps)")
    if curve.dev:
        axes.plot(*_columns(curve.dev), color="C3", marker="o", label="dev loss (rows that are not trained on)")
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per learnt token)")
    axes.grid(alpha=0.3)
    rates = axes.twinx()
    rates.plot(*_columns(curve.rates), color="C2", linewidth=0.8, linestyle=":", label="learning rate")
    rates.set_ylabel("learning rate")
    handles = [handle for side in (axes, rates) for handle in side.get_legend_handles_labels()[0]]
    axes.legend(handles, [str(handle.get_label()) for handle in handles], loc="upper right", fontsize="small")
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": "lorad"})
    replace_file(root / PICTURE, text.getvalue())


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [value for _, value in points]
