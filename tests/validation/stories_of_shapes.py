"""S and M02: rows that are JSON, but not rows of the spec."""

import json

from gate_cases import GOOD, GOOD_PAIRS, chat, pair, turns
from stories import ANSWER, GOOD_ROWS, OTHER, TOOL, USER, Story, call, calling, dialog, result, whole

FIVE = (1, 2, 3, 4, 5)
FIX = "lorad fix rows.jsonl -o rows-fixed.jsonl --schema "


def all_rows(title: str, id: str, row: object, says: str = "", **more: object) -> Story:
    """Twelve rows with one trouble."""
    return whole(title, id, [row] * 12, FIVE, says, count=12, **more)


MISSING_AND_UNKNOWN = [
    whole("an unknown schema", "S01", GOOD, (), "looks like chat_sft_v1", schema="chat_stf_v1"),
    whole("a schema that is none, for pairs", "S01", GOOD_ROWS["preference_v1"], (), "looks like preference_v1", schema="dpo"),
    Story("a message without content", "S02", dialog({"role": "user"}, ANSWER), path="$.messages[0].content"),
    Story("an answer without content and calls", "S02", dialog(USER, {"role": "assistant", "tool_calls": []}), path="$.messages[1].content"),
    Story("a row without messages", "S02", {"id": "7"}, says='"messages"', path="$.messages"),
    Story("a message without role", "S02", {"prompt": [{"content": "q"}], "chosen": "a", "rejected": "b"}, path="$.prompt[0].role", schema="preference_v1"),
    Story("a pair without its worse answer", "S02", {"prompt": "p", "chosen": "a"}, path="$.rejected", schema="preference_v1"),
    Story("a function without name", "S02", dialog(USER, calling({"function": {}}), tools=[TOOL]), path="$.messages[1].tool_calls[0].function.name"),
    Story("a part without type", "S02", dialog({"role": "user", "content": [{"text": "q"}]}, ANSWER), path="$.messages[0].content[0].type"),
    Story("a key misspelt that is required", "S02", {"promt": "p", "completion": "c"}, schema="completion_v1", also=("S03",)),
    Story("a label left out", "S02", {"prompt": "p", "completion": "c"}, says="--schema completion_v1", schema="unpaired_v1", path="$.label"),
    Story("a completion left out", "S02", {"prompt": "p", "label": True}, says="'completion' is missing", schema="unpaired_v1"),
    Story("an instruction left out", "S02", {"input": "x", "output": "o"}, schema="instruction_v1", path="$.instruction"),
    Story("a prompt left out", "S02", {"chosen": "a", "rejected": "b"}, schema="preference_v1", path="$.prompt"),
    Story("a prompt left out beside a column", "S02", {"chosen": "a", "rejected": "b", "source": "web"}, schema="preference_v1", path="$.prompt"),
    Story("a model's output left out", "S02", {"prompt": "p", "correction": "c"}, schema="correction_v1", path="$.model_output"),
    Story(
        "a prompt that both answers hold",
        "S02",
        {"chosen": [USER, ANSWER], "rejected": [USER, OTHER]},
        says=FIX + "preference_v1",
        schema="preference_v1",
        path="$.prompt",
    ),
    Story(
        "a prompt that is not the same in both answers",
        "P02",
        {"chosen": [USER, ANSWER], "rejected": [{"role": "user", "content": "other"}, OTHER]},
        says="from the first turn on",
        schema="preference_v1",
        path="$.rejected",
    ),
    Story(
        "answers that part after two turns",
        "P02",
        {"chosen": [USER, ANSWER, USER, ANSWER], "rejected": [USER, ANSWER, {"role": "user", "content": "other"}, OTHER]},
        says="from turn 3 on",
        schema="preference_v1",
    ),
    Story(
        "different questions as HH-RLHF writes them",
        "P02",
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: other\n\nAssistant: b"},
        schema="preference_v1",
    ),
    Story("a bad answer's label as a column", "S03", pair(label=False), says="lorad check rows.jsonl --schema unpaired_v1", schema="completion_v1"),
    Story("a context as a column", "S03", pair(context="what it is about"), says="the text that it belongs to", schema="completion_v1"),
    Story("a class as a column", "S03", pair(label="sports"), says=FIX + "completion_v1", schema="completion_v1"),
    all_rows("an extra column", "S03", chat(lang="en"), '--columns lang, or "columns": ["lang"]', path="$.lang"),
    all_rows("an extra column, with the command", "S03", chat(lang="en"), FIX + "chat_sft_v1"),
    Story("an extra column beside a pair", "S03", {"prompt": "p", "chosen": "a", "rejected": "b", "score": 1}, says="--columns score", schema="preference_v1"),
    Story("a key misspelt", "S03", chat(wieght=1), says="did you mean 'weight'?"),
    Story("tool calls misspelt", "S03", dialog(USER, {"role": "assistant", "content": None, "tool_cals": [call()]}, tools=[TOOL]), says="'tool_calls'"),
    Story(
        "arguments misspelt",
        "S03",
        dialog(USER, calling({"function": {"name": "look_up", "argumets": "{}"}}), tools=[TOOL]),
        says="'arguments'",
        path="$.messages[1].tool_calls[0].function.argumets",
    ),
    Story(
        "a call without its function",
        "S03",
        dialog(USER, calling({"id": "1", "type": "function", "name": "look_up", "arguments": "{}"}), tools=[TOOL]),
        says="belongs inside 'function'",
        path="$.messages[1].tool_calls[0].name",
        also=("S02",),
    ),
    Story(
        "OpenAI's old calls", "S03", dialog(USER, {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}), says="old form"
    ),
    Story("a time beside a message", "S03", dialog({**USER, "time": 3}, ANSWER), says="jq -c 'del(.messages[]?.time)'", path="$.messages[0].time"),
    Story(
        "a time beside a turn of a pair", "S03", {"prompt": [{**USER, "time": 3}], "chosen": "a", "rejected": "b"}, says=".prompt[]?", schema="preference_v1"
    ),
    Story("reasoning beside an answer", "S03", dialog(USER, {**ANSWER, "reasoning_content": "hm"}), says="where the template has a place for it"),
    Story("tools beside a completion", "S03", pair(tools=[]), says="no tools", schema="completion_v1"),
    Story("pictures beside a chat", "S03", chat(images=["a.png"]), says="--schema vision_v1"),
]

