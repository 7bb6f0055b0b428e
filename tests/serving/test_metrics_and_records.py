"""What a server tells of itself and writes down: /metrics, the access log, and what is captured where it is wanted."""

import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from guarded_box import CHAT, Guarded, body, guarded
from inference_box import ALIAS, START, World
from prometheus_client.parser import text_string_to_metric_families
from serving_process import wait_until

from core.access import Scope
from core.errors import IntegrityError
from core.wire import Desired
from serving.access.jsonlog import JsonLines
from store.capture import Captured, Captures, Said, purge_captures
from store.holdings import box_holdings

SECRET = "a-word-that-nobody-may-find"


@pytest.fixture
def box(world: World) -> Iterator[Guarded]:
    with guarded(world) as made:
        yield made


def figures(box: Guarded) -> dict[str, float]:
    """name{label=value,…} -> value."""
    families = text_string_to_metric_families(box.client().get("/metrics").text)
    return {
        one.name + "".join(f"|{name}={value}" for name, value in sorted(one.labels.items()) if name not in ("engine", "model_name", "le")): one.value
        for family in families
        for one in family.samples
        if not one.name.endswith("_bucket")
    }


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The access log, as it is written."""
    return [json.loads(JsonLines().format(record)) for record in caplog.records if getattr(record, "action", "") == "request"]


def test_answers_are_counted_by_the_names_that_vllms_charts_know(box: Guarded) -> None:
    release = box.world.release(None)
    box.agent.tick()
    client = box.client()
    client.post(CHAT, json=body("one two three", model=ALIAS))
    client.post(CHAT, json=body("one two three", model=ALIAS, max_tokens=2, stream=True))
    client.post(CHAT, json=body("one two three", model=ALIAS, stop="two"))
    client.post(CHAT, json=body(model="no/such"))
    wait_until(lambda: figures(box)["vllm:num_requests_running"] == 0, "all have ended")
    found = figures(box)
    assert found["vllm:request_success_total|finished_reason=stop"] == 2, "one at its end, one at a stop string"
    assert found["vllm:request_success_total|finished_reason=length"] == 1
    assert found["vllm:prompt_tokens_total"] == 9
    assert found["vllm:generation_tokens_total"] >= 4 + 2
    assert found["vllm:time_to_first_token_seconds_count"] == 3
    assert found["vllm:e2e_request_latency_seconds_count"] == 3
    assert found["vllm:num_requests_waiting"] == 0
    assert found["http_requests_total|handler=chat|method=POST|status=200"] == 3
    assert found["http_requests_total|handler=chat|method=POST|status=404"] == 1
    assert found[f"lorad_adapter_info|alias={ALIAS}|release={release}|version={ALIAS}@v1"] == 1
    assert found["lorad_adapter_swap_total|result=live"] == 1
    assert found["lorad_memory_total_bytes"] > found["lorad_memory_used_bytes"] > 0
    assert found["process_resident_memory_bytes"] > 0


def test_a_release_that_answers_now_shows_who_holds_it(box: Guarded) -> None:
    release = box.world.release(None)
    box.agent.tick()
    with box.agent.routes.pin(ALIAS):
        assert figures(box)[f"lorad_adapter_refs|release={release}"] == 1


def test_no_label_holds_a_path_a_key_or_an_address(box: Guarded) -> None:
    key = box.key()
    for path in ("/v1/models/some/secret-name", "/nowhere/secret-name", "/v1/models?secret-name"):
        box.client(key).get(path)
    box.client("wrong-secret-name").get("/v1/models")
    box.client(key).request("SECRET-NAME", CHAT)
    page = box.client(key).get("/metrics").text
    assert "secret-name" not in page.lower()
    assert key.split("_")[1] not in page
    assert "testclient" not in page
    assert 'lorad_refusals_total{code="invalid_api_key"} 1.0' in page


def test_the_access_log_has_release_tokens_and_times_and_no_prompts(box: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    release = box.world.release(None)
    box.agent.tick()
    key = box.key()
    with caplog.at_level(logging.INFO):
        answer = box.client(key).post(CHAT, json=body(SECRET, model=ALIAS))
        box.client().post(CHAT, json=body(SECRET))
        box.client(key).get(f"/v1/models?token={SECRET}")
        box.client(key).get("/health")
    told, refused, listed = lines(caplog)
    assert (told["status"], told["release"], told["prompt_tokens"], told["finish"]) == (200, release, 1, "stop")
    assert told["response"] == answer.json()["id"]
    assert 0 <= told["first_token_s"] <= told["seconds"]
    assert told["key"] == key.split("_")[1]
    assert told["request"] == answer.headers["x-request-id"]
    assert (refused["status"], refused["refused"], "release" in refused) == (401, "invalid_api_key", False)
    assert listed["path"] == "/v1/models"
    everything = json.dumps(lines(caplog)) + "".join(record.getMessage() for record in caplog.records if record.name.startswith("serving"))
    assert SECRET not in everything
    assert key not in everything


def test_prompts_stand_in_the_log_only_where_it_is_asked_for(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with guarded(world, log_prompts=True) as box, caplog.at_level(logging.INFO):
        box.client().post(CHAT, json=body(SECRET))
    (told,) = lines(caplog)
    assert told["said"] == [{"asked": [["user", SECRET]], "answer": f"[stub base] {SECRET}"}]


def test_nothing_is_captured_unless_it_is_asked_for(box: Guarded) -> None:
    answer = box.client().post(CHAT, json=body(SECRET)).json()
    box.opened.accounts.close()
    assert not (box.world.box.root / "capture").exists()
    assert box.client().delete(f"{CHAT}/{answer['id']}").status_code == 404


def test_what_is_captured_is_found_by_its_response_and_by_nobody_without_the_secret(world: World) -> None:
    with guarded(world, capture={"enabled": True}) as box:
        release = world.release(None)
        box.agent.tick()
        client = box.client()
        whole = client.post(CHAT, json=body(SECRET, model=ALIAS)).json()["id"]
        stream = client.post(CHAT, json=body(SECRET, model=ALIAS, stream=True))
        streamed = json.loads(stream.text.splitlines()[0][6:])["id"]
        client.post(CHAT, json=body(SECRET, model="no/such"))
        box.opened.accounts.close()
    captures = Captures(world.box)
    for response in (whole, streamed):
        found = captures.find(response)
        assert found is not None
        (said,) = found.answers
        assert (said.release, said.asked, said.answer) == (release, (("user", SECRET),), f"[stub {release[:12]}] {SECRET}")
        assert said.prompt_tokens == 1
    files = [path for path in (world.box.root / "capture").rglob("*") if path.is_file()]
    assert len(files) == 2
    assert not any(SECRET.encode() in path.read_bytes() or path.stat().st_mode & 0o077 for path in files)
    (texts,) = [place for place in box_holdings(world.box) if place.name == "box texts"]
    assert {path.parent for path in files} <= set(texts.paths()), "a forgetting looks there"
    purge_captures(world.box, [release])
    assert captures.find(whole) is None, "a release that has to go takes its words with it"


def test_a_captured_answer_is_deleted_by_who_asked_or_by_an_admin(world: World) -> None:
    with guarded(world, capture={"enabled": True}) as box:
        one, two, admin = box.key(name="one"), box.key(name="two"), box.key(Scope.ADMIN, Scope.INFER, name="admin")
        first, second = (box.client(one).post(CHAT, json=body(SECRET)).json()["id"] for _ in range(2))
        captures = Captures(world.box)
        wait_until(lambda: captures.find(second), "both are written")
        assert box.client(two).delete(f"{CHAT}/{first}").status_code == 404
        answer = box.client(one).delete(f"{CHAT}/{first}")
        assert answer.json() == {"id": first, "object": "chat.completion.deleted", "deleted": True}
        assert captures.find(first) is None
        assert box.client(admin).delete(f"{CHAT}/{second}").json()["deleted"]
        assert box.client(admin).delete(f"{CHAT}/{second}").status_code == 404


def test_captures_end_after_their_days_and_none_can_stand_for_another(world: World) -> None:
    captures = Captures(world.box)
    said = Said(release="base", asked=(("user", SECRET),), answer="yes")
    for day in (1, 9, 10):
        captures.put(Captured(response=f"chatcmpl-base-{day:024x}", at=datetime(2026, 1, day, tzinfo=UTC), key="", answers=(said,)))
    captures.put(Captured(response="../../escape", at=datetime(2026, 1, 1, tzinfo=UTC), key="", answers=(said,)))
    root = world.box.root / "capture"
    captures.sweep(date(2026, 1, 10), days=7)
    assert sorted(path.name for path in root.iterdir()) == ["2026-01-09", "2026-01-10"]
    assert not list(world.root.rglob("escape*"))
    swap(root / "2026-01-09" / f"chatcmpl-base-{9:024x}", root / "2026-01-10" / f"chatcmpl-base-{10:024x}")
    with pytest.raises(IntegrityError, match="cannot be decrypted"):
        captures.find(f"chatcmpl-base-{9:024x}")
    assert captures.find("*") is None


def swap(one: Path, two: Path) -> None:
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def test_a_log_is_json_whatever_is_logged() -> None:
    try:
        raise ValueError('with "quotes" and\nlines')
    except ValueError as error:
        record = logging.LogRecord("some.where", logging.ERROR, __file__, 1, "it failed: %s", (error,), (ValueError, error, error.__traceback__))
    record.action = "failed"
    line = JsonLines().format(record)
    assert "\n" not in line
    read = json.loads(line)
    assert (read["level"], read["logger"], read["action"]) == ("error", "some.where", "failed")
    assert "Traceback" in read["error"]


def test_a_purge_takes_what_a_release_said_with_it(world: World) -> None:
    with guarded(world, capture={"enabled": True}) as box:
        first = world.release(None)
        box.agent.tick()
        said = box.client().post(CHAT, json=body(SECRET, model=ALIAS)).json()["id"]
        world.release(first, version=2)
        box.agent.tick()
        kept = box.client().post(CHAT, json=body(SECRET, model=ALIAS)).json()["id"]
        captures = Captures(world.box)
        wait_until(lambda: captures.find(said) and captures.find(kept), "both are written")
        world.fence += 1
        world.write_wish(Desired(fence=world.fence, aliases=dict(world.wishes), fences=dict(world.fences), made_at=START, purge=(first,)))
        box.agent.tick()
    assert captures.find(said) is None
    assert captures.find(kept) is not None


def test_every_figure_stands_in_the_user_guide(box: Guarded) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "user-guide.md").read_text()
    named = set(re.findall(r"(?:vllm:|lorad_|http_)[a-z0-9_]+", guide))
    box.client().post(CHAT, json=body())
    told = [line.split()[2:4] for line in box.client().get("/metrics").text.splitlines() if line.startswith("# TYPE")]
    names = {name for name, _ in told if not name.endswith("_created") and not name.startswith("process_")}
    assert len(names) > 15
    assert names - named == set()
