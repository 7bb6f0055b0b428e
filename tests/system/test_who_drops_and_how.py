"""Who writes into the inbox and how: the five kinds of writers, several people, watches that are used up, many files at once."""

import json
import os
import pwd
import subprocess
import sys
import time

import pytest
from circle import Circle, chat_rows, read_json

LONG = {"epochs": 100}
SETTLE_S = 0.4


@pytest.fixture
def patient(circle: Circle) -> Circle:
    """A daemon with a short quiet time that trains for long."""
    circle.configure(training=LONG, validation={"settle_s": SETTLE_S, "unparsable_settle_s": 20.0})
    return circle.start_daemon()


# ---------------------------------------------------------------- FAULT-F05: five writers

WRITER = """
import os, sys, time
path, source, kind, pause_s = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
rows = open(source, "rb").read()
cut = len(rows) // 2
lines = rows.splitlines(keepends=True)
if kind == "slow":
    with open(path, "ab", buffering=0) as file:
        for part in range(10):
            file.write(rows[part * len(rows) // 10:(part + 1) * len(rows) // 10])
            time.sleep(pause_s / 10)
elif kind == "stall":
    with open(path, "ab", buffering=0) as file:
        file.write(b"".join(lines[:50]))
        time.sleep(pause_s)
        file.write(b"".join(lines[50:]))
elif kind == "reopen":
    for part in range(4):
        with open(path, "ab", buffering=0) as file:
            file.write(b"".join(lines[part * len(lines) // 4:(part + 1) * len(lines) // 4]))
        time.sleep(pause_s / 4)
elif kind == "allocate":
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.posix_fallocate(fd, 0, len(rows))
    time.sleep(pause_s)
    os.write(fd, rows)
    os.close(fd)
elif kind == "rename":
    hidden = os.path.join(os.path.dirname(path), ".hidden")
    with open(hidden, "wb") as file:
        file.write(rows)
        time.sleep(pause_s)
    os.rename(hidden, path)
"""


@pytest.mark.parametrize(
    ("kind", "pause_s"),
    [
        ("slow", 3 * SETTLE_S),
        ("stall", 3 * SETTLE_S),  # quiet, and every line whole; but its writer has it open
        ("reopen", 2 * SETTLE_S),  # closed and whole each time, and never quiet for long
        ("allocate", 3 * SETTLE_S),  # has its size from the start, and says nothing yet
        ("rename", SETTLE_S),
    ],
)
def test_nothing_is_taken_before_its_writer_is_done(patient: Circle, kind: str, pause_s: float) -> None:
    source = patient.root / "source.jsonl"
    source.write_bytes(chat_rows(100))
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(patient.inbox / "rows.jsonl"), str(source), kind, str(pause_s)])
    try:
        patient.wait(patient.jobs, "a job is queued")
        (drop,) = patient.drops("accepted")
        accepted = patient.wait(lambda: read_json(drop / "accepted.json"), "it is accepted")
        assert accepted["rows"] == 100, "never a part of it"
        assert len(patient.jobs()) == 1
        assert list((patient.inbox / "rejected").iterdir()) == []
    finally:
        writer.wait(30)


# ---------------------------------------------------------------- FAULT-F07: the same bytes again


def test_a_file_that_is_renamed_touched_and_copied_is_one_job_and_each_copy_is_told_the_first(patient: Circle) -> None:
    content = chat_rows(60)
    for number in range(6):
        path = patient.root / f"aside-{number}"
        path.write_bytes(content)
        os.utime(path, (number * 1e6, number * 1e6))  # touched, each at another time
        path.rename(patient.inbox / f"copy-{number}.jsonl")
    patient.wait(lambda: len(list((patient.inbox / "rejected").glob("*/report.json"))) == 5, "five are told")
    first = patient.job()
    assert list(patient.jobs()) == [first], "one training"
    for report in (patient.inbox / "rejected").glob("*/report.json"):
        finding = json.loads(report.read_text())["findings"][0]
        assert finding["id"] == "DUPLICATE"
        assert first in finding["message"]


# ---------------------------------------------------------------- several people (ATTACK-S02, S05)


