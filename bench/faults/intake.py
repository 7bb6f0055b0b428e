"""F05, F06, F07: files that are still being written, that are no JSON Lines, that were dropped before."""

import hashlib
import json
import os
import subprocess
import sys
import time

from circle import Circle, chat_rows, read_json
from processes import wait_until

from bench.faults import Outcome, Trial, fault

WRITER = """
import os, shutil, sys, time
kind, source, place, stop_s = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
raw = open(source, "rb").read()
lines = raw.splitlines(keepends=True)
half = len(b"".join(lines[: len(lines) // 2])) + 40  # in the middle of a row
if kind == "slowly":
    with open(place, "wb", 0) as file:
        for start in range(0, len(raw), len(raw) // 20):
            file.write(raw[start : start + len(raw) // 20])
            time.sleep(stop_s / 15)
elif kind == "stalls":
    with open(place, "wb", 0) as file:
        file.write(b"".join(lines[: len(lines) // 2]))
        time.sleep(stop_s)
        file.write(b"".join(lines[len(lines) // 2 :]))
elif kind == "reopens":
    for start in (0, half):
        with open(place, "ab") as file:
            file.write(raw[start : half if start == 0 else None])
        time.sleep(0.4)
elif kind == "preallocated":
    with open(place, "wb", 0) as file:
        file.truncate(len(raw))
        file.write(raw[:half])
        time.sleep(stop_s)
        file.write(raw[half:])
elif kind == "renames":
    with open(place + ".part", "wb", 0) as file:
        file.write(raw[:half])
        time.sleep(stop_s)
        file.write(raw[half:])
    os.rename(place + ".part", place)
"""
KINDS = ("slowly", "stalls", "reopens", "preallocated", "renames")
STALL_S = 2.0


@fault("F05", "file still being written", guard="an entry is taken once it is renamed in, or closed, quiet, and its last line parses", without="whole_files")
def still_written(trial: Trial) -> Outcome:
    circle = trial.circle()
    circle.start_daemon()
    wanted = {}
    started = time.monotonic()
    with circle.slot_taken():
        writers = []
        for number, kind in enumerate(KINDS):
            source = circle.root / f"{kind}.source"
            source.write_bytes(chat_rows(60, start=1000 * number))
            wanted[f"{kind}.jsonl"] = hashlib.sha256(source.read_bytes()).hexdigest()
            words = [sys.executable, "-c", WRITER, kind, str(source), str(circle.inbox / f"{kind}.jsonl"), str(STALL_S)]
            writers.append(subprocess.Popen(words))
        for writer in writers:
            writer.wait(60)
        wait_until(lambda: len(_ends(circle)) >= len(KINDS) and not list(circle.inbox.glob("*.jsonl")), "every file has been looked at", 60)
    ends = _ends(circle)
    partial = sorted({name for name, digest in ends if digest != wanted[name]})
    return Outcome(
        held=not partial and len(ends) == len(KINDS),
        figure={"partial_taken": len(partial), "writers": len(KINDS), "all_queued_s": round(time.monotonic() - started, 1)},
        note=f"partial: {', '.join(partial)}" if partial else "",
    )


def _ends(circle: Circle) -> list[tuple[str, str]]:
    """(name, SHA-256) of each file that was accepted or rejected; a rejected one counts as partial."""
    cards = [read_json(folder / "job.json") for folder in circle.job_folders().values()]
    claims = [read_json(path) for path in (circle.inbox / "rejected").glob("*/claim.json")]
    return [(card["file"], card["sha256"]) for card in cards if card] + [(claim["file"], "") for claim in claims if claim]


ROWS = chat_rows(30, start=5000)
ROW = ROWS.split(b"\n")[0]
SPARSE_BYTES = 1 << 30  # one line; a hole, so that it costs no disk


def _with_key(key: bytes) -> bytes:
    return ROWS + ROW[:-1] + b", " + key + b"}\n"


