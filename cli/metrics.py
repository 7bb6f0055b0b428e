"""`lorad metrics`: what answers can be measured by, and what each metric says."""

from typing import TYPE_CHECKING

import click

from cli.options import config_option, format_option, show_json

if TYPE_CHECKING:
    from ranking.metrics.metric import Metric
    from ranking.metrics.registry import Listed


@click.group()
def metrics() -> None:
    """List and explain the metrics by which answers are measured.

    One of them can be ranking.metric; ranking.profile shows a set of them with targets.
    """


@metrics.command("list")
@format_option()
def list_metrics(output: str) -> None:
    """Every metric: lorad's own, and those of installed packages (entry points of the group lorad.metrics)."""
    from ranking.metrics.registry import listed

    found = listed()
    if output == "json":
        show_json([_row(one) for one in found])
        return
    for one in found:
        mark = "*" if one.metric is not None and one.metric.is_quality else " "
        about = one.metric.about if one.metric is not None else f"cannot be used: {one.broken}"
        click.echo(f"{mark} {one.name:<22} {one.metric.kind if one.metric else '?':<7} {about}{'' if one.source == 'lorad' else f' ({one.source})'}")
    click.echo("  * can be ranking.metric: from 0 to 1, more is better")


@metrics.command("show")
@click.argument("name")
@config_option
@format_option()
def show_metric(name: str, config: str | None, output: str) -> int:
    """What NAME measures, what it needs, and whether it runs here. Exit 2: it does not."""
    from ranking.metrics.registry import Listed, metric_named, where_from
    from ranking.metrics.targets import PROFILES

    metric = metric_named(name)
    missing = _missing(metric, config)
    targets = {profile: targets[name] for profile, targets in PROFILES.items() if name in targets}
    if output == "json":
        listed = Listed(name=name, source=where_from(metric), metric=metric)
        show_json(_row(listed) | {"runs": not missing, "why_not": missing, "targets": targets})
        return 2 if missing else 0
    click.echo(f"{name}: {metric.about}")
    better = "more is better" if metric.higher_is_better else "less is better"
    click.echo(f"  {metric.kind}, {better}; the mean over {'tokens' if metric.per_token else 'rows'}; needs {', '.join(metric.needs)}")
    click.echo(f"  worked out by {where_from(metric)}")
    for profile, target in targets.items():
        click.echo(f"  target in the profile {profile}: {target:.2f}")
    click.echo(f"  {'can be' if metric.is_quality else 'cannot be'} ranking.metric")
    click.echo(f"  does not run here: {missing}" if missing else "  runs here")
    return 2 if missing else 0


def _row(one: "Listed") -> dict[str, object]:
    metric = one.metric
    if metric is None:
        return {"name": one.name, "source": one.source, "broken": one.broken}
    return {
        "name": one.name,
        "source": one.source,
        "about": metric.about,
        "kind": str(metric.kind),
        "higher_is_better": metric.higher_is_better,
        "needs": list(metric.needs),
        "library": metric.library,
        "can_be_task_metric": metric.is_quality,
    }


def _missing(metric: "Metric", config: str | None) -> str:
    """What a metric lacks on this machine, with what to do; empty: nothing."""
    from importlib.metadata import PackageNotFoundError, version

    from core.names import SENTENCE_MODEL
    from ranking.metrics.metric import Need
    from store.bases import models_dir
    from store.config import ConfigLoader
    from store.embedding import PULL
    from store.seals import is_sealed

    if metric.library:
        try:
            version(metric.library)
        except PackageNotFoundError:
            return f"the package {metric.library} is not installed"
    asked = Need.EMBEDDINGS in metric.needs or Need.JUDGE in metric.needs
    loader = ConfigLoader(config)
    loaded = (loader if config or loader.path.is_file() else ConfigLoader.without_file()).load().config if asked else None
    if loaded is not None and Need.JUDGE in metric.needs and not loaded.ranking.judge.url:
        return "no judge is named: set url and model in ranking.judge"
    if loaded is not None and Need.EMBEDDINGS in metric.needs and not is_sealed(models_dir(loaded) / SENTENCE_MODEL):
        return f"no sentence model is here: {PULL}"
    return ""
