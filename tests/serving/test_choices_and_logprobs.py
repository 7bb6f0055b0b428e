"""Several answers, seeds, log-probabilities, penalties, forms, time: what the chat and the plain route ask an engine for and make of it."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from route_client import CHAT, TEXT, ask, client_of, events, go_on, streamed
from scripted_engine import ScriptedEngine, chosen

from serving.answers import Choice
from serving.engines.port import Ask, Piece, Sampling
from serving.line import Line


def counting(asked: Ask) -> Sequence[str]:
    """Says the seed and the text that it was asked with."""
    return ["seed ", str(asked.sampling.seed), " of ", asked.text or "chat"]


def test_n_answers_have_a_seed_each_and_share_the_prompt() -> None:
    engine = ScriptedEngine(counting)
    answer = ask(client_of(engine), n=3, seed=2**63 - 1).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert [choice["message"]["content"].split()[1] for choice in answer["choices"]] == [str(2**63 - 1), str(-(2**63)), str(-(2**63) + 1)]
    assert answer["usage"] == {"prompt_tokens": 7, "completion_tokens": 12, "total_tokens": 19}


def test_more_answers_than_streams_take_turns() -> None:
    line = Line(streams=2, waiting=8)
    answer = ask(client_of(ScriptedEngine(counting), line=line), n=5, seed=1).json()
    assert len({choice["message"]["content"] for choice in answer["choices"]}) == 5
    assert (line.num_running, line.num_waiting) == (0, 0)


def test_more_answers_than_may_wait_are_refused_whole() -> None:
    line = Line(streams=1, waiting=2)
    response = ask(client_of(ScriptedEngine(counting), line=line), n=8)
    assert (response.status_code, response.json()["error"]["code"]) == (429, "queue_full")
    assert int(response.headers["retry-after"]) > 0
    assert (line.num_running, line.num_waiting) == (0, 0), "the places that it had taken are free again"


def test_streamed_answers_are_told_apart_by_their_index() -> None:
    chunks = events(ask(client_of(ScriptedEngine(counting)), n=2, seed=4, stream=True))[:-1]
    texts = ["".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"][0]["index"] == place) for place in (0, 1)]
    assert texts == ["seed 4 of chat", "seed 5 of chat"]


def test_sampling_is_the_servers_where_the_request_is_silent() -> None:
    engine = ScriptedEngine(counting)
    default = Sampling(temperature=0.5, top_p=0.8, top_k=7, repetition_penalty=1.3)
    client = client_of(engine, sampling=default)
    ask(client)
    said = {"temperature": 0, "top_p": 1, "top_k": -1, "repetition_penalty": 1, "frequency_penalty": 0.5, "presence_penalty": -2, "logit_bias": {"11": -100}}
    ask(client, max_tokens=3, max_completion_tokens=4, **said)
    silent, told = (asked.sampling for asked in engine.asked.asks)
    assert silent == default
    assert told == Sampling(
        temperature=0, top_p=1, top_k=0, repetition_penalty=1, frequency_penalty=0.5, presence_penalty=-2, logit_bias={11: -100}, max_tokens=4
    )


@pytest.mark.parametrize(
    ("form", "schema"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {}),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}}, {"type": "object"}),
    ],
)
def test_a_form_is_asked_of_the_engine(form: dict[str, Any], schema: Any) -> None:
    engine = ScriptedEngine(lambda ask: ["{}"])
    assert ask(client_of(engine), response_format=form).status_code == 200
    assert engine.asked.asks[0].schema == schema


def test_log_probabilities_come_with_their_tokens() -> None:
    client = client_of(ScriptedEngine(lambda ask: ["grü", "n", " 🛑"]))
    whole = ask(client, logprobs=True, top_logprobs=4).json()["choices"][0]["logprobs"]["content"]
    assert [token["token"] for token in whole] == ["grü", "n", " 🛑"]
    assert whole[0]["bytes"] == list("grü".encode())
    assert [other["logprob"] for other in whole[0]["top_logprobs"]] == [0, -1, -2, -9999], "JSON has no infinity"
    chunks = events(ask(client, logprobs=True, top_logprobs=4, stream=True))[:-1]
    assert [token for chunk in chunks for token in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]] == whole
    assert ask(client).json()["choices"][0]["logprobs"] is None
    assert ask(client, logprobs=True).json()["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []


def test_tokens_of_a_stop_string_are_not_told() -> None:
    client = client_of(ScriptedEngine(lambda ask: ["one", " two", " th", "ree", " four"]))
    choice = ask(client, logprobs=True, stop=" three").json()["choices"][0]
    assert choice["message"]["content"] == "one two"
    assert [token["token"] for token in choice["logprobs"]["content"]] == ["one", " two"]
    assert choice["finish_reason"] == "stop"


@given(st.lists(st.text(alphabet="ab c", min_size=1, max_size=4), max_size=12), st.sampled_from(["", "ab", "b c"]))
def test_no_token_is_lost_told_twice_or_ahead_of_its_text(texts: list[str], stop: str) -> None:
    choice = Choice(0, (stop,) if stop else ())
    told, text = 0, ""
    for piece in [*(Piece(text=text, tokens=(chosen(text, 0),)) for text in texts), Piece(end="stop")]:
        said = choice.hear(piece)
        text += said.text
        assert tuple(token.token.text for token in said.tokens) == tuple(texts[told : told + len(said.tokens)])
        told += len(said.tokens)
        assert len("".join(texts[: max(0, told - 1)])) < max(1, len(text) + 1), "a token begins within the text that was told"
    assert text == ("".join(texts).split(stop)[0] if stop else "".join(texts))
    if not stop or stop not in "".join(texts):
        assert told == len(texts)


# ---------------------------------------------------------------- plain completions


def test_a_text_goes_on_as_it_stands() -> None:
    engine = ScriptedEngine(lambda ask: [" a", " time"])
    answer = go_on(client_of(engine), seed=3).json()
    assert (answer["object"], answer["choices"][0]["text"], answer["choices"][0]["finish_reason"]) == ("text_completion", " a time", "stop")
    assert (engine.asked.asks[0].text, engine.asked.asks[0].messages) == ("once upon", ())
    assert go_on(client_of(engine), echo=True).json()["choices"][0]["text"] == "once upon a time"


def test_several_prompts_are_answered_in_order_by_one_release() -> None:
    answer = go_on(client_of(ScriptedEngine(counting)), prompt=["x", "y"], n=2, seed=5).json()
    assert [choice["text"] for choice in answer["choices"]] == ["seed 5 of x", "seed 6 of x", "seed 5 of y", "seed 6 of y"]
    assert answer["usage"]["prompt_tokens"] == 14


def test_a_streamed_text_is_the_same_text() -> None:
    client = client_of(ScriptedEngine(counting))
    whole = go_on(client, prompt=["x", "y"], echo=True).json()
    *chunks, last, done = events(go_on(client, prompt=["x", "y"], echo=True, stream=True, stream_options={"include_usage": True}))
    for place, choice in enumerate(whole["choices"]):
        assert "".join(chunk["choices"][0]["text"] for chunk in chunks if chunk["choices"][0]["index"] == place) == choice["text"]
    assert (done, last["usage"], last["choices"]) == ("[DONE]", whole["usage"], [])


def test_log_probabilities_in_the_older_form_have_offsets() -> None:
    client = client_of(ScriptedEngine(lambda ask: ["one", " two"]))
    logprobs = go_on(client, logprobs=2).json()["choices"][0]["logprobs"]
    assert logprobs == {
        "tokens": ["one", " two"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{"t0": 0, "t1": -1}] * 2,
        "text_offset": [0, 3],
    }
    chunks = events(go_on(client, logprobs=2, stream=True))[:-1]
    assert [offset for chunk in chunks for offset in chunk["choices"][0]["logprobs"]["text_offset"]] == [0, 3]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ""}, None),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": ["x"] * 9, "n": 2}, None),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"logprobs": 6}, "logprobs"),
        ({"echo": True, "logprobs": 0}, None),
    ],
)
def test_what_the_plain_route_does_not_serve_is_told(fields: dict[str, Any], param: str | None) -> None:
    response = go_on(client_of(ScriptedEngine(counting)), **fields)
    assert response.status_code == 400, response.text
    told = response.json()["error"]["param"]
    assert told is None if param is None else told.startswith(param)


# ---------------------------------------------------------------- time


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_an_answer_that_takes_too_long_is_given_up(path: str) -> None:
    engine, line = ScriptedEngine(counting, holds=True), Line(streams=1, waiting=1)
    client = client_of(engine, line=line, timeout_s=0.05)
    body = {"model": "tiny", "prompt": "x", "messages": [{"role": "user", "content": "x"}]}
    response = client.post(path, json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (504, "answer_timeout")
    last = events(client.post(path, json=body | {"stream": True}))[-1]
    assert last["error"]["code"] == "answer_timeout"
    assert all(generation.is_cancelled for generation in engine.asked.begun)
    assert (line.num_running, line.num_waiting) == (0, 0)


def test_who_waits_too_long_in_line_is_told_so() -> None:
    line = Line(streams=1, waiting=1)
    with line.join():
        response = ask(client_of(ScriptedEngine(counting), line=line, timeout_s=0.05))
    assert response.json()["error"]["code"] == "answer_timeout"
    assert (line.num_running, line.num_waiting) == (0, 0)


def test_a_stream_says_what_the_whole_answer_says() -> None:
    client = client_of(ScriptedEngine(lambda ask: ["a ", "b", "c ", "d"]))
    for fields in ({}, {"stop": "c"}, {"max_tokens": 2}, {"logprobs": True}):
        whole = ask(client, temperature=0, **fields).json()["choices"][0]
        assert streamed(client, temperature=0, **fields) == (whole["message"]["content"], [], whole["finish_reason"])
