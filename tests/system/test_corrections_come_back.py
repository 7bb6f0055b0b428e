"""Corrections that were imported become a release, and every one of them tells what became of it. By the stub; nobody's hand but the flush."""

import json
from collections import Counter

from circle import Circle

ADAPTER = "acme/support"
COUNT = 200


def test_imported_corrections_become_a_release_and_tell_their_fate(circle: Circle) -> None:
    circle.configure(validation={"levels": {ADAPTER: "quick"}}, deploy={"watch": {"window_s": 1}})
    circle.start_both()
    export = circle.root / "export.jsonl"
    asked = [[{"role": "user", "content": f"What is number {number}?"}] for number in range(COUNT)]
    said = [f"It is {number * 7}, as we say." for number in range(COUNT)]
    rows = [{"kind": "correction", "messages": one, "answer": "No idea.", "correction": right} for one, right in zip(asked, said, strict=True)]
    export.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0], {"kind": "positive", "messages": []}]))
    told = circle.lorad("feedback", "import", str(export), "--adapter", ADAPTER, "--consent")
    assert f"{COUNT} signals are stored" in told.stdout, told.stderr
    assert "1 left out: says what an earlier one says" in told.stdout
    assert "1 left out: has no question before its answer" in told.stdout
    assert not list(circle.inbox.glob(".*")), "the copy that the daemon read is gone"
    (counted,) = json.loads(circle.lorad("feedback", "status", "--format", "json").stdout)
    assert (counted["rows"], counted["by_source"]) == (COUNT, {"lorad": COUNT})
    assert circle.lorad("feedback", "flush", ADAPTER).returncode == 0
    circle.wait_state("released")
    listed = json.loads(circle.lorad("feedback", "list", "--adapter", ADAPTER, "--limit", "1000", "--format", "json").stdout)
    fates = Counter(row["fate"]["word"] for row in listed)
    assert fates == {"live": COUNT - 60, "held out": 60}
    assert {row["fate"]["why"].partition(";")[0] for row in listed if row["fate"]["split"] == "gate"} == {"held out for the verdict"}
    assert {row["fate"]["version"] for row in listed} == {1}
