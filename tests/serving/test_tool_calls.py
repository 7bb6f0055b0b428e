"""Tool calls out of an answer: read the same however the answer is cut into pieces, and told as OpenAI's clients expect."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from route_client import CHAT, ask, client_of, streamed
from scripted_engine import ScriptedEngine, call_text

from serving.toolcalls import CallReader

NAMES = frozenset({"weather", "time"})
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "Now.", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}, "strict": True},
}
TIME = {"type": "function", "function": {"name": "time"}}
OSLO = call_text("weather", city="Oslo")
NOON = call_text("time")
XML = "<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>"


def read(pieces: list[str], most: int | None = None) -> tuple[str, list[tuple[int, str, Any]]]:
    """Text and calls of an answer that comes in these pieces."""
    reader = CallReader(names=NAMES, most=most)
    heard = [*(reader.feed(piece) for piece in pieces), reader.flush()]
    calls = [(call.index, call.name, json.loads(call.arguments)) for one in heard for call in one.calls]
    return "".join(one.text for one in heard), calls


CASES = {
    "a call alone": (OSLO, "", [(0, "weather", {"city": "Oslo"})]),
    "words before it": (f"Let me look.\n{OSLO}", "Let me look.", [(0, "weather", {"city": "Oslo"})]),
    "two of them": (f"{OSLO}\n{NOON}\n", "", [(0, "weather", {"city": "Oslo"}), (1, "time", {})]),
    "words behind it": (f"{OSLO}\nDone.", "Done.", [(0, "weather", {"city": "Oslo"})]),
    "without its end": (OSLO.removesuffix("\n</tool_call>"), "", [(0, "weather", {"city": "Oslo"})]),
    "cut off": (OSLO[:40], OSLO[:40], []),
    "not declared": (call_text("fly"), call_text("fly"), []),
    "as functions and parameters": (XML, "", [(0, "weather", {"city": "Oslo", "days": 2})]),
    "nothing but JSON": ('{"name": "weather", "parameters": {"city": "Oslo"}}', "", [(0, "weather", {"city": "Oslo"})]),
    "a list": ('[{"name": "time", "arguments": {}}]', "", [(0, "time", {})]),
    "JSON that is no call": ('{"name": "Ada"}', '{"name": "Ada"}', []),
    "a tag that is only mentioned": ("Write <tool_call> first.", "Write <tool_call> first.", []),
    "plain words": ("  It is <warm> today. \n", "  It is <warm> today. \n", []),
    "brackets": ("[note] warm", "[note] warm", []),
    "a fence of code": ("```python\nx\n```", "```python\nx\n```", []),
}


@pytest.mark.parametrize("case", CASES)
def test_calls_are_read_out_of_an_answer(case: str) -> None:
    text, said, calls = CASES[case]
    assert read([text]) == (said, calls)


@pytest.mark.parametrize("case", CASES)
def test_how_an_answer_is_cut_changes_nothing(case: str) -> None:
    text, said, calls = CASES[case]
    assert read(list(text)) == (said, calls)
    for cut in range(1, len(text)):
        assert read([text[:cut], text[cut:]]) == (said, calls), f"cut at {cut}"


@given(st.text(alphabet="<tool_cal>/{}\n x`[", max_size=60), st.data())
def test_text_without_a_call_comes_through_whole(text: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(text)))
    assert read([text[:cut], text[cut:]]) == (text, [])


def test_with_one_call_at_a_time_the_first_one_counts() -> None:
    assert read([f"{OSLO}\n{NOON}"], most=1) == ("", [(0, "weather", {"city": "Oslo"})])


def test_text_is_not_held_back_longer_than_it_may_become_a_call() -> None:
    reader = CallReader(names=NAMES)
    assert reader.feed("It is warm").text == "It is warm"
    assert reader.feed(" <tool").text == ""
    assert reader.feed("box> here").text == " <toolbox> here"


# ---------------------------------------------------------------- the route


def test_a_call_ends_the_answer_with_tool_calls() -> None:
    engine = ScriptedEngine(lambda ask: ["Let me look.", "\n", *OSLO])
    answer = ask(client_of(engine), tools=[WEATHER, TIME]).json()["choices"][0]
    assert answer["finish_reason"] == "tool_calls"
    assert answer["message"]["content"] == "Let me look."
    (call,) = answer["message"]["tool_calls"]
    assert (call["type"], call["function"]["name"], json.loads(call["function"]["arguments"])) == ("function", "weather", {"city": "Oslo"})
    assert len(call["id"]) == 9
    (asked,) = engine.asked.asks
    assert [tool["function"]["name"] for tool in asked.tools] == ["weather", "time"]
    assert "strict" not in asked.tools[0]["function"], "models never saw it in a declaration"


def test_a_streamed_call_says_what_the_whole_answer_says() -> None:
    client = client_of(ScriptedEngine(lambda ask: ["Let me look.", "\n", *OSLO, "\n", *NOON]))
    whole = ask(client, tools=[WEATHER, TIME]).json()["choices"][0]
    text, calls, reason = streamed(client, tools=[WEATHER, TIME])
    assert (text, reason) == (whole["message"]["content"], whole["finish_reason"])
    assert [call["index"] for call in calls] == [0, 1]
    assert [call["function"] for call in calls] == [call["function"] for call in whole["message"]["tool_calls"]]


def test_without_tools_or_with_none_of_them_a_call_is_text() -> None:
    client = client_of(engine := ScriptedEngine(lambda ask: [OSLO]))
    for fields in ({}, {"tools": [WEATHER], "tool_choice": "none"}):
        choice = ask(client, **fields).json()["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == (OSLO, "stop")
        assert "tool_calls" not in choice["message"]
    assert all(not asked.tools for asked in engine.asked.asks)


def test_a_call_that_the_limit_cuts_off_is_text_that_ended_with_length() -> None:
    client = client_of(ScriptedEngine(lambda ask: list(OSLO)))
    choice = ask(client, tools=[WEATHER], max_tokens=20).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (OSLO[:20], "length")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_call_that_must_be_made_is_made_by_a_schema(choice: Any) -> None:
    engine = ScriptedEngine(lambda ask: ['{"name": "weather", ', '"arguments": {"city": "Oslo"}}'])
    answer = ask(client_of(engine), tools=[WEATHER, TIME], tool_choice=choice).json()["choices"][0]
    assert answer["message"]["content"] is None
    assert answer["message"]["tool_calls"][0]["function"]["name"] == "weather"
    assert answer["finish_reason"] == "tool_calls"
    schema = engine.asked.asks[0].schema
    assert schema is not None
    shapes = schema.get("anyOf", [schema])
    assert [shape["properties"]["name"]["const"] for shape in shapes] == (["weather", "time"] if choice == "required" else ["weather"])
    assert shapes[0]["properties"]["arguments"] == WEATHER["function"]["parameters"]  # type: ignore[index]


def test_calls_and_results_go_back_into_the_prompt() -> None:
    engine = ScriptedEngine(lambda ask: ["fine"])
    called = {"role": "assistant", "content": None, "tool_calls": [{"id": "abc", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]}
    result = {"role": "tool", "tool_call_id": "abc", "content": "sunny"}
    assert ask(client_of(engine), messages=[{"role": "user", "content": "?"}, called, result]).status_code == 200
    _, assistant, tool = engine.asked.asks[0].messages
    assert (assistant.content, assistant.tool_calls[0].name, assistant.tool_calls[0].id) == ("", "weather", "abc")
    assert (tool.role, tool.content, tool.tool_call_id) == ("tool", "sunny", "abc")


@pytest.mark.parametrize(
    "parameters",
    [{"type": 5}, {"$ref": "http://127.0.0.1:1/x"}, {"$schema": "http://127.0.0.1:1/x"}, {"a": {"$ref": "file:///etc/passwd"}}, {"description": "\ud800"}],
)
def test_a_schema_that_is_none_or_fetches_something_is_refused(parameters: dict[str, Any]) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    response = ask(client_of(ScriptedEngine(lambda ask: ["x"])), tools=[tool])
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"].startswith("tools.0.function.parameters")


@pytest.mark.parametrize("depth", [60, 900, 5000])
def test_a_schema_nested_without_end_is_no_failure_of_the_server(depth: int) -> None:
    schema = '{"properties":{"a":' * depth + "{}" + "}}" * depth
    tool = '{"type":"function","function":{"name":"f","parameters":' + schema + "}}"
    body = '{"model":"tiny","messages":[{"role":"user","content":"x"}],"tools":[' + tool + "]}"
    response = client_of(ScriptedEngine(lambda ask: ["x"])).post(CHAT, content=body, headers={"content-type": "application/json"})
    assert response.status_code == (200 if depth == 60 else 400), response.text
