"""Metrics by name: those that lorad ships, and those of installed packages (entry points of the group `lorad.metrics`).

Code of a package runs when its metric is asked for by name, or all of them are listed. A shipped name cannot be taken.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from types import MappingProxyType

from core.errors import ConfigError
from ranking.metrics import losses, manner, matches, meaning, overlaps, preferred
from ranking.metrics.metric import Metric

GROUP = "lorad.metrics"
MODULES = (losses, matches, overlaps, meaning, manner, preferred)
SHIPPED: Mapping[str, Metric] = MappingProxyType({metric.name: metric for module in MODULES for metric in module.METRICS})
HELP = "see docs/howto/own-metric.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One metric as it is listed; `broken` says why an installed one cannot be used."""

    name: str
    source: str  # lorad, or name and version of the package that brings it
    metric: Metric | None
    broken: str = ""


def metric_named(name: str) -> Metric:
    """The metric of that name. Raises ConfigError: an unknown name (with the nearest known one), an installed one that does not load."""
    if name in SHIPPED:
        return SHIPPED[name]
    found = [point for point in _installed() if point.name == name]
    if not found:
        known = metric_names()
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        raise ConfigError(f"unknown metric {name!r}", hint=hint, code="METRIC_UNKNOWN")
    if len(found) > 1:
        sources = ", ".join(sorted(_source(point) for point in found))
        raise ConfigError(f"the metric {name!r} comes from several packages: {sources}", hint="uninstall all but one", code="METRIC_TWICE")
    return _load(found[0])


def metric_names() -> list[str]:
    """Every name that can be asked for; no code of other packages runs."""
    return [*SHIPPED, *sorted({point.name for point in _installed()} - SHIPPED.keys())]


def listed() -> list[Listed]:
    """Every metric, shipped ones first; a package's metric that does not load is listed with the reason."""
    return [*(Listed(name=name, source="lorad", metric=metric) for name, metric in SHIPPED.items()), *map(_listed, sorted(_installed()))]


def _listed(point: EntryPoint) -> Listed:
    if point.name in SHIPPED:
        return Listed(name=point.name, source=_source(point), metric=None, broken="lorad has a metric of this name: its own is used")
    try:
        return Listed(name=point.name, source=_source(point), metric=metric_named(point.name))
    except ConfigError as error:
        return Listed(name=point.name, source=_source(point), metric=None, broken=error.what)


def _installed() -> Iterable[EntryPoint]:
    return entry_points(group=GROUP)


def _source(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def _load(point: EntryPoint) -> Metric:
    try:
        metric = point.load()
    except Exception as error:  # whatever another package's code raises is a fault of that package
        raise _wrong(point, f"does not load: {type(error).__name__}: {error}") from error
    if not isinstance(metric, Metric):
        raise _wrong(point, f"is a {type(metric).__name__}, not a ranking.metrics.Metric")
    if metric.name != point.name:
        raise _wrong(point, f"calls itself {metric.name!r}")
    return metric


def _wrong(point: EntryPoint, what: str) -> ConfigError:
    return ConfigError(f"the metric {point.name!r} of {_source(point)} {what}", hint=HELP, code="METRIC_WRONG")


def where_from(metric: Metric) -> str:
    """What a metric's numbers hang on: the package that brings it, or the library behind it, with version; `lorad` for lorad's own."""
    if metric.name not in SHIPPED:
        return _source(next(point for point in _installed() if point.name == metric.name))
    if not metric.library:
        return "lorad"
    try:
        return f"{metric.library} {version(metric.library)}"
    except PackageNotFoundError:
        return f"{metric.library}, which is not installed"
