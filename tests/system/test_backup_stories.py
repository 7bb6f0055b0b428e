"""A home that is lost comes back from a backup that was made while the daemon worked, and finds its box further than it knew."""

import json
from pathlib import Path

import pytest
from circle import Circle, chat_rows, read_json, read_lines
from stages import CONTENT


def released(circle: Circle, number: int = 0) -> str:
    job = circle.wait_state("released", number)
    release: str = circle.facts(job)["release"]
    return release


def test_a_snapshot_and_a_backup_beside_a_working_daemon(circle: Circle, tmp_path: Path) -> None:
    circle.brake("train")
    circle.start_daemon()
    circle.drop(CONTENT)
    circle.wait_held("train")
    job = circle.wait_state("training")
    made = json.loads(circle.lorad("snapshot", "create", "--format", "json").stdout)
    assert Path(made["folder"], "SEALED").exists()
    assert [line["snapshot"] for line in json.loads(circle.lorad("snapshot", "list", "--format", "json").stdout)] == [made["snapshot"]]
    none = circle.lorad("snapshot", "create", "--job", job)
    assert none.returncode == 2
    assert "has no whole checkpoint" in none.stderr
    file = tmp_path / "b.tar.zst"
    assert circle.lorad("backup", str(file)).returncode == 0
    again = circle.lorad("restore", str(file), "--into", str(tmp_path / "again"))
    assert again.returncode == 0, again.stderr
    assert read_json(next((tmp_path / "again" / "jobs" / "training").glob("*/training.json")))["kind"] == "training"
    assert circle.lorad("restore", str(file), "--into", str(circle.home)).returncode == 1, "a home is never overwritten"
    circle.let_go("train")
    actions = [line["action"] for line in read_lines(circle.home / "journal.jsonl")]
    assert actions.count("snapshot.made") == 2
    assert actions.count("snapshot.failed") == 1


@pytest.mark.full
def test_a_restored_home_goes_on_where_the_far_side_stands(circle: Circle, tmp_path: Path) -> None:
    circle.configure(deploy={"targets": [{"name": "local", "path": "home/serving"}]})
    circle.start_both()
    circle.drop(CONTENT)
    first = released(circle)
    file = tmp_path / "b.tar.zst"
    assert circle.lorad("backup", str(file)).returncode == 0
    circle.drop(chat_rows(start=1000), "second.jsonl", sidecar={"training": {"epochs": 5}})
    second = released(circle, 1)
    fence = read_json(circle.box / "out" / "active.json")["fence_seen"]
    circle.daemon.stop()
    restored = circle.lorad("restore", str(file), "--into", str(tmp_path / "again"))
    assert restored.returncode == 0, restored.stderr
    # The home is lost; the box goes on serving the second release, which the restored home has never heard of.
    circle.configure(home="again", deploy={"targets": [{"name": "local", "path": "home/serving"}]})
    circle.start_daemon()
    again = tmp_path / "again"
    listed = json.loads(circle.lorad("jobs", "list", "--format", "json").stdout)
    assert [row["state"] for row in listed] == ["released"]
    circle.wait(lambda: any(line["release"] == second for line in read_lines(again / "live.jsonl")), "it learns what is live")
    assert circle.ask().headers["x-lorad-release"] == second, "nothing was wished meanwhile"
    back = circle.lorad("adapters", "rollback", "default/main", "--to", "v1")
    assert back.returncode == 0, back.stderr
    assert circle.ask().headers["x-lorad-release"] == first
    assert read_json(again / "targets" / "local" / "desired.json")["fence"] > fence, "the fence never goes backwards"
