"""From a drop of pairs, and one of judged answers, to a release of the real base model: held-out ones are told apart better."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from circle import Circle

from store.paths import default_models_dir

pytestmark = [pytest.mark.model, pytest.mark.full]
DICTIONARY = Path(__file__).parents[2] / "examples" / "devils_dictionary.jsonl"
ROWS = 210
CONFIG = {"backend": "peft", "allow_stub": False, "learning_rate": 1e-4, "batch_size": 8, "training": {"max_steps": 12, "checkpoints": 1}}


def definitions(schema_id: str) -> list[dict[str, Any]]:
    """Short entries of the dictionary against a shrug, as pairs or one by one."""
    with DICTIONARY.open() as file:
        rows = [json.loads(line)["messages"] for line in sorted(file, key=len)][:ROWS]
    found = []
    for number, turns in enumerate(rows):
        good, bad = turns[-1]["content"], f"I am sorry, I do not know what {turns[-2]['content']!r} means."
        if schema_id == "preference_v1":
            found.append({"prompt": turns[:-1], "chosen": good, "rejected": bad})
        else:
            found.append({"prompt": turns[:-1], "completion": bad if number % 2 else good, "label": number % 2 == 0})
    return found


@pytest.mark.parametrize("schema_id", ["preference_v1", "unpaired_v1"])
def test_a_drop_of_preferences_becomes_a_release(circle: Circle, schema_id: str) -> None:
    circle.configure(models_dir=os.environ.get("LORAD_TEST_MODELS") or str(default_models_dir()), **CONFIG)
    circle.start_both()
    circle.drop("".join(json.dumps(row) + "\n" for row in definitions(schema_id)).encode(), "wishes.jsonl", {"schema_id": schema_id})
    job = circle.wait_ended(0, timeout_s=900)
    verdict = json.loads((circle.runs(job, "rank")[-1] / "verdict.json").read_text())
    legs = {leg["name"]: leg for leg in verdict["legs"]}
    gate = legs["this drop"]["comparison"]
    assert gate["before"] == pytest.approx(math.log(2), abs=0.01), "the base tells nothing apart from itself"
    assert gate["difference"]["high"] < 0, verdict["sentence"]
    assert legs["coherence"]["comparison"] is not None
    assert circle.jobs()[job] in ("released", "held"), verdict["sentence"]