def test_a_persona_is_fed_by_its_own_user_alone(circle: Circle) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make files of other users")
    other = next(entry for entry in pwd.getpwall() if entry.pw_uid not in (0, os.geteuid()))
    circle.configure(training=LONG, inbox={"users": {"ann": other.pw_name, "bob": "nobody-of-this-name"}})
    circle.start_daemon()
    mine = circle.root / "mine.jsonl"
    mine.write_bytes(chat_rows(40, start=500))
    os.chown(mine, other.pw_uid, other.pw_gid)
    (circle.inbox / "ann").mkdir()
    mine.rename(circle.inbox / "ann" / "mine.jsonl")
    circle.wait(circle.jobs, "her own file is taken")
    stranger = next(entry for entry in pwd.getpwall() if entry.pw_uid not in (0, other.pw_uid))
    theirs = circle.root / "theirs.jsonl"
    theirs.write_bytes(chat_rows(40))
    os.chown(theirs, stranger.pw_uid, stranger.pw_gid)
    theirs.rename(circle.inbox / "ann" / "theirs.jsonl")
    folder, report = circle.rejected("ann/theirs.jsonl")
    finding = report["findings"][0]
    assert finding["id"] == "OWNER_FOREIGN"
    assert all(word in finding["message"] for word in (repr(stranger.pw_name), "'ann'", repr(other.pw_name)))
    assert (folder / "theirs.jsonl").read_bytes() == chat_rows(40)
    circle.drop(chat_rows(40), "bob/x.jsonl")
    assert circle.rejected("bob/x.jsonl")[1]["findings"][0]["id"] == "OWNER_UNKNOWN"
    assert len(circle.jobs()) == 1


def test_a_file_with_a_second_name_is_refused_and_its_bytes_are_not_read(patient: Circle) -> None:
    secret = patient.root / "secret.jsonl"
    secret.write_bytes(chat_rows(40))
    os.link(secret, patient.inbox / "mine.jsonl")
    _, report = patient.rejected("mine.jsonl")
    finding = report["findings"][0]
    assert (finding["id"], report["sha256"], report["rows"]) == ("HARD_LINK", "", 0)
    assert secret.read_bytes() == chat_rows(40)
    folder = patient.root / "pictures.drop"
    folder.mkdir()
    (folder / "rows.jsonl").write_bytes(chat_rows(40))
    os.link(secret, folder / "picture.png")
    folder.rename(patient.inbox / "pictures.drop")
    assert patient.rejected("pictures.drop")[1]["findings"][0]["id"] == "HARD_LINK"
    assert patient.jobs() == {}


def test_what_is_over_the_quota_of_a_persona_waits_and_status_says_so(circle: Circle) -> None:
    circle.configure(training=LONG, inbox={"quota_mb": 1}, validation={"level": "quick"})
    circle.start_daemon()
    half = chat_rows(4000)
    assert (1 << 19) < len(half) < (1 << 20)
    circle.drop(half, "ann/first.jsonl")
    circle.wait(circle.jobs, "the first is taken")
    circle.drop(half, "ann/second.jsonl")
    circle.drop(half, "bob/first.jsonl")
    circle.wait(lambda: len(circle.jobs()) == 2, "another persona has a quota of its own")
    circle.wait(lambda: circle.status()["inbox"]["over_quota"] == {"ann": 1}, "status says what waits")
    assert "over the quota" in circle.lorad("status").stdout
    assert (circle.inbox / "ann" / "second.jsonl").exists()
    circle.drop(half + chat_rows(4000, start=9000), "bob/huge.jsonl")
    assert circle.rejected("bob/huge.jsonl")[1]["findings"][0]["id"] == "QUOTA", "it could never be taken"
    circle.daemon.kill()
    circle.configure(training=LONG, validation={"level": "quick"})
    circle.start_daemon()
    _, report = circle.rejected("ann/second.jsonl")
    assert report["findings"][0]["id"] == "DUPLICATE", "without a quota it is taken at once"


# ---------------------------------------------------------------- FAULT-F04: no watches left

