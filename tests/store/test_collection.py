"""What lies in home is counted rightly, what is needed is known by the records, and what goes goes without harm."""

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest
from homes import ADAPTER, START, add_job, add_release, new_home, put_live

from core.records import JobState
from core.retention import Part
from core.sections import RetentionConfig
from store.collection import Report, collect, survey
from store.jobs import read_all
from store.paths import Home
from store.references import references_of, set_pin
from store.releases import read_releases
from store.runs import candidates_of
from store.trash import NOTE, cut_to_tail, empty_trash
from store.usage import count, items

NOW = START + timedelta(days=30)
TARGETS = ["local"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return new_home(tmp_path / "home")


def gc(home: Home, **limits: float) -> Report:
    return collect(home, RetentionConfig(**{"min_free_mb": 128, "min_free_inodes": 0} | limits), TARGETS, NOW)  # type: ignore[arg-type]


def test_two_hundred_checkpoints_come_under_the_budget_and_no_needed_one_goes(home: Home) -> None:
    jobs = [add_job(home, number, steps=20, num_bytes=20_000) for number in range(9)]
    waiting = add_job(home, 9, state=JobState.HELD, steps=20, num_bytes=20_000)
    releases = [add_release(home, version) for version in (1, 2, 3, 4)]
    put_live(home, *releases[:3])
    before = count(home).bytes
    report = gc(home, budget_gb=2.5e6 / 1e9, keep_releases=1)
    assert before > 5_000_000
    assert count(home).bytes <= 2_500_000
    assert not report.missing_bytes
    assert not home.trash.exists(), "the trash is emptied"
    steps = {job: {candidate.step for candidate in candidates_of(home, job)} for job in [*jobs, waiting]}
    assert steps[waiting] == set(range(1, 21)), "a job on its way keeps all"
    left = {release.version for release in read_releases(home)}
    assert {2, 3, 4} <= left, "previous, live and newest stay"


def test_the_newest_and_best_checkpoint_of_the_last_ended_job_stay(home: Home) -> None:
    jobs = [add_job(home, number) for number in range(3)]
    gc(home, keep_jobs=0)
    assert [[candidate.step for candidate in candidates_of(home, job)] for job in jobs] == [[], [], [1, 3]]
    assert not list((home.root / "runs").glob("*/*/resume"))
    for job in jobs:
        assert (home.runs(job) / "02-rank" / "verdict.json").exists(), "how it ended can still be told"
        assert (home.runs(job) / "01-train" / "exit.json").exists()
        log = (home.runs(job) / "01-train" / "log.txt").read_bytes()
        assert log.startswith(NOTE)
        assert log.endswith(b"a line of the log\n")
        assert len(log) < 70_000


def test_a_release_that_goes_leaves_a_tombstone(home: Home) -> None:
    releases = [add_release(home, version) for version in range(1, 5)]
    put_live(home, *releases)
    set_pin(home, releases[0], {"actor": "ann", "reason": "the demo"}, NOW)
    report = gc(home, keep_releases=1, budget_gb=1e-6)
    assert report.parts == {"release": 1}
    assert [release.version for release in read_releases(home)] == [1, 3, 4], "pinned, previous and live stay"
    stone = json.loads((home.root / "adapters" / ADAPTER / "v2.gone.json").read_text())
    assert (stone["release"], stone["version"]) == (releases[1], 2)
    set_pin(home, releases[0], None, NOW)
    gc(home, keep_releases=1, budget_gb=1e-6)
    assert [release.version for release in read_releases(home)] == [3, 4]


@pytest.mark.parametrize("damage", ["ledger", "active", "pins", "never seen", "job"])
def test_where_a_list_of_what_is_needed_is_damaged_nothing_goes(home: Home, damage: str) -> None:
    job = add_job(home, 0)
    releases = [add_release(home, version) for version in (1, 2, 3)]
    put_live(home, *releases)
    out = home.target("local") / "out"
    match damage:
        case "ledger":
            lines = (out / "activations.jsonl").read_text().splitlines(keepends=True)
            (out / "activations.jsonl").write_text("".join([lines[0], "{torn\n", *lines[1:]]))
        case "active":
            (out / "active.json").write_text("{")
        case "pins":
            home.pins.write_text("[")
        case "never seen":
            (out / "active.json").unlink()
            (out / "activations.jsonl").unlink()
        case "job":
            next(home.root.glob(f"jobs/*/*/{job}/job.json")).unlink()
    files = sorted(str(path) for path in home.root.rglob("*"))
    report = gc(home, keep_jobs=0, keep_releases=1, budget_gb=1e-6)
    assert report.refused
    assert report.num_items == 0
    home.gc_report.unlink()
    assert sorted(str(path) for path in home.root.rglob("*")) == files


def test_a_live_release_is_needed_though_the_box_was_rolled_back_since(home: Home) -> None:
    releases = [add_release(home, version) for version in (1, 2, 3)]
    put_live(home, releases[0], releases[1], releases[2], releases[1])
    found = references_of(home, read_all(home)[0], TARGETS, ())
    assert found.releases[releases[1]].startswith("live")
    assert found.releases[releases[2]].startswith("previous")


def test_bytes_that_have_another_name_are_not_counted_as_freed(home: Home) -> None:
    job = add_job(home, 0, steps=1)
    train = home.runs(job) / "01-train" / "checkpoints" / "step_000001"
    second = home.runs(job) / "03-train" / "checkpoints" / "step_000001"
    second.mkdir(parents=True)
    for path in train.iterdir():
        os.link(path, second / path.name)
    (checkpoint,) = [item for item in items(home, {job: ADAPTER}) if item.part is Part.CHECKPOINT]
    assert len(checkpoint.paths) == 2, "one checkpoint under two runs goes as one"
    assert checkpoint.bytes > 100_000
    (home.snapshots / "s").mkdir()
    os.link(train / "adapter_model.safetensors", home.snapshots / "s" / "w")
    (checkpoint,) = [item for item in items(home, {job: ADAPTER}) if item.part is Part.CHECKPOINT]
    assert checkpoint.bytes < 100_000, "the snapshot holds the large file"


def test_a_dry_look_changes_nothing_and_names_the_largest_folder(home: Home) -> None:
    add_job(home, 0)
    files = sorted(str(path) for path in home.root.rglob("*"))
    found = survey(home, RetentionConfig(keep_jobs=0, min_free_mb=128), TARGETS, NOW)
    assert found.plan.going
    assert found.usage.most()[0] == "runs"
    assert sorted(str(path) for path in home.root.rglob("*")) == files


def test_what_a_dead_daemon_left_in_the_trash_goes_later(home: Home) -> None:
    (home.trash / "000000-step_000001").mkdir(parents=True)
    (home.trash / "000000-step_000001" / "SEALED").touch()
    assert empty_trash(home, {}) == {"deleted": 1}
    assert empty_trash(home, {}) == {"deleted": 0}


def test_a_log_is_cut_while_it_is_written(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with log.open("ab", buffering=0) as writer:
        for number in range(20_000):
            writer.write(b"line %d\n" % number)
        assert cut_to_tail(log, 1000)
        writer.write(b"and on\n")
    lines = log.read_bytes().splitlines()
    assert lines[0] + b"\n" == NOTE
    assert lines[-2:] == [b"line 19999", b"and on"]
    assert log.stat().st_size < 1100
    assert not cut_to_tail(log, 2000)