TYPES = [
    Story("null where text belongs", "S04", dialog({"role": "user", "content": None}, ANSWER), says="null", path="$.messages[0].content"),
    Story("null for an answer", "S04", dialog(USER, {"role": "assistant", "content": None}), says="null stands only beside tool_calls"),
    Story("null for a tool's result", "S04", dialog(USER, calling(call()), result(content=None), ANSWER, tools=[TOOL]), path="$.messages[2].content"),
    Story(
        "null in the turn of a pair",
        "S04",
        {"prompt": [USER], "chosen": [{"role": "assistant", "content": None}], "rejected": [OTHER]},
        path="$.chosen[0].content",
        schema="preference_v1",
    ),
    Story("null for a pair's answer", "S04", {"prompt": "p", "chosen": None, "rejected": "b"}, says="a text or a list", schema="preference_v1"),
    Story(
        "null for every key that may be left out",
        "S04",
        dialog({**USER, "name": None, "tool_calls": None, "tool_call_id": None}, ANSWER),
        says=FIX + "chat_sft_v1",
    ),
    Story("an empty id", "S04", chat(id=None), says="leave the key out"),
    Story("a list of numbers", "S04", dialog({"role": "user", "content": [1]}, ANSWER), path="$.messages[0].content[0]"),
    Story("a picture in a chat", "S04", dialog({"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "q"}]}, ANSWER), says="vision_v1"),
    Story(
        "a picture as OpenAI writes it",
        "S04",
        dialog({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,x"}}]}, ANSWER),
        says="'image_url'",
        path="$.messages[0].content[0].type",
    ),
    Story("a number as text", "S04", chat(weight="0.5"), says="a number", path="$.weight"),
    Story("a number as content", "S04", dialog({"role": "user", "content": 7}, ANSWER), says="a text or a list"),
    Story("an id with a fraction", "S04", chat(id=1.5), says="a text or a whole number"),
    Story("a weight beyond 1", "S04", chat(weight=2), says="from 0 to 1"),
    Story("a weight below 0", "S04", pair(weight=-0.1), says="from 0 to 1", schema="completion_v1"),
    Story("a turn's weight over 1", "S04", dialog(USER, {**ANSWER, "weight": 1.5}), says="from 0 to 1"),
    Story("a turn's weight as text", "S04", dialog(USER, {**ANSWER, "weight": "0.5"}), says="a number"),
    Story("half a user turn's weight", "S04", dialog({**USER, "weight": 0.5}, ANSWER), says="only assistant turns"),
    Story("a user turn's weight", "S04", dialog({**USER, "weight": 0}, ANSWER), says="only assistant turns"),
    Story(
        "a user turn's weight in a pair",
        "S04",
        {"prompt": [{**USER, "weight": 0}], "chosen": "a", "rejected": "b"},
        path="$.prompt[0].weight",
        schema="preference_v1",
    ),
    Story("a user that calls tools", "S04", dialog({**USER, "tool_calls": [call()]}, ANSWER, tools=[TOOL]), says="only assistant turns call tools"),
    Story(
        "a user that answers a call", "S04", dialog({**USER, "tool_call_id": "x"}, ANSWER), says="only a turn of role tool", path="$.messages[0].tool_call_id"
    ),
    Story("a call of another type", "S04", dialog(USER, calling(call(type="fn")), tools=[TOOL]), says="'function'"),
    Story("a text among the messages", "S04", {"messages": ["q", "a"]}, says="role and content"),
    Story("messages that are an object", "S04", {"messages": {"role": "user", "content": "q"}}, says="a list"),
    Story("metadata that are a list", "S04", chat(metadata=["a"]), says="an object"),
    Story("a label as text", "S04", {"prompt": "p", "completion": "c", "label": "true"}, says="without quotes", schema="unpaired_v1", path="$.label"),
    Story("a label as number", "S04", {"prompt": "p", "completion": "c", "label": 1}, says="1 is true", schema="unpaired_v1"),
    Story("a tool without name", "S04", chat(tools=[{"foo": 1}]), says="no name", path="$.tools[0].name"),
    Story("a tool of another type", "S04", chat(tools=[TOOL, {"type": "retrieval"}]), says="'retrieval'", path="$.tools[1].type"),
    Story("a tool that is only a name", "S04", chat(tools=["look_up"]), says="an object", path="$.tools[0]"),
    Story("parameters as text", "S04", chat(tools=[{"name": "f", "parameters": "{}"}]), says="no JSON schema"),
    all_rows("messages as text", "S05", {"messages": json.dumps(chat()["messages"])}, FIX + "chat_sft_v1", path="$.messages"),
    all_rows("messages as Python", "S05", {"messages": str(chat()["messages"])}, "a Python list"),
    Story("tools as text", "S05", chat(tools=json.dumps([TOOL])), path="$.tools"),
    Story("metadata as text", "S05", pair(metadata='{"a": 1}'), path="$.metadata", schema="completion_v1"),
    Story(
        "calls as text",
        "S05",
        dialog(USER, {"role": "assistant", "content": None, "tool_calls": json.dumps([call()])}, tools=[TOOL]),
        path="$.messages[1].tool_calls",
    ),
    Story("turns of a pair as text", "S05", {"prompt": "p", "chosen": json.dumps([ANSWER]), "rejected": "b"}, path="$.chosen", schema="preference_v1"),
    Story("a prompt of turns as text", "S05", {"prompt": json.dumps([USER]), "completion": "c", "label": True}, path="$.prompt", schema="unpaired_v1"),
    Story("pictures as text", "S05", {"messages": [USER, ANSWER], "images": '["a.png"]'}, path="$.images", schema="vision_v1"),
]

FOREIGN = [
    all_rows("ShareGPT", "S06", {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, FIX + "chat_sft_v1"),
    all_rows("ShareGPT by name", "S06", {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, "ShareGPT"),
    all_rows("ShareGPT turns under another key", "S06", {"messages": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, FIX + "chat_sft_v1"),
    all_rows("Alpaca as chat", "S06", {"instruction": "i", "input": "", "output": "o"}, FIX + "chat_sft_v1"),
    all_rows("Alpaca as it is", "S06", {"instruction": "i", "input": "", "output": "o"}, "--schema instruction_v1"),
    all_rows("Dolly", "S06", {"instruction": "i", "context": "x", "response": "r"}, FIX + "instruction_v1", schema="instruction_v1"),
    all_rows("running text", "S06", {"text": "Once upon a time."}, "no question and no answer"),
    all_rows("running text of a template", "S06", {"text": "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"}, FIX + "chat_sft_v1"),
    all_rows("prompt and response", "S06", {"prompt": "p", "response": "r"}, FIX + "completion_v1", schema="completion_v1"),
    all_rows("question and answer", "S06", {"question": "q", "answer": "a"}, FIX + "chat_sft_v1"),
    all_rows("Gemini", "S06", {"contents": [{"role": "user", "parts": [{"text": "q"}]}, {"role": "model", "parts": [{"text": "a"}]}]}, FIX + "chat_sft_v1"),
    all_rows("Anthropic", "S06", {"system": "s", "messages": [USER, ANSWER]}, FIX + "chat_sft_v1"),
    all_rows("batch requests", "S06", {"custom_id": "1", "method": "POST", "url": "/v1", "body": {"messages": [USER]}}, "hold no answers"),
    all_rows("batch results", "S06", {"id": "b", "custom_id": "1", "response": {"body": {}}, "error": None}, "hold no questions"),
    all_rows(
        "OpenAI's pairs",
        "S06",
        {"input": {"messages": [USER]}, "preferred_output": [ANSWER], "non_preferred_output": [OTHER]},
        FIX + "preference_v1",
        schema="preference_v1",
    ),
    all_rows("pairs without a prompt", "S02", {"chosen": [USER, ANSWER], "rejected": [USER, OTHER]}, FIX + "preference_v1", schema="preference_v1"),
    all_rows("thumbs", "S06", {"question": "q", "answer": "a", "thumbs": "up"}, FIX + "unpaired_v1", schema="unpaired_v1"),
    all_rows(
        "LLaVA",
        "S06",
        {"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]},
        FIX + "vision_v1",
        schema="vision_v1",
    ),
    all_rows("single messages", "S06", USER, "whole conversation"),
    whole("the other spec", "S06", GOOD_PAIRS, FIVE, FIX + "chat_sft_v1", count=12),
    whole("the other spec as it is", "S06", GOOD_PAIRS, FIVE, "declare --schema completion_v1", count=12),
    whole("the other spec, the other way", "S06", GOOD, FIVE, FIX + "completion_v1", schema="completion_v1", count=12),
    whole("pairs as chat", "S06", GOOD_ROWS["preference_v1"], FIVE, "lorad check rows.jsonl --schema preference_v1", count=12),
    whole("labels as completions", "S03", GOOD_ROWS["unpaired_v1"], FIVE, "--columns label", count=12, schema="completion_v1"),
    whole("corrections as completions", "S06", GOOD_ROWS["correction_v1"], FIVE, FIX + "completion_v1", schema="completion_v1", count=12),
    whole("all rows in one object", "S06", [{"data": GOOD}], (1,), "jq -c"),
    whole("an error message", "S06", [{"error": {"message": "rate limit", "code": 429}}], (1,), "download failed"),
    all_rows("a layout of one row or of many", "S06", {"question": "q", "answer": "a"}, "the layout is that of question and answer under other names"),
    all_rows("a key in the way of a conversion", "S06", {"question": "q", "answer": "a", "choices": ["a", "b"]}, "what 'choices' says would be lost"),
    whole("two layouts in one file", "S07", [*GOOD, pair(), pair()], (13, 14), "12 of chat rows", also=("S06",)),
    whole(
        "two foreign layouts",
        "S07",
        [*[{"question": "q", "answer": "a"}] * 6, *[{"text": "t"}] * 3],
        (7, 8, 9),
        "6 of question and answer",
        also=("S06", "F09"),
    ),
]

NORMALISED = [
    Story(
        "text parts",
        "S08",
        dialog({"role": "user", "content": [{"type": "text", "text": "q"}]}, ANSWER),
        says="joined",
        severity="info",
        path="$.messages[0].content",
    ),
    Story("the role developer", "S08", dialog({"role": "developer", "content": "s"}, USER, ANSWER), says="'system'", severity="info"),
    Story("parallel calls", "S08", chat(parallel_tool_calls=False), says="passed through", severity="info"),
    Story(
        "text parts of a pair",
        "S08",
        {"prompt": [{"role": "user", "content": [{"type": "text", "text": "q"}]}], "chosen": "a", "rejected": "b"},
        severity="info",
        schema="preference_v1",
    ),
]

ROLES = [
    Story("a role by another name", "M02", turns(("human", "q"), ("assistant", "a")), says="write 'user'", path="$.messages[0].role"),
    Story("a role in capitals", "M02", turns(("User", "q"), ("assistant", "a")), says="write 'user'"),
    Story("a role with its command", "M02", turns(("User", "q"), ("assistant", "a")), says=FIX + "chat_sft_v1"),
    Story(
        "a function's turn",
        "M02",
        dialog(USER, calling(call()), {"role": "function", "name": "look_up", "content": "5"}, ANSWER, tools=[TOOL]),
        says="write 'tool'",
    ),
    Story("a role from nowhere", "M02", turns(("user", "q"), ("narrator", "a")), says="system, user, assistant, tool"),
    Story(
        "a role of a pair",
        "M02",
        {"prompt": [{"role": "human", "content": "q"}], "chosen": "a", "rejected": "b"},
        path="$.prompt[0].role",
        schema="preference_v1",
    ),
]

STORIES = [*MISSING_AND_UNKNOWN, *TYPES, *FOREIGN, *NORMALISED, *ROLES]
