"""The gate inside the running daemon: how deep, what is put aside, drops that are folders, and the deep check that follows."""

import json
import os
import signal
import struct
import zlib
from pathlib import Path

import pytest
from circle import Circle, chat_rows, read_json, read_lines

from store.seals import check_seal

SECRET = "AKIA" + "QX7MNB2WJ4TLVPC3"  # of the shape of a key; nobody's
ROBOT = json.dumps({"messages": [{"role": "robot", "content": "q"}, {"role": "assistant", "content": "a"}]}).encode() + b"\n"
LONG = {"epochs": 100}


def with_a_secret() -> bytes:
    """Rows that pass at standard and not at deep."""
    rows = chat_rows().splitlines(keepends=True)
    rows[7] = rows[7].replace(b"has enough words", f"has the key {SECRET}".encode())
    return b"".join(rows)


def accepted(circle: Circle) -> tuple[Path, dict[str, object]]:
    """The only accepted drop: its folder and what it says of itself."""
    (drop,) = circle.wait(lambda: circle.drops("accepted"), "a drop is accepted")
    facts: dict[str, object] = circle.wait(lambda: read_json(drop / "accepted.json"), "it says so")
    return drop, facts


# --- how deep


def test_the_level_comes_from_the_sidecar_the_source_or_the_adapter(circle: Circle) -> None:
    levels = {"levels": {"support": "quick"}, "sources": {"scraped": "deep"}}
    circle.configure(training=LONG, validation=levels)
    circle.start_daemon()
    for number, (place, sidecar) in enumerate(
        [("one.jsonl", None), ("support/two.jsonl", None), ("support/three.jsonl", {"source": "scraped"}), ("four.jsonl", {"level": "quick"})]
    ):
        circle.drop(chat_rows(60, start=1000 * number), place, sidecar)
        circle.wait(lambda: len(circle.jobs()) == number + 1, f"{place} is queued")  # noqa: B023 - called at once
    reports = [json.loads((drop / "rows" / "report.json").read_text()) for drop in circle.drops("accepted")]
    assert [report["level"] for report in reports] == ["standard", "quick", "deep", "quick"]
    listed = read_json(circle.home / "caches" / "listing.json")["drops"]
    assert [drop["level"] for drop in listed] == ["standard", "quick", "deep", "quick"]


def test_a_source_that_the_config_does_not_know_is_told(circle: Circle) -> None:
    circle.configure(validation={"sources": {"scraped": "deep"}})
    circle.start_daemon()
    circle.drop(chat_rows(20), "typo.jsonl", {"source": "scrapd"})
    _, report = circle.rejected("typo.jsonl")
    assert report["findings"][0]["id"] == "SOURCE_UNKNOWN"
    assert "'scraped'" in report["findings"][0]["hint"]


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"validation": {"profile": "mine"}}, "unknown profile 'mine'"),
        ({"validation": {"profiles": {"mine": {"B02.warn_shar": 0.1}}}}, "did you mean 'B02.warn_share'"),
        ({"specs": {"chat_sft_v2": "nowhere.json"}}, "nowhere.json"),
        ({"profile": {"name": "emojithink"}}, "did you mean 'emoji_think'"),
    ],
)
def test_a_daemon_does_not_start_with_a_profile_or_a_schema_that_is_wrong(circle: Circle, config: dict[str, object], word: str) -> None:
    circle.configure(**config)
    process = circle.start("daemon")
    assert process.exit_status() == 3
    assert word in process.said


# --- what is put aside


