"""From pending signals to a drop that names its trigger, over the real shelf: with a storm over the caps, a refusal, and a daemon that dies in between."""

import json
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from signal_home import ADAPTER, SignalHome, signal

from core.facts import Facts
from daemon.triggers import Clocks, Triggers


@dataclass
class LoopHome:
    """A daemon's signals and triggers. `restart` forgets what was in memory of both."""

    signals: SignalHome
    elapsed_s: float = 100.0
    triggers: Triggers = field(init=False)

    def __post_init__(self) -> None:
        self.begin()

    def restart(self) -> None:
        self.signals.restart()
        self.begin()

    def begin(self) -> None:
        clocks = Clocks(now=lambda: self.signals.now, elapsed_s=lambda: self.elapsed_s, boot=lambda: "boot")
        self.triggers = Triggers(self.signals.index, self.signals.feedback, lambda adapter: False, lambda *words, **fields: None, clocks)

    def tick(self, step_s: float = 5.0) -> None:
        self.elapsed_s += step_s
        self.signals.now += timedelta(seconds=step_s)
        self.signals.turn(1)
        self.triggers.turn(Facts(instance="x", config=self.signals.index.config, backend="stub", base_sha256="base"))

    def files(self) -> list[Path]:
        return self.signals.inbox()


def loop(folder: Path, **feedback: Any) -> LoopHome:
    return LoopHome(SignalHome(folder, {"feedback": {"user_cap": 0, **feedback}, "triggers": {"few": {"any": [{"rows": 100}]}}}))


def lineage(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.with_name(file.name.removesuffix(".jsonl") + ".job.json").read_text())["lineage"]
    return found


def test_what_a_trigger_fires_becomes_one_drop_that_names_it_and_every_signal(tmp_path: Path) -> None:
    home = loop(tmp_path)
    home.signals.spool([signal(number) for number in range(120)], 1)
    for _ in range(20):
        home.tick()
    [file] = home.files()
    assert (lineage(file)["trigger"], len(lineage(file)["signals"])) == ("few", 120)
    assert (home.signals.counts().rows, home.signals.counts().queued) == (0, 120)


def test_a_daemon_that_dies_at_every_tick_makes_the_same_drop(tmp_path: Path) -> None:
    home = loop(tmp_path)
    home.signals.spool([signal(number) for number in range(120)], 1)
    for _ in range(12):
        home.restart()
        for _ in range(4):  # as long as rows need to be seen as calm, and a tick for the chore
            home.tick()
    [file] = home.files()
    assert len(lineage(file)["signals"]) == 120
    assert len(file.read_text().splitlines()) == 120


def test_a_storm_over_the_cap_of_its_source_is_one_drop_today_and_one_of_what_was_capped_tomorrow(tmp_path: Path) -> None:
    home = loop(tmp_path, source_cap=300)
    for first in range(0, 700, 100):
        home.signals.spool([signal(number) for number in range(first, first + 100)], first + 1)
        home.tick(1)
    for _ in range(20):
        home.tick()
    [file] = home.files()
    assert len(lineage(file)["signals"]) == 300
    home.signals.accept(file)
    for _ in range(26 * 6):
        home.tick(600)
    [file] = home.files()
    assert len(lineage(file)["signals"]) == 150, "half of what a source may say in a day is kept for that day"


def test_what_the_gate_gives_back_for_no_row_of_its_own_waits_for_new_rows(tmp_path: Path) -> None:
    home = loop(tmp_path)
    home.signals.spool([signal(number) for number in range(120)], 1)
    for _ in range(20):
        home.tick()
    home.signals.refuse(home.files()[0], {"id": "F99", "message": "the whole file is wrong", "lines": []})
    for _ in range(3 * 24 * 6):
        home.tick(600)
    assert home.signals.counts().rows == 120
    assert home.files() == [], "the same drop would only be refused again"
    home.signals.spool([signal(number) for number in range(120, 140)], 121)
    for _ in range(20):
        home.tick()
    [file] = home.files()
    assert len(lineage(file)["signals"]) == 140


def test_what_a_held_source_brings_makes_no_row_new_that_the_gate_gave_back(tmp_path: Path) -> None:
    home = loop(tmp_path)
    home.signals.spool([signal(number, source="scraper") for number in range(500, 540)], 1)
    home.tick()
    home.signals.say("flush")
    bad = list(range(1, 6))
    home.signals.turn()
    home.signals.refuse(home.files()[0], {"id": "M05", "lines": bad, "count": 38, "message": "the answer is cut off"})
    home.signals.turn(5)
    assert list(home.signals.counts().held_sources) == ["scraper"]
    home.signals.spool([signal(number) for number in range(120)], 41)
    for _ in range(20):
        home.tick()
    home.signals.refuse(home.files()[0], {"id": "F99", "message": "the whole file is wrong", "lines": []})
    for number in range(3 * 24):
        home.signals.spool([signal(1000 + number, source="scraper")], 161 + number)
        for _ in range(3):
            home.tick(1200)
    assert (home.signals.counts().rows, home.signals.counts().quarantined) == (120, 40 + 72)
    assert home.files() == [], "the same drop would only be refused again"
    home.signals.say("reject", id=signal(7).id)
    home.signals.spool([signal(number) for number in range(200, 221)], 233)
    for _ in range(20):
        home.tick()
    assert len(home.files()) == 1


def test_another_adapter_waits_for_nobody(tmp_path: Path) -> None:
    home = loop(tmp_path)
    others = [replace(signal(number), id=f"other{number:027d}", domain="facts") for number in range(110)]
    home.signals.spool([*(signal(number) for number in range(50)), *others], 1)
    for _ in range(20):
        home.tick()
    assert home.files() == []
    assert len(list(home.signals.home.inbox.glob("support/facts/feedback-*.jsonl"))) == 1
    assert home.signals.counts(ADAPTER).rows == 50
