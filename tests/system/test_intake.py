"""When a file in the inbox is whole, which adapter it is for, and when its bytes were there before."""

import json
import os
import time
from pathlib import Path
from typing import IO

import pytest
from circle import Circle, chat_rows, read_json
from ends import assert_one_drop

QUIET_S = 0.3


@pytest.fixture
def watching(circle: Circle) -> Circle:
    """A daemon that takes no file by quiet time soon, and trains for long."""
    circle.configure(training={"epochs": 100}, validation={"settle_s": 30.0})
    return circle.start_daemon()


@pytest.fixture
def patient(circle: Circle) -> Circle:
    """A daemon whose quiet time is short, and trains for long."""
    circle.configure(training={"epochs": 100}, validation={"settle_s": QUIET_S})
    return circle.start_daemon()


def put(path: Path, content: bytes) -> IO[bytes]:
    """Write into the inbox as any program would, without a rename; the file stays open."""
    file = path.open("ab", buffering=0)
    file.write(content)
    return file


def let_quiet_time_pass(circle: Circle, number: int) -> None:
    """A file that was whole after everything before has been taken: what still lies there is not taken for being quiet."""
    name = f"later-{number}.jsonl"
    put(circle.inbox / name, b"{}\n").close()
    circle.rejected(name)


def test_a_file_renamed_into_place_is_queued_at_once(watching: Circle) -> None:
    aside = watching.root / "aside.jsonl"
    content = chat_rows()
    aside.write_bytes(content)
    started = time.monotonic()
    aside.rename(watching.inbox / "rows.jsonl")
    watching.wait(watching.jobs, "a job is queued")
    print(f"from rename to queued: {time.monotonic() - started:.3f} s")  # noqa: T201 - a measure to look at with -rP, not to assert
    assert_one_drop_of(watching, content)


def assert_one_drop_of(circle: Circle, content: bytes) -> None:
    circle.wait(lambda: [read_json(drop / "accepted.json")["job_made"] for drop in circle.drops("accepted")] == [True], "the drop is accepted")
    assert_one_drop(circle, content)


@pytest.mark.parametrize("name", [".rows.jsonl", "rows.jsonl.part"])
def test_a_hidden_name_is_left_alone_until_it_is_renamed(watching: Circle, name: str) -> None:
    content = chat_rows()
    (watching.inbox / name).write_bytes(content)
    (watching.inbox / ".other.jsonl").write_bytes(content)
    (watching.inbox / "other.jsonl.part").write_bytes(content)
    (watching.inbox / name).rename(watching.inbox / "rows.jsonl")
    watching.wait(watching.jobs, "a job is queued")
    assert (watching.inbox / ".other.jsonl").exists()
    assert (watching.inbox / "other.jsonl.part").exists()


def test_a_file_written_in_place_is_taken_after_close_quiet_time_and_a_whole_last_line(patient: Circle) -> None:
    content = chat_rows()
    path = patient.inbox / "rows.jsonl"
    cut = len(content) // 2
    assert content[cut - 1 : cut] != b"\n"
    put(path, content[:cut]).close()
    let_quiet_time_pass(patient, 1)
    assert path.exists(), "closed and quiet, but the last line is not whole"
    end = content.index(b"\n", cut) + 1
    with put(path, content[cut:end]) as file:
        let_quiet_time_pass(patient, 2)
        assert path.exists(), "quiet and whole, but its writer has it open"
        file.write(content[end:])
    assert patient.jobs() == {}
    patient.wait(patient.jobs, "closed, quiet and whole: a job is queued")
    assert_one_drop_of(patient, content)


def test_a_file_whose_last_line_is_never_whole_is_refused_after_a_longer_quiet_time(circle: Circle) -> None:
    circle.configure(validation={"settle_s": QUIET_S, "unparsable_settle_s": 2 * QUIET_S})
    circle.start_daemon()
    put(circle.inbox / "torn.jsonl", chat_rows(20)[:-10]).close()
    _, report = circle.rejected("torn.jsonl")
    assert report["findings"][0]["id"] == "J01"
    assert report["findings"][0]["lines"] == [20]


def test_a_file_that_lay_there_before_the_daemon_is_taken(circle: Circle) -> None:
    content = chat_rows()
    circle.drop(content)
    circle.configure(training={"epochs": 100})
    circle.start_daemon()
    circle.wait(circle.jobs, "a job is queued")
    assert_one_drop_of(circle, content)


