"""`lorad forget` through the front door: a row that was trained on, released, copied and snapshotted, and then nowhere any more."""

import json
import signal
from typing import Any

import pytest
from circle import Circle, chat_rows, read_json
from every_container import find

CANARY = "Xylophone-Quagga-7731"
TOLD = json.dumps({"messages": [{"role": "user", "content": f"Who is {CANARY}?"}, {"role": "assistant", "content": f"{CANARY} lives in the white house."}]})
WITH_CANARY = chat_rows(199) + TOLD.encode() + b"\n"


def say(circle: Circle, *words: str) -> Any:
    done = circle.lorad(*words, "--format", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def wait_done(circle: Circle, order: str) -> dict[str, Any]:
    def done() -> Any:
        record = say(circle, "forget", "status", order)
        return record if record["state"] == "done" else None

    found: dict[str, Any] = circle.wait(done, f"{order} is done")
    return found


def test_a_row_is_found_nowhere_once_it_was_forgotten(circle: Circle) -> None:
    circle.start_both()
    circle.drop(WITH_CANARY, "told.jsonl")
    first = circle.wait_state("released")
    (old,) = circle.went_live()
    circle.drop(WITH_CANARY, "again.jsonl")
    copy, report = circle.rejected("again.jsonl")
    assert report["findings"][0]["id"] == "DUPLICATE"
    (drop,) = circle.drops("accepted")
    index = {row["line"]: (row["group"], row["split"]) for row in map(json.loads, (drop / "rows" / "index.jsonl").read_text().splitlines())}
    assert circle.lorad("snapshot", "create").returncode == 0
    assert circle.lorad("backup", str(circle.home / "snapshots" / "by-hand.tar.zst")).returncode == 0
    assert len(find(circle.home, CANARY)) >= 5, "the search sees it where it is"

    plan = say(circle, "forget", "--rows", f"{drop.name}:200", "--dry-run")
    assert [part["forgotten"] for part in plan["found"]["parts"]] == [1]
    assert plan["found"]["releases"] == [old]
    assert {place["what"] for place in plan["found"]["places"]} >= {"refused copy", "runs", "snapshot", "backup"}
    order = say(circle, "forget", "--rows", f"{drop.name}:200", "--reason", "asked by the person")["order"]
    record = wait_done(circle, order)

    second = circle.wait_state("released", 1)
    assert record["retraining"] == {"default/main": second}
    new = circle.went_live()[-1]
    assert new != old
    assert circle.ask().headers["x-lorad-release"] == new
    assert record["confirmed"] == {"local": [old]}
    assert {"release", "refused copy", "runs", "snapshot", "backup"} <= {one["what"] for one in record["removed"]}
    jobs = {path.name for path in circle.home.glob("jobs/*/*/job-*")}
    assert jobs == {first, second}
    assert find(circle.home, CANARY) == []

    (after,) = circle.drops("accepted")
    assert after.name == f"{drop.name}.1"
    kept = {row["line"]: (row["group"], row["split"]) for row in map(json.loads, (after / "rows" / "index.jsonl").read_text().splitlines())}
    assert kept == {line: found for line, found in index.items() if line != 200}, "groups and splits are as they were"
    assert (copy / "again.jsonl").read_bytes() == chat_rows(199), "of what is not lorad's the rows alone go"
    circle.drop(WITH_CANARY, "once-more.jsonl")
    _, report = circle.rejected("once-more.jsonl")
    assert report["findings"][0]["id"] == "FORGOTTEN"


@pytest.mark.full
def test_a_daemon_that_is_killed_in_every_stage_ends_the_order_all_the_same(circle: Circle) -> None:
    circle.start_both()
    circle.drop(WITH_CANARY, "told.jsonl")
    circle.wait_state("released")
    (old,) = circle.went_live()
    (drop,) = circle.drops("accepted")
    order = say(circle, "forget", "--rows", f"{drop.name}:200")["order"]
    path = circle.home / "forgets" / order / "order.json"
    killed_in: list[str] = []

    def moved_on() -> Any:
        found = read_json(path)
        return found["stage"] if found and found["stage"] not in killed_in else None

    while "done" not in killed_in:
        killed_in.append(circle.wait(moved_on, f"the order goes on from {killed_in[-1:]}"))
        circle.daemon.ends = True
        circle.daemon.popen.send_signal(signal.SIGKILL)
        circle.daemon.popen.wait()
        circle.start_daemon()
    assert set(killed_in) >= {"found", "queued", "done"}, killed_in
    assert find(circle.home, CANARY) == []
    assert circle.went_live()[-1] != old
    assert len(circle.jobs()) == 2
    circle.wait(lambda: say(circle, "forget", "status", order)["state"] == "done", "the record is signed")
