"""/metrics of a box shows how its releases fare: what users said of them, and what their verdicts measured."""

import json
from collections.abc import Iterator

import pytest
from guarded_box import Guarded, guarded
from inference_box import ALIAS, World
from test_metrics_and_records import figures

from serving.quality import Quality

LEG = {
    "name": "suite json",
    "comparison": {"before": 0.5, "after": 0.75, "difference": {"mean": 0.25, "low": 0.1, "high": 0.4}, "rows": 80, "measure": "mean value of an item"},
}


@pytest.fixture
def box(world: World) -> Iterator[Guarded]:
    with guarded(world) as made:
        made.opened.access.meter.registry.register(Quality(made.agent.routes, made.agent.engine.counted, made.agent.library.folder))
        yield made


def test_ratings_and_scores_stand_by_alias_and_version(box: Guarded) -> None:
    release = box.world.release(None)
    box.agent.tick()
    for negative in (True, False, False):
        box.agent.engine.rate(release, negative=negative)
    box.agent.engine.rate(None, negative=True)
    (box.agent.library.folder(release) / "verdict.json").write_text(json.dumps({"incumbent": "base", "legs": [LEG]}))
    found = figures(box)
    assert found[f"lorad_ratings_total|alias={ALIAS}|rating=negative|version={ALIAS}@v1"] == 1
    assert found[f"lorad_ratings_total|alias={ALIAS}|rating=positive|version={ALIAS}@v1"] == 2
    assert found["lorad_ratings_total|alias=|rating=negative|version=base"] == 1
    assert found[f"lorad_adapter_score|alias={ALIAS}|measure=suite json, mean value of an item|version={ALIAS}@v1"] == 0.75


def test_a_box_without_releases_shows_the_base_alone(box: Guarded) -> None:
    assert [name for name in figures(box) if name.startswith(("lorad_ratings", "lorad_adapter_score"))] == [
        "lorad_ratings_total|alias=|rating=positive|version=base",
        "lorad_ratings_total|alias=|rating=negative|version=base",
    ]
