"""A second drop while `training.start` is incumbent: from the inbox to the spec, the rows and the shape of its training. With the stub."""

import json
from typing import Any

from circle import Circle, chat_rows, read_json


def spec_of(circle: Circle, job: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((circle.runs(job, "train")[0] / "spec.json").read_text())
    return found


def test_a_second_drop_goes_on_from_the_release_that_the_first_one_made(circle: Circle) -> None:
    circle.configure(training={"epochs": 1, "start": "incumbent", "replay_share": 0.1})
    circle.start_both()
    circle.drop(chat_rows(200), "first.jsonl", sidecar={"lora.r": 4, "lora.alpha": 12})
    first = circle.wait_ended()
    assert circle.jobs() == {first: "released"}
    assert spec_of(circle, first)["start"] is None
    assert spec_of(circle, first)["start_reason"] == "no adapter is live to go on from"

    circle.drop(chat_rows(200, start=500), "second.jsonl", sidecar={"lora.r": 32})
    second = circle.wait_ended(1)
    spec = spec_of(circle, second)
    (release,) = {path.parent for path in circle.home.glob("adapters/*/*/v1*/manifest.json")}
    assert spec["start"] == str(release)
    assert spec["learnt"] == [spec["rows"][0]["drop"]]
    assert "200 rows are learnt, 200 are new" in spec["start_reason"]

    run = circle.runs(second, "train")[0]
    note, settings = read_json(run / "exit.json"), read_json(run / "settings.json")
    splits = [json.loads(line)["split"] for line in (circle.drops("accepted")[1] / "rows" / "index.jsonl").read_text().splitlines()]
    new = splits.count("train")
    assert note["rows"] == new + round(new / 9), "a tenth of the rows are repeated ones"
    shape = read_json(run / note["candidates"][-1]["path"] / "adapter_config.json")
    assert (shape["r"], shape["lora_alpha"]) == (4, 12), "the live adapter's, whatever was asked for"
    assert settings["values"]["lora.r"]["why"] == "that of the adapter that it goes on from"
    assert any("lora.r 32 has no effect" in warning for warning in settings["warnings"])

    circle.drop(chat_rows(60, start=900), "third.jsonl", sidecar={"lora.targets": "q_proj"})
    third = spec_of(circle, circle.wait_ended(2))
    assert (third["start"], third["learnt"]) == (None, [])
    assert "made with lora.targets = 'all-linear', and 'q_proj' is asked for" in third["start_reason"]
