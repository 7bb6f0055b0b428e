"""What a daemon tells of itself: to readers that look at any moment, and to people who are not there."""

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from circle import Circle, chat_rows, read_json
from processes import LORAD, wait_until

sys.path.insert(0, str(Path(__file__).parents[1] / "daemon"))
from receiver import Receiver, receiver

from daemon.channels import key_of, verify

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def told() -> Iterator[Receiver]:
    with receiver() as server:
        yield server


def alarmed(circle: Circle, url: str, **more: Any) -> Circle:
    """A circle whose alerts go to `url`."""
    (circle.root / "hook.key").write_text(KEY)
    rules = {"always": {"metric": "up", "above": 0.5}}
    circle.configure(alerts={"webhook": url, "webhook_key_file": "hook.key", "rules": rules}, **more)
    return circle


def bodies(server: Receiver) -> dict[str, dict[str, Any]]:
    """rule -> the data of its newest notice; every signature is verified."""
    for request in server.got:
        assert verify(key_of(KEY), request.headers, request.body, time.time())
    return {body["data"]["rule"]: body["data"] | {"type": body["type"]} for body in (json.loads(request.body) for request in list(server.got))}


def sending(circle: Circle) -> bool:
    """Whether a child is at work that sends."""
    found = [read_json(path) for path in circle.home.glob("tmp/chore-*/chore.json")]
    return any(chore and chore["kind"] == "alert" for chore in found)


def test_a_refusal_and_a_failure_reach_the_webhook_signed_and_a_kill_of_the_daemon_repeats_neither(circle: Circle, told: Receiver) -> None:
    alarmed(circle, told.url, training={"epochs": 1, "max_attempts": 1}).start_daemon()
    circle.drop(b'{"secret": "my name is Alice"}\n', "bad.jsonl")
    circle.brake("train")
    circle.drop(chat_rows())
    circle.kill_held("train")
    job = circle.wait_state("failed")
    circle.wait(lambda: {"refused_drop", "failed_job", "rules.always"} <= bodies(told).keys(), "all are told")
    failed = bodies(told)["failed_job"]
    assert (failed["job"], failed["run"], failed["next"]) == (job, "01-train", f"lorad jobs show {job}")
    assert "OUT_OF_MEMORY" in failed["reason"]
    assert "Alice" not in b" ".join(request.body for request in told.got).decode(), "no text of a row leaves the machine"
    circle.wait(lambda: not circle.status()["notices"]["waiting"], "the outbox is empty")
    assert {alert["rule"] for alert in circle.status()["alerts"]} == {"refused_drop", "failed_job", "rules.always"}

    circle.daemon.kill()
    assert "it ended without saying so" in circle.lorad("status").stdout
    circle.start_daemon()
    circle.wait(lambda: "daemon_restarted" in bodies(told), "the restart is told")
    assert len(told.got) == 4, "what was told before the kill is not told again, though it still lasts"
    assert 'lorad_alerts_total{rule="failed_job"} 1' in circle.wait(
        lambda: (text := (circle.home / "metrics.prom").read_text()) and 'daemon_restarted"} 1' in text and text, "metrics tell it"
    )


def test_a_channel_that_swallows_everything_delays_no_tick_and_the_failure_is_told_in_status(circle: Circle) -> None:
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(1)  # takes the connection and never answers
        alarmed(circle, f"http://127.0.0.1:{hole.getsockname()[1]}/").start_daemon()
        circle.drop(b'{"a": 1}\n', "bad.jsonl")
        circle.wait(lambda: sending(circle), "a child sends")
        beats: set[float] = set()

        def beats_on() -> bool:
            at = datetime.fromisoformat(circle.status()["at"]).timestamp()
            assert time.time() - at < 5, "the heartbeat goes on"
            assert sending(circle)
            beats.add(at)
            return len(beats) >= 3

        circle.wait(beats_on, "the daemon ticks while the child waits")
        hole.close()
        circle.wait(lambda: "webhook" in circle.status()["notices"]["failed"], "status tells that the channel fails")
        assert "do not get out by webhook" in circle.lorad("status").stdout


def test_who_reads_at_any_moment_always_reads_whole_json_and_whole_metrics(circle: Circle) -> None:
    circle.start_daemon()
    slow = subprocess.Popen(["tail", "-F", str(circle.home / "status.jsonl")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # nobody reads its pipe
    try:
        for number in range(40):
            circle.drop(chat_rows(2, start=number * 10), f"rows{number}.jsonl")
        num_reads = 0
        while len(circle.drops("accepted")) < 40 or num_reads < 500:
            for name in ("status.json", "caches/listing.json"):
                path = circle.home / name
                if path.exists():
                    json.loads(path.read_bytes())
                    num_reads += 1
            metrics = circle.home / "metrics.prom"
            if metrics.exists():
                assert metrics.read_text().endswith("\n")
            circle.wait(lambda: circle.daemon.lives(), "the daemon lives")
        for line in (circle.home / "status.jsonl").read_text().splitlines()[:-1]:
            json.loads(line)
    finally:
        slow.kill()
        slow.communicate()


@pytest.mark.parametrize("reader", ["gone", "asleep"])
def test_a_daemon_whose_log_nobody_reads_goes_on_and_counts_what_it_drops(circle: Circle, reader: str) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writing, b"x" * 4096)
    daemon = subprocess.Popen(
        [LORAD, "daemon", "--config", str(circle.config)], stdin=subprocess.DEVNULL, stdout=writing, stderr=writing, env=circle.env, start_new_session=True
    )
    os.close(writing)
    if reader == "gone":
        os.close(reading)
    try:
        circle.drop(b'{"a": 1}\n', "bad.jsonl")
        wait_until(lambda: any((circle.home / "inbox" / "rejected").glob("drop-*/report.md")), "the daemon works on")
        beat = wait_until(lambda: read_json(circle.home / "status.json"), "there is a status")["at"]
        wait_until(lambda: read_json(circle.home / "status.json")["at"] > beat, "it ticks")
        if reader == "gone":
            wait_until(lambda: read_json(circle.home / "status.json")["daemon"]["log_lines_dropped"] > 0, "what was dropped is counted")
            assert "log lines were dropped" in circle.lorad("status").stdout
        daemon.terminate()
        assert daemon.wait(60) == 0
    finally:
        if daemon.poll() is None:
            for child in psutil.Process(daemon.pid).children(recursive=True):
                child.kill()
            daemon.kill()
            daemon.wait()
        if reader == "asleep":
            os.close(reading)