BAD: dict[str, tuple[bytes, str, int | None]] = {  # name -> content, finding, line
    "torn": (ROWS + ROW[: len(ROW) // 2], "J01", 31),
    "nul-bytes": (ROWS + b"\0" * 100, "F06", 31),
    "utf-16": (ROWS.decode().encode("utf-16"), "F03", None),
    "lone-surrogate": (ROWS + ROW.replace(b"number", b"\\ud800", 1) + b"\n", "", 31),
    "nan": (_with_key(b'"weight": NaN'), "J04", 31),
    "key-twice": (_with_key(b'"metadata": {"a": 1, "a": 2}'), "J05", 31),
    "deep": (ROWS + b'{"messages": ' + b"[" * 100_000 + b"\n", "", 31),
    "long-number": (_with_key(b'"metadata": {"n": ' + b"9" * 100_000 + b"}"), "", 31),
    "nothing": (b"", "F02", None),
}
GOOD = {
    "byte-order-mark": b"\xef\xbb\xbf" + chat_rows(30, start=6000),
    "crlf": chat_rows(30, start=7000).replace(b"\n", b"\r\n"),
    "no-last-newline": chat_rows(30, start=8000)[:-1],
}


@fault("F06", "bad JSON Lines", guard="the gate's checks (here J05: a key that stands twice)")
def bad_lines(trial: Trial) -> Outcome:
    """Each bad file is refused, with its line where it has one; what is only unusual is accepted; daemon and gate live."""
    loose = {"profile": "loose", "profiles": {"loose": {"J05": False}}}
    circle = trial.circle(validation={} if trial.guarded else loose)
    circle.start_daemon()
    with circle.slot_taken():
        for name, (content, _, _) in BAD.items():
            circle.drop(content, f"{name}.jsonl")
        for name, content in GOOD.items():
            circle.drop(content, f"{name}.jsonl")
        sparse = circle.drop(b"", ".sparse")
        os.truncate(sparse, SPARSE_BYTES)
        sparse.rename(circle.inbox / "sparse.jsonl")
        circle.wait(lambda: len(_ends(circle)) == len(BAD) + len(GOOD) + 1, "every file has been looked at", 120)
    reports = {read_json(path.parent / "claim.json")["file"]: json.loads(path.read_text()) for path in (circle.inbox / "rejected").glob("*/report.json")}
    accepted = {name.removesuffix(".jsonl") for name, _ in _ends(circle)} - {name.removesuffix(".jsonl") for name in reports}
    wrong = [name for name, (_, finding, line) in BAD.items() if not _says(reports.get(f"{name}.jsonl"), finding, line)]
    crashes = sum(finding["id"] == "GATE_CRASH" for report in reports.values() for finding in report["findings"])
    false = sorted(GOOD.keys() - accepted)
    figure = {"bad": len(BAD) + 1, "not_refused_as_expected": len(wrong), "false_rejects": len(false), "crashes": crashes + (not circle.daemon.lives())}
    held = not wrong and not false and not crashes and "sparse.jsonl" in reports and circle.daemon.lives()
    return Outcome(held=held, figure=figure, note=", ".join((*wrong, *false)))


def _says(report: dict[str, object] | None, finding: str, line: int | None) -> bool:
    """Whether the report has the finding, on the line."""
    found = report["findings"] if report else []
    assert isinstance(found, list)
    return any(finding in (one["id"], "") and (line is None or _is_at(one, line)) for one in found if one["severity"] == "error")


def _is_at(finding: dict[str, object], line: int) -> bool:
    places = finding.get("lines") or finding.get("places") or [finding.get("line")]
    assert isinstance(places, list)
    return any(line == (place.get("line") if isinstance(place, dict) else place) for place in places)


@fault("F07", "same file dropped twice, renamed, touched", guard="a job's identity is the hash of rows, adapter, config and base", without="identity")
def dropped_twice(trial: Trial) -> Outcome:
    circle = trial.circle()
    circle.start_daemon()
    content = chat_rows(60)
    with circle.slot_taken():
        circle.drop(content, "first.jsonl")
        circle.wait_state("queued")
        first = circle.job()
        circle.drop(content, "copy.jsonl")
        circle.drop(content, "renamed.jsonl")
        touched = circle.drop(content, ".touched")
        os.utime(touched, (1, 1))
        touched.rename(circle.inbox / "touched.jsonl")
        circle.wait(lambda: len(_ends(circle)) == 4, "all four have been looked at", 60)
        reports = [json.loads(path.read_text()) for path in (circle.inbox / "rejected").glob("*/report.json")]
        named = sum(report["findings"][0]["id"] == "DUPLICATE" and first in report["findings"][0]["message"] for report in reports)
        extra = len(circle.jobs()) - 1
    return Outcome(held=extra == 0 and named == 3, figure={"extra_trainings": extra, "name_the_first_job": named}, note="copied, renamed, touched")
