"""T: calls of tools and their results."""

import json

from stories import ANSWER, TOOL, USER, Row, Story, call, calling, dialog, result

OTHER_TOOL: Row = {"name": "translate", "parameters": {}}


def row(*messages: Row) -> Row:
    """A row that declares two tools."""
    return dialog(USER, *messages, tools=[TOOL, OTHER_TOOL])


STORIES = [
    Story(
        "arguments that are no JSON",
        "T01",
        row(calling(call(arguments="{word: 'sun'}"))),
        says="not JSON",
        path="$.messages[1].tool_calls[0].function.arguments",
    ),
    Story("arguments that are a list", "T01", row(calling(call(arguments='["sun"]'))), says="no JSON object"),
    Story("no arguments at all", "T01", row(calling(call(arguments=""))), says="not JSON"),
    Story("arguments encoded twice", "T01", row(calling(call(arguments=json.dumps('{"word": "sun"}')))), says="encoded twice"),
    Story("arguments encoded twice, with the command", "T01", row(calling(call(arguments=json.dumps('{"word": "sun"}')))), says="lorad fix rows.jsonl"),
    Story("arguments with NaN", "T01", row(calling(call(arguments='{"n": NaN}'))), says="not JSON"),
    Story(
        "a key twice in arguments",
        "J05",
        row(calling(call(arguments='{"word": "sun", "n": 1, "word" : "moon"}'))),
        says="'word' stands twice in the arguments",
        path="$.messages[1].tool_calls[0].function.arguments",
    ),
    Story("a key twice in an object of arguments", "J05", row(calling(call(), call(arguments='{"a": [{"b": 1, "b": 2}]}', id="call_2"))), path="tool_calls[1]"),
    Story("the second call's arguments", "T01", row(calling(call(), call(arguments="x", id="call_2"))), path="tool_calls[1]"),
    Story("a tool that is not declared", "T02", row(calling(call("lookup"))), says="did you mean 'look_up'?", path="$.messages[1].tool_calls[0].function.name"),
    Story("a tool from nowhere", "T02", row(calling(call("order_pizza"))), says="the row declares 'look_up', 'translate'"),
    Story("no tools declared", "T02", dialog(USER, calling(call())), says="declares no tools"),
    Story("a result of another call", "T03", row(calling(call()), result("call_9"), ANSWER), says="'call_9'", path="$.messages[2].tool_call_id"),
    Story("a result without a call", "T03", row(result(), ANSWER), says="no call comes before it"),
    Story("a result behind an answer", "T03", row(ANSWER, USER, ANSWER, result(""), ANSWER), says="no call comes before it"),
    Story("one result too many", "T03", row(calling(call(id="")), result(""), result(""), ANSWER), says="every call before it has its result"),
    Story("a result without the id that its call has", "T03", row(calling(call()), result(""), ANSWER), says="no tool_call_id"),
    Story("two calls of one id", "T03", row(calling(call(), call("translate")), result(), result(), ANSWER), says="id of its own", path="tool_calls[1].id"),
    Story(
        "a call that is never answered",
        "T03",
        row(calling(call()), USER, ANSWER),
        says="has no result: 'look_up'",
        severity="warning",
        path="$.messages[2].role",
    ),
    Story(
        "one of two calls is never answered",
        "T03",
        row(calling(call(), call("translate", id="call_2")), result(), ANSWER),
        says="'translate'",
        severity="warning",
    ),
    Story("an id used again", "T03", row(calling(call()), result(), calling(call()), result(), ANSWER), says="an earlier one", severity="warning"),
]
