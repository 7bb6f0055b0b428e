"""The daemon has weaknesses looked for where something is new, seldom, and not without the model that it takes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from filled_index import index_of

from core.signals import Counts
from core.weaknesses import Failed, Weaknesses
from daemon import clock
from daemon.weaknesses import APART, FEWEST_NEW, LOOK_EVERY_S, WeaknessWatch
from daemon.worker import Chore, ChoreDone
from store.seals import seal
from store.weaknesses import write_failed, write_weaknesses

NOW = datetime(2026, 3, 10, tzinfo=UTC)


class Asked:
    """A worker that only listens."""

    def __init__(self) -> None:
        self.chores: list[Chore] = []

    def hear(self, kind: str, listener: object) -> None:
        self.listener = listener

    def is_busy(self, kind: str) -> bool:
        return False

    def submit(self, chore: Chore) -> bool:
        self.chores.append(chore)
        return True


class Scene:
    """A daemon's watch, its clock and what it asked for."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, with_model: bool = True) -> None:
        self.index = index_of(folder, models_dir="models")
        if with_model:
            model = folder / "models" / "all-minilm-l6-v2"
            model.mkdir(parents=True)
            (model / "weights").write_text("")
            seal(model)
        self.counts = {"acme/support": Counts(arrived=5)}
        self.now, self._s = NOW, 1000.0
        self.worker, self.told = Asked(), list[Any]()
        monkeypatch.setattr(clock, "monotonic_s", lambda: self._s)
        self.restart()

    def restart(self) -> None:
        self.watch = WeaknessWatch(self.index, self.worker, lambda *words, **fields: self.told.append((words, fields)), lambda: self.counts)  # type: ignore[arg-type]

    def asks(self, hours: float = 0) -> list[str]:
        """The adapters that are searched after so many hours."""
        self.worker.chores.clear()
        self.now += timedelta(hours=hours)
        self._s += max(hours * 3600, LOOK_EVERY_S)
        self.watch.look(self.now)
        return [str(chore.spec["adapter"]) for chore in self.worker.chores]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path, monkeypatch)


def test_new_failures_are_looked_at_once_and_again_when_there_are_more(scene: Scene) -> None:
    assert scene.asks() == ["acme/support"]
    (chore,) = scene.worker.chores
    assert (chore.spec["demand_consent"], chore.spec["skills"]) == (True, [])
    assert scene.asks(hours=24) == [], "nothing is new"
    scene.counts["acme/support"] = Counts(arrived=5 + FEWEST_NEW - 1)
    assert scene.asks(hours=1) == [], "hardly anything is"
    scene.counts["acme/support"] = Counts(arrived=5 + FEWEST_NEW)
    assert scene.asks(hours=1) == ["acme/support"]


def test_two_searches_are_hours_apart_over_a_restart_too(scene: Scene) -> None:
    assert scene.asks() == ["acme/support"]
    scene.counts["acme/support"] = Counts(arrived=500)
    assert scene.asks(hours=1) == []
    write_weaknesses(scene.index.home, Weaknesses(adapter="acme/support", at=scene.now, release="", failures=0, alone=0))
    scene.restart()
    assert scene.asks(hours=1) == []
    assert scene.asks(hours=APART / timedelta(hours=1)) == ["acme/support"]


def test_an_evaluation_of_a_skill_is_news_for_its_adapter(scene: Scene) -> None:
    scene.counts = {"skills/binary": Counts()}
    assert scene.asks() == ["skills/binary"]
    write_failed(scene.index.home, Failed(skill="binary", level=1, rows=(("1 + 1?", "10", "2"),)))
    assert scene.asks(hours=7) == ["skills/binary"]
    assert scene.worker.chores[0].spec["skills"] == ["binary"]


def test_several_adapters_are_looked_at_one_after_the_other(scene: Scene) -> None:
    scene.counts = {name: Counts(arrived=20) for name in ("a/main", "b/main")}
    assert scene.asks() == ["a/main"]
    assert scene.asks() == ["b/main"]
    assert scene.asks() == []


def test_without_the_model_nobody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Scene(tmp_path, monkeypatch, with_model=False).asks(hours=1) == []


def test_a_daemon_that_has_just_begun_waits(scene: Scene) -> None:
    scene.watch.look(scene.now)
    assert scene.worker.chores == []


def test_a_search_that_failed_is_tried_again_hours_later(scene: Scene) -> None:
    assert scene.asks() == ["acme/support"]
    scene.worker.listener(ChoreDone(kind="weaknesses", key="weaknesses-acme/support", ok=False))  # type: ignore[operator]
    assert scene.asks(hours=1) == []
    assert scene.asks(hours=6) == ["acme/support"]


def test_what_was_found_is_told(scene: Scene) -> None:
    scene.worker.listener(ChoreDone(kind="weaknesses", key="weaknesses-a/main", ok=True, result={"weaknesses": 3}))  # type: ignore[operator]
    scene.worker.listener(ChoreDone(kind="weaknesses", key="weaknesses-a/main", ok=False))  # type: ignore[operator]
    ((words, fields),) = scene.told
    assert (words[1], fields) == ("weaknesses.found", {"adapter": "a/main", "found": 3})
