"""M, C01, X01: rows of the right shape that would teach nothing, or the wrong thing."""

from validation.case import Case
from validation.checks.registry import Check, Need, Totals, entered
from validation.findings import Problem, Severity, is_blank, shown

CHAT = ("chat_sft_v1",)
COMPLETION = ("completion_v1",)


@entered(Check("M01", "msg.none", Severity.ERROR, Need.ROW, "remove the row, or give it its messages back", specs=CHAT, rank=10))
def no_messages(case: Case) -> Problem | None:
    """A conversation without turns."""
    return None if case.messages else Problem(message="the list of messages is empty", path="$.messages")


@entered(Check("M04", "msg.system", Severity.ERROR, Need.ROW, "put one system message first: many templates drop or refuse any other", specs=CHAT, rank=11))
def misplaced_system(case: Case) -> Problem | None:
    """A system turn that is not the first, or a second one."""
    for index, message in enumerate(case.messages):
        if index and message.role == "system":
            twice = case.messages[0].role == "system"
            return Problem(message="two system messages" if twice else "the system message is not the first", path=f"$.messages[{index}].role")
    return None


@entered(Check("M03", "msg.order", Severity.ERROR, Need.ROW, "merge the two turns, or split the row", specs=CHAT, rank=12))
def turns_out_of_order(case: Case) -> Problem | None:
    """The first turn after the system message is not the user's, or one role speaks twice in a row."""
    expected = "user"
    for index, message in enumerate(case.messages):
        if message.role == "system":
            continue
        if message.role != expected:
            if expected == "user" and not any(earlier.role != "system" for earlier in case.messages[:index]):
                hint = "begin each conversation with what the user says"
                return Problem(message=f"the first turn is the {message.role}'s, not the user's", path=f"$.messages[{index}].role", kind="first", hint=hint)
            return Problem(message=f"two {message.role} turns in a row", path=f"$.messages[{index}].role", kind=message.role)
        expected = "assistant" if expected == "user" else "user"
    return None


@entered(
    Check("M05", "msg.no_target", Severity.ERROR, Need.ROW, "only what the assistant says is learnt: add its answer, or remove the row", specs=CHAT, rank=13)
)
def nothing_to_learn(case: Case) -> Problem | None:
    """No assistant turn, or none that is learnt."""
    if not case.messages or any(message.role == "assistant" and message.weight for message in case.messages):
        return None
    if any(message.role == "assistant" for message in case.messages):
        return Problem(
            message="every assistant turn has weight 0", path="$.messages", kind="weight", hint="set the weight of the answer that is to be learnt to 1"
        )
    return Problem(message="no assistant turn", path="$.messages")


@entered(Check("M05", "msg.no_target", Severity.ERROR, Need.END, "give the rows that are to be learnt a weight above 0"))
def nothing_to_learn_in_the_file(totals: Totals) -> Problem | None:
    """Every row has weight 0."""
    if totals.typed_rows and not totals.learnt_rows:
        return Problem(message="every row has weight 0", path="$.weight", kind="file", count=totals.typed_rows)
    return None


@entered(
    Check("M06", "msg.last", Severity.ERROR, Need.ROW, "end the row with the assistant's answer, or cut the tail, which is never learnt", specs=CHAT, rank=14)
)
def last_turn_not_learnt(case: Case) -> Problem | None:
    """The last turn is not the assistant's. Silent where there is no assistant at all: M05 says that."""
    messages = case.messages
    if not messages or messages[-1].role == "assistant" or not any(message.role == "assistant" for message in messages):
        return None
    return Problem(message=f"the last turn is the {messages[-1].role}'s", path=f"$.messages[{len(messages) - 1}].role")


@entered(Check("M07", "msg.empty", Severity.ERROR, Need.ROW, "it would teach the model to stop at once: fill it, or remove the row", specs=CHAT, rank=15))
def empty_answer(case: Case) -> Problem | None:
    """An assistant turn that is learnt and shows nothing: empty, blanks, or invisible characters."""
    for index, message in enumerate(case.messages):
        if message.role == "assistant" and message.weight and is_blank(message.content):
            return Problem(message=f"an assistant turn is empty: {shown(message.content)}", path=f"$.messages[{index}].content")
    return None


@entered(Check("M08", "msg.user_empty", Severity.WARNING, Need.ROW, "an answer to nothing teaches little: look whether the question was lost", rank=16))
def empty_question(case: Case) -> Problem | None:
    """A user or system turn (or a prompt) that shows nothing."""
    for index, message in enumerate(case.messages):
        if message.role != "assistant" and is_blank(message.content):
            chat = hasattr(case.row, "messages")
            path = f"$.messages[{index}].content" if chat else "$.prompt"
            return Problem(message=f"a {message.role} turn is empty" if chat else "a prompt is empty", path=path)
    return None


@entered(
    Check("C01", "text.blank", Severity.ERROR, Need.ROW, "it would teach the model to stop at once: fill it, or remove the row", specs=COMPLETION, rank=17)
)
def blank_completion(case: Case) -> Problem | None:
    """A completion that shows nothing."""
    content = case.messages[-1].content
    return Problem(message=f"a completion is empty: {shown(content)}", path="$.completion") if is_blank(content) else None


@entered(Check("X01", "token.control", Severity.ERROR, Need.ROW, "", rank=18))
def control_token(case: Case) -> Problem | None:
    """A turn or end token inside a content."""
    if not case.control.may_stand_in(case.raw):
        return None
    for index, message in enumerate(case.messages):
        for key, text in (("content", message.content), ("name", message.name)):
            if token := case.control.first_in(text):
                path = f"$.messages[{index}].{key}" if hasattr(case.row, "messages") else ("$.prompt", "$.completion")[index]
                hint = "the model reads it as the border of a turn, not as text: strip it, or take the row's turns apart"
                return Problem(message=f"the control token {shown(token)} stands in a text", path=path, kind=token, hint=hint)
    return None
