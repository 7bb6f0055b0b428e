"""What `lorad plan` says before, against what the daemon does; and what a support bundle of a home that has worked lets out."""

import io
import json
import tarfile
from collections import Counter
from typing import Any

import zstandard
from circle import Circle, chat_rows, read_json, read_lines

MARK = "ZEBRAMARK"


def plan(circle: Circle, count: int, start: int = 0) -> dict[str, Any]:
    file = circle.root / "planned.jsonl"
    file.write_bytes(chat_rows(count, start=start))
    done = circle.lorad("plan", str(file), "--format", "json")
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def splits_of(circle: Circle, number: int) -> dict[str, int]:
    index = circle.drops("accepted")[number] / "rows" / "index.jsonl"
    return dict(Counter(line["split"] for line in read_lines(index)))


def test_a_plan_names_the_splits_and_steps_that_come_and_learns_from_what_it_took(circle: Circle) -> None:
    circle.start_both()
    before = plan(circle, 200)
    assert before["time"]["is_guess"]
    circle.drop(chat_rows(200))
    job = circle.wait_ended()

    assert splits_of(circle, 0) == {key: before["rows"][key] for key in ("train", "dev", "gate")}
    note = read_json(circle.runs(job, "train")[0] / "exit.json")
    assert note["total_steps"] == before["steps"]
    assert note["tokens"] == before["tokens"]["total"]
    (ran,) = read_lines(circle.home / "series" / "runs.jsonl")
    assert (ran["job"], ran["tokens"], ran["expected_s"]) == (job, note["tokens"], None)

    # A second drop, half of it known: the groups keep their split, and the time is learned.
    again = plan(circle, 200, start=100)
    assert (again["groups"]["known"], again["time"]["runs"]) == (100, 1)
    circle.drop(chat_rows(200, start=100))
    second = circle.wait_ended(1)
    assert splits_of(circle, 1) == {key: again["rows"][key] for key in ("train", "dev", "gate")}
    assert read_json(circle.runs(second, "train")[0] / "exit.json")["total_steps"] == again["steps"], "with the rows of the first that it does not replace"
    assert read_lines(circle.home / "series" / "runs.jsonl")[1]["expected_s"] > 0
    assert plan(circle, 200)["record"]["runs"] == 1

    # A sound circle has nothing for the doctor.
    told = circle.lorad("doctor", "--format", "json")
    assert told.returncode == 0, told.stdout
    assert {"DAEMON", "TARGET_SEEN"} <= {one["code"] for one in json.loads(told.stdout)["findings"]}


def test_a_bundle_of_a_home_that_has_worked_holds_no_row_and_no_key(circle: Circle) -> None:
    (circle.root / "urls.txt").write_text(f"json://user:{MARK}pass@127.0.0.1:1/{MARK}hook\n")
    circle.configure(serving={"port": circle.port}, alerts={"urls_file": "urls.txt", "webhook": f"http://127.0.0.1:1/{MARK}hook"})
    circle.start_daemon()
    circle.drop(chat_rows(60).replace(b"number", MARK.encode()), sidecar={"notes": f"{MARK} from a person"})
    job = circle.wait_ended()
    circle.drop(chat_rows(20).replace(b"role", b"rule" + MARK.encode()), "bad.jsonl")
    circle.rejected("bad.jsonl")
    circle.lorad("jobs", "refuse", job, "--reason", f"{MARK} is wrong")

    out = circle.root / "bundle.tar.zst"
    assert circle.lorad("support-bundle", "-o", str(out)).returncode == 0
    raw = zstandard.ZstdDecompressor().stream_reader(out.read_bytes()).read()
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        names = archive.getnames()
    assert any(name.endswith(f"{job}/job.json") for name in names)
    assert any("/drops/" in name for name in names)
    place = raw.find(MARK.encode())
    assert place < 0, raw[max(0, place - 200) : place + 100]