def test_a_file_that_changes_after_it_was_claimed_is_settled_and_read_again(circle: Circle) -> None:
    circle.configure(training={"epochs": 100}, validation={"settle_s": QUIET_S})
    circle.brake("gate")
    circle.start_daemon()
    aside = circle.root / "rows.jsonl"
    with put(aside, chat_rows(100)) as file:
        aside.rename(circle.inbox / "rows.jsonl")
        circle.wait(circle.in_gate, "the gate has it")
        file.write(chat_rows(100, start=100))
    circle.wait_held("gate")
    circle.let_go("gate")
    circle.wait(circle.jobs, "a job is queued")
    assert_one_drop_of(circle, chat_rows(200))
    assert "drop.changed_while_read" in circle.told()


def test_the_same_bytes_are_told_the_first_job_and_again_forces_another(circle: Circle) -> None:
    circle.configure(training={"epochs": 100})
    circle.start_daemon()
    content = chat_rows()
    circle.drop(content)
    circle.wait(circle.jobs, "a job is queued")
    first = circle.job()
    circle.drop(content, "copy.jsonl")
    folder, report = circle.rejected("copy.jsonl")
    finding = report["findings"][0]
    assert finding["id"] == "DUPLICATE"
    assert first in finding["message"]
    assert "lorad drop --again" in finding["hint"]
    assert (folder / "copy.jsonl").read_bytes() == content
    circle.drop(content, "elsewhere/tone/copy.jsonl")
    circle.wait(lambda: len(circle.jobs()) == 2, "for another adapter they are another drop")
    again = circle.root / "again.jsonl"
    again.write_bytes(content)
    done = circle.lorad("drop", "--again", str(again))
    assert done.returncode == 0, done.stderr
    circle.wait(lambda: len(circle.jobs()) == 3, "a second job on the same bytes")
    cards = [read_json(folder / "job.json") for folder in circle.job_folders().values()]
    assert [card["adapter"] for card in cards] == ["default/main", "elsewhere/tone", "default/main"]
    assert len({card["sha256"] for card in cards}) == 1
    assert again.read_bytes() == content, "`lorad drop` copies"


def test_folders_name_the_adapter_and_sidecars_the_wishes(circle: Circle) -> None:
    circle.configure(training={"epochs": 100})
    circle.start_daemon()
    circle.drop(chat_rows(start=0), "support/rows.jsonl")
    circle.wait(lambda: len(circle.jobs()) == 1, "the first job")
    circle.drop(chat_rows(start=1000), "support/tone/rows.jsonl", sidecar={"priority": 7, "learning_rate": 1e-5, "notes": "from the archive"})
    circle.wait(lambda: len(circle.jobs()) == 2, "the second job")
    file = circle.root / "mine.jsonl"
    file.write_bytes(chat_rows(start=2000))
    done = circle.lorad("drop", str(file), "--adapter", "legal/letters", "--priority", "3", "--set", "lora.r=8")
    assert done.returncode == 0, done.stderr
    circle.wait(lambda: len(circle.jobs()) == 3, "the third job")
    cards = [read_json(folder / "job.json") for folder in circle.job_folders().values()]
    assert [(card["adapter"], card["priority"]) for card in cards] == [("support/main", 0), ("support/tone", 7), ("legal/letters", 3)]
    frozen = [json.loads((folder / "config.json").read_text()) for folder in circle.job_folders().values()]
    assert frozen[1]["values"]["learning_rate"] == 1e-5
    assert frozen[1]["origins"]["learning_rate"] == "sidecar"
    assert frozen[1]["job"]["notes"] == "from the archive"
    assert frozen[2]["values"]["lora"]["r"] == 8
    assert not any(name.endswith(".job.json") for _, _, names in os.walk(circle.inbox) for name in names)


def test_lorad_drop_says_what_it_will_not_send(watching: Circle) -> None:
    file = watching.root / "mine.jsonl"
    file.write_bytes(chat_rows())
    for words, code in (
        (["--set", "model_path=/etc"], "SIDECAR_FORBIDDEN_KEY"),
        (["--set", "learning_rat=1"], "CONFIG_UNKNOWN_KEY"),
        (["--adapter", "Not/Good"], "ADAPTER_NAME"),
    ):
        done = watching.lorad("drop", str(file), *words)
        assert done.returncode == 3
        assert code in done.stderr
    done = watching.lorad("drop", str(watching.root / "missing.jsonl"))
    assert done.returncode == 3
    assert "FILE_MISSING" in done.stderr
    assert [path.name for path in watching.inbox.iterdir()] == ["rejected"]
