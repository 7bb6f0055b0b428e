"""`lorad adapters validate`: how good an adapter answers a file of rows, for people and scripts."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import format_option, show_json

if TYPE_CHECKING:
    from core.config import Resolved
    from core.tasks import ExitNote, RowsOf
    from ranking.metrics.metric import Metric

TOKEN_ACCURACY = "token_accuracy"  # noqa: S105 - quality where no task metric is named
RESAMPLES = 10_000


@click.command()
@click.argument("adapter")
@click.option("--test-set", "file", type=click.Path(path_type=Path), required=True, help="Rows that the adapter has not learnt (JSON Lines).")
@click.option("--min-quality", type=click.FloatRange(0, 1), required=True, help="Least quality, 0 to 1.")
@click.option("--metric", default="", help="Task metric (`lorad metrics list`); else ranking.metric, else token accuracy.")
@click.option("--config", metavar="FILE", help="Config file (else LORAD_CONFIG, else ./config.json).")
@format_option()
def validate(adapter: str, file: Path, min_quality: float, metric: str, config: str | None, output: str) -> int:
    """Score ADAPTER (persona/domain@v3, an id, or a folder) on a file: exit 0 at or above --min-quality, 2 below it.

    The file's rows are checked as the gate checks them. Nothing of home is changed and no daemon is needed.
    """
    from core.errors import UsageError
    from ranking.metrics.registry import metric_named
    from store.config import ConfigLoader

    resolved = ConfigLoader(config).load()
    if not file.is_file():
        raise UsageError(f"there is no file {str(file)!r}", hint="check the path", code="FILE_MISSING")
    chosen = metric_named(metric or resolved.config.ranking.metric or TOKEN_ACCURACY)
    if not chosen.is_quality:
        raise UsageError(f"{chosen.name} is no quality from 0 to 1", hint="name one that is: `lorad metrics list`", code="METRIC_NO_QUALITY")
    folder = _folder_of(adapter, resolved)
    with tempfile.TemporaryDirectory(prefix="lorad-validate-") as made:
        told = _measured(folder, file, chosen, resolved, Path(made))
    passed = told["quality"] >= min_quality
    told = {"adapter": adapter, "metric": chosen.name, **told, "min_quality": min_quality, "passed": passed}
    if output == "json":
        show_json(told)
    else:
        low, high = told["interval"]
        click.echo(f"{chosen.name} {told['quality']:.4f} (95 %: {low:.4f} to {high:.4f}) on {told['rows']} rows; the base: {told['base']:.4f}")
        click.echo(f"{'at or above' if passed else 'below'} the least quality of {min_quality:g}")
    return 0 if passed else 2


def _folder_of(adapter: str, resolved: "Resolved") -> Path:
    """The adapter's folder: that of a release, or a folder in PEFT's layout. Raises UsageError."""
    from store.paths import Home
    from store.vault import resolve

    folder = Path(adapter)
    if (folder / "adapter_config.json").is_file():
        return folder.absolute()
    return resolve(Home(Path(resolved.config.home)), adapter).folder


def _measured(folder: Path, file: Path, metric: "Metric", resolved: "Resolved", work: Path) -> dict[str, Any]:
    """Quality of adapter and base on every row of the file. Raises RefusedError for rows that the gate would refuse, LoradError."""
    from cli.foreground import check_rows
    from cli.scoringchild import ADAPTER, BASE, score, score_task
    from core.tasks import ScoreModel
    from daemon.cores import threads_for
    from ranking.metrics.metric import Need

    rows = (check_rows(file, resolved.config, work, split="dev"),)
    models = (ScoreModel(id=BASE, adapter=None), ScoreModel(id=ADAPTER, adapter=str(folder)))
    answers = resolved.config.ranking.answers if Need.ANSWERS in metric.needs else 0
    task = score_task(resolved, rows, models, answers=answers, this_drop=file.name)
    note = score(task, work / "score", threads_for(resolved.config))
    return _told(metric, rows, note, work / "score", resolved)


def _told(metric: "Metric", rows: "tuple[RowsOf, ...]", note: "ExitNote", run: Path, resolved: "Resolved") -> dict[str, Any]:
    import numpy as np

    from cli.scoringchild import ADAPTER, BASE, JOB
    from core.errors import LoradError
    from core.tasks import RankTask
    from ranking.metrics.held import Held
    from ranking.statistics import PERCENTILES, resampled

    task = RankTask(
        job=JOB,
        purpose="verdict",
        backend="",
        this_drop=rows[0].drop,
        candidates=(),
        incumbent=BASE,
        scores={key: str(run / path) for key, path in note.scores.items()},
        settings=resolved.record()["values"],
        best=ADAPTER,
        rows=rows,
    )
    held = Held(task)
    mine, base = (held.measured(metric, "dev", model) for model in (ADAPTER, BASE))
    if not len(mine.values):
        raise LoradError(f"{metric.name} says nothing about any row", hint="name another metric with --metric", code="NOTHING_MEASURED")
    sums, units = resampled([mine.values * mine.weights, mine.weights], mine.groups, resamples=RESAMPLES, seed=resolved.config.ranking.seed)
    low, high = np.percentile(sums / units, PERCENTILES)
    quality, of_base = (float(np.average(one.values, weights=one.weights)) for one in (mine, base))
    return {"quality": quality, "interval": [float(low), float(high)], "rows": len(mine.values), "base": of_base}