NO_INOTIFY = ("unshare", "--user", "--map-root-user", "bash", "-c", 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"', "_")


def test_where_watches_are_used_up_the_inbox_is_looked_at_and_status_says_so(circle: Circle) -> None:
    if subprocess.run([*NO_INOTIFY, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    circle.configure(training=LONG, validation={"settle_s": SETTLE_S})
    circle.prefix = NO_INOTIFY
    circle.daemon = circle.start("daemon")
    circle.wait(lambda: "lorad watches" in circle.daemon.said, "the daemon is ready")
    circle.wait((circle.home / "status.json").exists, "it tells how it stands")
    circle.wait(lambda: circle.status()["inbox"]["watch"] == "poll", "status says how")
    assert "no more watches" in circle.status()["inbox"]["reason"]
    assert "looked at every second" in circle.lorad("status").stdout
    started = time.monotonic()
    circle.drop(chat_rows(60))
    circle.wait(circle.jobs, "a job is queued")
    print(f"from rename to queued without watches: {time.monotonic() - started:.2f} s")  # noqa: T201 - a measure to look at with -rP


# ---------------------------------------------------------------- FAULT-F03: many at once


def pour(circle: Circle, count: int, rows: int = 3) -> None:
    """`count` small drops, as fast as they can be renamed into place."""
    for number in range(count):
        aside = circle.root / "aside.jsonl"
        aside.write_bytes(chat_rows(rows, start=rows * number))
        aside.rename(circle.inbox / f"{number:06d}.jsonl")


def queued_files(circle: Circle) -> list[str]:
    """The files of the queued and started jobs, in the order of their ids."""
    return [read_json(folder / "job.json")["file"] for folder in circle.job_folders().values()]


def num_queued(circle: Circle) -> int:
    return sum(1 for _ in os.scandir(circle.home / "jobs" / "queued"))


def burst(circle: Circle, count: int, patience_s: float = 120.0) -> None:
    circle.start_daemon()
    with circle.slot_taken():
        started = time.monotonic()
        pour(circle, count)
        circle.wait(lambda: num_queued(circle) == count, "all are queued", patience_s)
        print(f"{count} drops in {time.monotonic() - started:.1f} s")  # noqa: T201 - a measure to look at with -rP
        assert queued_files(circle) == [f"{number:06d}.jsonl" for number in range(count)], "in the order in which they were dropped"
        cards = [read_json(folder / "job.json") for folder in circle.job_folders().values()]
        assert [card["rows_of"]["count"] for card in cards] == list(range(1, count + 1)), "each trains on all that came before"
    assert list((circle.inbox / "rejected").iterdir()) == []
    assert_no_group_has_two_splits(circle)


def assert_no_group_has_two_splits(circle: Circle) -> None:
    splits: dict[str, set[str]] = {}
    for index in circle.home.glob("drops/accepted/*/rows/index.jsonl"):
        for line in index.read_text().splitlines():
            row = json.loads(line)
            splits.setdefault(row["group"], set()).add(row["split"])
    assert splits
    assert all(len(found) == 1 for found in splits.values())


def test_hundreds_of_small_drops_are_queued_in_order(circle: Circle) -> None:
    burst(circle, 300)


@pytest.mark.full
def test_thousands_of_small_drops_are_queued_in_order(circle: Circle) -> None:
    burst(circle, 5_000, 3600.0)


def test_a_daemon_killed_in_a_burst_loses_nothing_and_takes_nothing_twice(circle: Circle) -> None:
    circle.start_daemon()
    with circle.slot_taken():
        pour(circle, 150)
        for wanted in (20, 70):
            circle.wait(lambda: num_queued(circle) >= wanted, f"{wanted} are queued")  # noqa: B023 - called at once
            circle.daemon.kill()
            circle.start_daemon()
        circle.wait(lambda: num_queued(circle) == 150, "all are queued")
        assert sorted(queued_files(circle)) == [f"{number:06d}.jsonl" for number in range(150)]
    assert_no_group_has_two_splits(circle)


def test_conversations_that_several_drops_of_a_burst_share_have_one_split(circle: Circle) -> None:
    """Each drop repeats rows of the one before, while that one's acceptance is not decided yet."""
    circle.start_daemon()
    with circle.slot_taken():
        for number in range(40):
            circle.drop(chat_rows(30, start=10 * number), f"{number:03d}.jsonl")
        circle.wait(lambda: num_queued(circle) == 40, "all are queued")
    assert_no_group_has_two_splits(circle)
