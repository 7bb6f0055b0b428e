"""How the releases of a box fare, on its /metrics: what users say of their answers here, and what their verdicts measured."""

from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from core.fingerprints import BASE_MARK
from core.trends import Score
from core.wire import Manifest
from serving.routing import Routes
from serving.witness import Count
from store.codec import read_if_whole
from store.performance import scores_of
from store.releases import Release
from store.wire import MANIFEST


class Quality:
    """A collector of prometheus-client.

    Args: counted: what was counted of a release, None: of the base, since this process began. folder: of a release on this box.
    """

    def __init__(self, routes: Routes, counted: Callable[[str | None], Count], folder: Callable[[str], Path]) -> None:
        self._routes, self._counted, self._folder = routes, counted, folder
        self._scores: dict[str, tuple[Score, ...]] = {}

    def collect(self) -> Iterator[Metric]:
        """The metrics as they stand now. Reads the verdict of a release that it has not seen yet."""
        table = self._routes.table
        ratings = CounterMetricFamily("lorad_ratings", "Answers that users rated, since this process began.", labels=("alias", "version", "rating"))
        scores = GaugeMetricFamily("lorad_adapter_score", "What the verdict measured of a release.", labels=("alias", "version", "measure"))
        served = {alias: one for alias, one in table.aliases.items() if one.release is not None}
        for alias, version, release in (("", BASE_MARK, None), *((alias, one.model, one.release) for alias, one in served.items())):
            count = self._counted(release)
            for rating, number in (("positive", count.rated - count.negative), ("negative", count.negative)):
                ratings.add_metric((alias, version, rating), number)
        for alias, one in served.items():
            for score in self._scores_of(one.release or ""):
                scores.add_metric((alias, one.model, score.measure), score.value)
        yield ratings
        yield scores

    def _scores_of(self, release: str) -> tuple[Score, ...]:
        if release not in self._scores:
            try:
                folder = self._folder(release)
            except KeyError:  # it has just been deleted
                return ()
            manifest = read_if_whole(Manifest, folder / MANIFEST)
            known = Release(id=release, adapter=manifest.adapter, version=manifest.version, folder=folder, manifest=manifest) if manifest else None
            self._scores[release] = scores_of(known, known.manifest.created_at) if known else ()
        return self._scores[release]