def test_a_file_is_accepted_without_its_bad_rows_and_the_counts_are_shown(circle: Circle) -> None:
    circle.configure(training=LONG, validation={"quarantine_share": 0.05})
    circle.start_daemon()
    circle.drop(chat_rows() + ROBOT * 2)
    drop, facts = accepted(circle)
    assert (facts["rows"], facts["quarantined"]) == (200, 2)
    check_seal(drop / "rows")
    assert [row["line"] for row in read_lines(drop / "rows" / "quarantine.jsonl")] == [201, 202]
    assert len(read_lines(drop / "rows" / "index.jsonl")) == 200
    circle.wait(lambda: circle.status()["findings"], "status shows what was found")
    assert circle.status()["findings"][0]["quarantined"] == 2
    assert "robot" not in (circle.home / "status.json").read_text(), "and no text of the rows"
    assert "without 2 rows" in circle.lorad("status").stdout
    circle.drop(chat_rows(start=1000) + ROBOT * 20, "more.jsonl")
    assert circle.rejected("more.jsonl")[1]["verdict"] == "refused"


# --- folders


def png(shade: int, side: int = 24) -> bytes:
    """A small picture."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + bytes((shade + place) % 256 for place in range(side * 3)) for _ in range(side))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def pictures(circle: Circle, count: int = 14) -> Path:
    """A folder of rows with pictures, outside the inbox."""
    folder = circle.root / "pictures.drop"
    (folder / "images").mkdir(parents=True)
    lines = []
    for number in range(count):
        (folder / "images" / f"{number}.png").write_bytes(png(number * 11))
        content = [{"type": "image"}, {"type": "text", "text": f"What does picture {number} show?"}]
        messages = [{"role": "user", "content": content}, {"role": "assistant", "content": f"Shades that begin at number {number * 11}."}]
        lines.append(json.dumps({"messages": messages, "images": [f"images/{number}.png"]}) + "\n")
    (folder / "rows.jsonl").write_text("".join(lines))
    return folder


def test_a_folder_with_pictures_is_checked_and_refused_whole_until_a_backend_trains_it(circle: Circle) -> None:
    circle.start_daemon()
    folder = pictures(circle)
    (circle.inbox / "pictures.job.json").write_text('{"schema_id": "vision_v1"}')
    folder.rename(circle.inbox / "pictures.drop")
    rejected, report = circle.rejected("pictures.drop")
    first = report["findings"][0]
    assert first["id"] == "OBJECTIVE_UNSUPPORTED"
    assert "pictures" in first["message"]
    assert "chat_sft_v1" in first["hint"]
    assert (report["verdict"], report["rows"], len(report["sha256"])) == ("refused", 14, 64)
    assert "V01" not in {finding["id"] for finding in report["findings"]}, "its pictures were found beside the rows"
    assert {path.name for path in rejected.iterdir()} >= {"pictures.drop", "pictures.job.json", "report.json", "report.md"}
    assert len(list((rejected / "pictures.drop" / "images").iterdir())) == 14
    assert circle.jobs() == {}


def test_a_missing_picture_is_named_before_anything_else(circle: Circle) -> None:
    circle.start_daemon()
    folder = pictures(circle)
    (folder / "images" / "3.png").unlink()
    (folder / "rows.job.json").write_text('{"schema_id": "vision_v1"}')
    folder.rename(circle.inbox / "pictures.drop")
    _, report = circle.rejected("pictures.drop")
    assert (report["findings"][0]["id"], report["findings"][0]["lines"]) == ("V01", [4])


def test_a_folder_with_text_alone_is_trained_on_and_its_inner_sidecar_counts(circle: Circle) -> None:
    circle.configure(training=LONG)
    circle.start_daemon()
    folder = circle.root / "texts.drop"
    folder.mkdir()
    (folder / "rows.jsonl").write_bytes(chat_rows())
    (folder / "rows.job.json").write_text('{"priority": 3}')
    assert "SIDECAR_TWICE" in circle.lorad("drop", str(folder), "--priority", "4").stderr
    done = circle.lorad("drop", str(folder), "--adapter", "support/tone")
    assert done.returncode == 0, done.stderr
    job = circle.wait(circle.job_folders, "a job is queued")
    card = read_json(next(iter(job.values())) / "job.json")
    assert (card["adapter"], card["file"], card["priority"]) == ("support/tone", "texts.drop", 3)
    drop, _ = accepted(circle)
    circle.wait(lambda: not (drop / "original").exists(), "the folder is gone once its rows are safe")
    assert folder.exists(), "`lorad drop` copies"


def test_a_folder_with_a_link_is_refused_and_nothing_is_followed(circle: Circle) -> None:
    circle.start_daemon()
    folder = pictures(circle)
    (folder / "images" / "more").symlink_to("/etc")
    (folder / "rows.job.json").write_text('{"schema_id": "vision_v1"}')
    assert circle.lorad("drop", str(folder)).returncode == 3, "said at once, where it is asked"
    folder.rename(circle.inbox / "pictures.drop")
    rejected, report = circle.rejected("pictures.drop")
    assert report["findings"][0]["id"] == "F11"
    assert "'images/more' in the folder is a symbolic link" in report["findings"][0]["message"]
    assert (rejected / "pictures.drop" / "images" / "more").is_symlink()


@pytest.mark.parametrize(
    ("schema", "row"),
    [("preference_v1", {"chosen": "good", "rejected": "bad"}), pytest.param("unpaired_v1", {"completion": "c", "label": True}, marks=pytest.mark.full)],
)
def test_pairs_and_judged_answers_go_the_whole_way_to_a_release(circle: Circle, schema: str, row: dict[str, object]) -> None:
    circle.start_both()
    rows = [
        {"prompt": f"What is number {number}?"} | {key: f"{value} {number}" if key != "label" else number % 2 == 0 for key, value in row.items()}
        for number in range(200)
    ]
    circle.drop("".join(json.dumps(one) + "\n" for one in rows).encode(), "pairs.jsonl", {"schema_id": schema})
    job = circle.wait_state("released", 0)
    assert read_json(circle.runs(job, "rank")[-1] / "verdict.json")["word"] == "promote"


# --- a crash is an answer


def test_a_file_that_kills_the_gate_twice_names_the_signal_the_command_and_the_end_of_the_log(circle: Circle) -> None:
    circle.brake("gate")
    circle.start_daemon()
    circle.drop(chat_rows(), "hostile.jsonl")
    circle.wait(circle.in_gate, "the drop is in the gate")
    circle.wait_held("gate")
    circle.brake("gate")
    circle.kill_held("gate")
    os.kill(circle.wait_held("gate"), signal.SIGSEGV)
    folder, report = circle.rejected("hostile.jsonl")
    finding = report["findings"][0]
    assert finding["id"] == "GATE_CRASH"
    assert "SIGSEGV" in finding["message"]
    assert finding["fix"].startswith(f"lorad check {folder / 'hostile.jsonl'} --schema chat_sft_v1 --level standard --config ")
    assert (folder / "hostile.jsonl").exists()
    assert "log" in report["stats"]


# --- the deep check that follows


@pytest.fixture
def background(circle: Circle) -> Circle:
    """A daemon that queues at standard; its background gate is held before it reads anything."""
    circle.configure(training=LONG, validation={"background_deep": True})
    circle.start_daemon()
    circle.wait(lambda: "sandbox" in (circle.home / "gate.log").read_text(), "the gate of new drops reads its input: the brake is not for it")
    circle.brake("gate")
    return circle


def held_with(circle: Circle, content: bytes, name: str = "rows.jsonl") -> str:
    """Drop, and wait until its job is queued and its deep check is held. Returns the job."""
    circle.drop(content, name)
    job = circle.wait_state("queued")
    circle.wait_held("gate")
    return job


def test_the_job_waits_in_the_queue_until_the_deep_check_has_passed(background: Circle) -> None:
    circle = background
    job = held_with(circle, chat_rows())
    circle.wait(lambda: circle.status()["gate"]["background"]["drop"], "status names what is checked in the background")
    assert "in the background" in circle.lorad("status").stdout
    circle.wait(lambda: "waits for the deep check" in circle.lorad("jobs", "list").stdout, "the list says what the job waits for")
    circle.drop(chat_rows(start=1000), "other/tone.jsonl")
    circle.wait(lambda: len(circle.jobs()) == 2, "a new drop is not held up by it")
    assert circle.jobs()[job] == "queued"
    drop = circle.drops("accepted")[0]
    assert read_json(drop / "accepted.json")["deep"]["state"] == "waiting"
    circle.let_go("gate")
    circle.wait(lambda: circle.jobs()[job] == "training", "its job starts")
    assert (read_json(drop / "accepted.json")["level"], read_json(drop / "accepted.json")["deep"]["state"]) == ("deep", "passed")
    assert json.loads((drop / "rows" / "report.json").read_text())["level"] == "deep"
    check_seal(drop / "rows")
    assert not (drop / "original").exists()


def test_a_late_refusal_moves_the_job_and_then_the_drop(background: Circle) -> None:
    circle = background
    job = held_with(circle, with_a_secret())
    circle.drop(chat_rows(start=1000), "later.jsonl")
    circle.wait(lambda: len(circle.jobs()) == 2, "a later drop of the adapter is queued")
    later = circle.job(1)
    assert read_json(circle.job_folders()[later] / "job.json")["rows_of"]["count"] == 2
    circle.let_go("gate")
    folder, report = circle.rejected("rows.jsonl")
    assert circle.jobs()[job] == "refused"
    facts = circle.facts(job)
    assert facts["code"] == "GATE_REFUSED"
    assert "D07" in facts["reason"]
    assert (report["level"], report["findings"][0]["id"]) == ("deep", "D07")
    assert (folder / "rows.jsonl").read_bytes() == with_a_secret()
    assert SECRET not in (folder / "report.json").read_text()
    circle.wait(lambda: circle.jobs()[later] == "training", "the later job starts, without those rows")
    assert read_json(circle.job_folders()[later] / "job.json")["rows_of"]["count"] == 1
    spec = read_json(circle.runs(later, "train")[0] / "spec.json")
    assert [row["drop"] for row in spec["rows"]] == [read_json(circle.job_folders()[later] / "job.json")["drop"]]


@pytest.mark.parametrize("content", [pytest.param(chat_rows(), id="passes", marks=pytest.mark.full), pytest.param(with_a_secret(), id="is refused")])
def test_a_daemon_that_is_killed_during_the_deep_check_does_it_again(background: Circle, content: bytes) -> None:
    circle = background
    job = held_with(circle, content)
    circle.daemon.kill()
    circle.start_daemon()
    wanted = "training" if content == chat_rows() else "refused"
    circle.wait(lambda: circle.jobs()[job] == wanted, f"the job is {wanted}")
    if wanted == "refused":
        circle.rejected("rows.jsonl")
        circle.wait(lambda: not circle.drops("accepted"), "and nothing of it is trained on")


def test_a_background_gate_that_dies_twice_over_the_rows_refuses_them(background: Circle) -> None:
    circle = background
    job = held_with(circle, chat_rows())
    circle.brake("gate")
    circle.kill_held("gate")
    circle.kill_held("gate")
    folder, report = circle.rejected("rows.jsonl")
    assert report["findings"][0]["id"] == "GATE_CRASH"
    assert "--level deep" in report["findings"][0]["fix"]
    assert circle.facts(job)["code"] == "GATE_REFUSED"
    assert (folder / "rows.jsonl").read_bytes() == chat_rows()


def test_a_job_that_a_person_cancels_needs_no_deep_check(background: Circle) -> None:
    circle = background
    job = held_with(circle, chat_rows())
    child = circle.held("gate")
    assert circle.lorad("jobs", "cancel", job).returncode == 0
    circle.wait(lambda: circle.jobs()[job] == "cancelled", "the job is cancelled")
    circle.wait(lambda: child not in [one.pid for one in circle.children("validation")], "the background gate is ended")
    drop, facts = accepted(circle)
    assert facts["deep"] == {"state": "waiting", "crashes": 0, "not_before": None, "code": ""}
    circle.drop(chat_rows(start=1000), "later.jsonl")
    circle.wait(lambda: read_json(drop / "accepted.json")["deep"]["state"] == "passed", "a later job that trains on it has it checked")
    circle.wait(lambda: circle.jobs()[circle.job(1)] == "training", "and starts then")
