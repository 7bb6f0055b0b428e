"""The one end that every story of a single drop has, whatever was killed on the way."""

from pathlib import Path

import zstandard
from circle import Circle, read_json, read_lines

from store.seals import check_seal


def assert_one_release(circle: Circle, content: bytes) -> str:
    """Wait for the end, then see: one accepted drop with all its bytes, one released job, live once. Returns the release."""
    job = circle.wait_state("released")
    assert circle.jobs() == {job: "released"}
    release: str = circle.facts(job)["release"]
    assert circle.went_live() == [release]
    assert_one_drop(circle, content)
    assert [path.name for path in (circle.home / "adapters" / "default" / "main").iterdir()] == ["v1"]
    told = [line for line in read_lines(circle.home / "live.jsonl") if line["event"] == "live"]
    assert [line["release"] for line in told] == [release], "live.jsonl says the same as the box's own ledger, once"
    assert circle.ask().headers["x-lorad-release"] == release
    # A gate child that has just started checks a file of ours first, to have loaded all that it needs.
    circle.wait(lambda: list((circle.home / "tmp").iterdir()) == [], "tmp/ to be empty")
    return release


def assert_one_drop(circle: Circle, content: bytes) -> Path:
    """One accepted drop, its bytes whole and sealed, nothing on its way, nothing left in the inbox. Returns its folder."""
    assert not circle.drops("settling")
    assert not circle.drops("gating")
    (drop,) = circle.drops("accepted")
    assert zstandard.ZstdDecompressor().stream_reader((drop / "rows" / "rows.jsonl.zst").read_bytes()).read() == content
    check_seal(drop / "rows")
    assert read_json(drop / "accepted.json")["job_made"]
    assert [path for path in circle.inbox.rglob("*") if path.is_file() and "rejected" not in path.parts] == []
    return drop
