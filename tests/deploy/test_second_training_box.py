"""Two training boxes and one inference box: the fence lets one of them in, `lorad deploy adopt` changes which."""

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.main import lorad
from core.errors import StateError
from core.wire import Wish
from deploy.delivery import OUT_FILES, Delivery
from deploy.rsync import fetch, road_to, send_file
from store.paths import Home
from store.targets import adopt, desired_of, mirror, set_wish

ALIAS = "default/main"


@pytest.fixture
def served(workshop, delivery, far, wish, clock) -> str:
    """A release that the first training box brought to life."""
    far.start()
    release = workshop.release()
    wish(release)
    delivery.turn()
    far.live()
    delivery.turn()
    return release


@pytest.fixture
def second(workshop, served, target, clock) -> Home:
    """Another training box with the same keys, that has heard the box and asked it for nothing yet."""
    home = Home(workshop.root / "second")
    home.prepare()
    shutil.copytree(workshop.home.keys, home.keys, dirs_exist_ok=True)
    fetch(road_to(target, home), OUT_FILES, mirror(home, "near"))
    return home


def test_a_second_training_box_is_refused_and_told_how_to_take_over(second, target, far, clock, served):
    before = far.box.desired.read_bytes()
    observed = Delivery(second, road_to(target, second), clock).turn()
    assert (observed.reachable, observed.code) == (True, "FENCE_FOREIGN")
    assert "lorad deploy adopt near" in observed.hint
    with pytest.raises(StateError) as caught:
        set_wish(second, "near", ALIAS, Wish(release=None, replaces=served), clock())
    assert caught.value.code == "FENCE_FOREIGN"
    assert far.box.desired.read_bytes() == before


def test_adopting_changes_nothing_that_is_served_and_shuts_the_other_out(second, workshop, delivery, target, far, clock, served):
    desired = adopt(second, "near", clock())
    assert desired.aliases == {ALIAS: Wish(release=served, replaces=served)}
    observed = Delivery(second, road_to(target, second), clock).turn()
    assert observed.code == ""
    assert far.live().aliases[ALIAS].release == served
    assert far.live().fence_seen == desired.fence == 2
    clock.pass_s(1)
    far.beat()
    assert delivery.turn().code == "FENCE_FOREIGN"
    assert desired_of(workshop.home, "near").fence == 1


def test_a_wish_of_the_old_box_that_arrives_late_changes_nothing(second, workshop, target, far, clock, served):
    """A message that was on its way while the box was taken over."""
    adopt(second, "near", clock())
    Delivery(second, road_to(target, second), clock).turn()
    far.live()
    send_file(road_to(target, workshop.home), workshop.home.target("near") / "desired.json")
    assert far.live().fence_seen == 2
    assert far.live().aliases[ALIAS].release == served


def test_adopt_on_the_command_line(second, workshop, target, far, clock, served, monkeypatch):
    config = workshop.root / "config.json"
    config.write_text(json.dumps({"home": str(second.root), "deploy": {"targets": [{"name": "near", "path": str(target.path)}]}}))
    monkeypatch.setattr("store.child.clock", clock)
    beats = iter(range(100))

    def turn(self) -> object:
        far.live()
        clock.now += timedelta(seconds=next(beats) and 1)
        return real(self)

    real = Delivery.turn
    monkeypatch.setattr(Delivery, "turn", turn)
    done = CliRunner().invoke(lorad, ["deploy", "adopt", "near", "--config", str(config), "--format", "json"], catch_exceptions=False)
    assert json.loads(done.output) == {"target": "near", "fence": 2, "adapters": {ALIAS: served}}
    again = CliRunner().invoke(lorad, ["deploy", "history", "--config", str(config)], catch_exceptions=False)
    assert served[:12] in again.output
    assert Path(mirror(second, "near") / "active.json").exists()
