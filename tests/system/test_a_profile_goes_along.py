"""A profile from the sidecar of a drop to the answers of the release that came of it."""

import json

from circle import Circle, chat_rows


def test_a_profile_goes_from_the_sidecar_to_the_answers_of_the_release(circle: Circle) -> None:
    circle.start_both()
    circle.drop(chat_rows(20), "typo.jsonl", sidecar={"profile": {"name": "persona", "options": {"nam": "Ada"}}})
    finding = circle.rejected("typo.jsonl")[1]["findings"][0]
    assert (finding["id"], finding["hint"]) == ("PROFILE_OPTION", "did you mean 'name'?")
    circle.drop(chat_rows(), "sums.jsonl", sidecar={"profile": {"name": "regime3"}})
    job = circle.wait_state("released", 0)
    (manifest,) = circle.home.glob("adapters/*/*/v1/manifest.json")
    profile = json.loads(manifest.read_text())["profile"]
    assert (profile["name"], profile["version"], profile["rules"]["end_after"]) == ("regime3", 1, ["<<ANS_END>>"])
    answer = circle.ask().json()["choices"][0]["message"]
    assert answer["answer"] == answer["content"], "the stub marks no answer, so all of it counts"
    assert circle.facts(job)["release"] == circle.ask().headers["x-lorad-release"]
