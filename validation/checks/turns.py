"""M, S08: conversations of the right shape that would teach nothing, or the wrong thing; of every spec that has turns."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import msgspec

from rendering.rowtypes import InstructionRow
from rendering.specs import Message
from validation.case import Case
from validation.checks.registry import Check, Need, Totals, entered
from validation.findings import Problem, Severity, is_blank, shown
from validation.talks import Talk

_STOPS = "it would teach the model to stop at once"
_UNTAUGHT = "what comes behind the last answer is never learnt"


@entered(
    Check("M01", "msg.none", Severity.ERROR, Need.ROW, "remove the row, or give it its messages back", why="an empty conversation teaches nothing", rank=10)
)
def no_messages(case: Case) -> Problem | None:
    """A conversation without turns."""
    if case.sound:
        return None
    for name in ("messages", "prompt", "chosen", "rejected", "completion"):
        if getattr(case.row, name, None) == []:
            message = "the list of messages is empty" if name == "messages" else f"the list of turns in {name!r} is empty"
            return Problem(message=message, path=f"$.{name}", kind=name)
    return None


@entered(
    Check(
        "M04",
        "msg.system",
        Severity.ERROR,
        Need.ROW,
        "put one system message first",
        why="many templates drop or refuse a system message in any other place",
        rank=11,
    )
)
def misplaced_system(case: Case) -> Problem | None:
    """A system turn that is not the first, or a second one."""
    if case.sound:
        return None
    for talk in case.talks:
        for index, message in enumerate(talk.messages):
            if index and message.role == "system":
                twice = talk.messages[0].role == "system"
                return Problem(message="two system messages" if twice else "the system message is not the first", path=talk.role(index))
    return None


class _Order(NamedTuple):
    """Where turns are out of order."""

    place: int
    kind: str
    message: str
    hint: str = ""


@entered(
    Check(
        "M03",
        "msg.order",
        Severity.ERROR,
        Need.ROW,
        "merge the two turns, or split the row",
        why="templates refuse or garble turns that do not alternate",
        rank=12,
    )
)
def turns_out_of_order(case: Case) -> Problem | None:
    """The first turn after the system message is not the user's, or one role speaks twice in a row; results of tools may repeat."""
    if case.sound or no_messages(case):
        return None
    for talk in case.talks:
        if talk.own_prompt:
            continue  # P02 tells of answers that bring another prompt
        signature = tuple(map(_kind_of_turn, talk.messages))
        found = _order(signature) if len(signature) < _LONGEST_KNOWN else _order.__wrapped__(signature)
        if found:
            return Problem(message=found.message, path=talk.role(found.place), kind=found.kind, hint=found.hint)
    return None


_LONGEST_KNOWN = 64


def _kind_of_turn(message: Message) -> str:
    return "calls" if message.tool_calls and message.role == "assistant" else message.role


@lru_cache(maxsize=1000)
def _order(kinds: tuple[str, ...]) -> _Order | None:
    before = ""
    for index, kind in enumerate(kinds):
        if kind == "system":
            continue
        if not before and kind != "user":
            role = "assistant" if kind == "calls" else kind
            return _Order(index, "first", f"the first turn is the {role}'s, not the user's", "begin each conversation with what the user says")
        answers = kind in ("assistant", "calls")
        if kind == before == "user" and not {"assistant", "calls"} & set(kinds):
            return None  # M05: nobody answers
        if kind == before == "user" or (answers and before == "assistant"):
            role = "assistant" if answers else kind
            return _Order(index, role, f"two {role} turns in a row")
        before = kind
    return None


@entered(
    Check(
        "M05",
        "msg.no_target",
        Severity.ERROR,
        Need.ROW,
        "only what the assistant says is learnt: add its answer, or remove the row",
        why="such a row costs time and teaches nothing",
        rank=13,
    )
)
def nothing_to_learn(case: Case) -> Problem | None:
    """No assistant turn, or none that is learnt. M01 tells of lists without turns."""
    if case.sound or no_messages(case):
        return None
    for talk in case.talks:
        messages = talk.messages
        if not messages or any(message.role == "assistant" and message.weight for message in messages):
            continue
        path = _list_of(talk)
        if any(message.role == "assistant" for message in messages):
            hint = "set the weight of the answer that is to be learnt to 1"
            return Problem(message="every assistant turn has weight 0", path=path, kind="weight", hint=hint)
        return Problem(message="no assistant turn", path=path)
    return None


def _list_of(talk: Talk) -> str:
    """JSON path of the list that the last turn stands in."""
    return talk.places[-1].rpartition("[")[0] or talk.places[-1]


@entered(
    Check(
        "M05",
        "msg.no_target",
        Severity.ERROR,
        Need.END,
        "give the rows that are to be learnt a weight above 0",
        why="a run over such a file changes nothing",
    )
)
def nothing_to_learn_in_the_file(totals: Totals) -> Problem | None:
    """Every row has weight 0."""
    if totals.typed_rows and not totals.learnt_rows:
        return Problem(message="every row has weight 0", path="$.weight", kind="file", count=totals.typed_rows)
    return None


@entered(Check("M06", "msg.last", Severity.ERROR, Need.ROW, "end the row with the assistant's answer, or cut the tail", why=_UNTAUGHT, rank=14))
def last_turn_not_learnt(case: Case) -> Problem | None:
    """The last turn is not the assistant's. Silent where there is no assistant at all: M05 says that."""
    if case.sound:
        return None
    for talk in case.talks:
        messages = talk.messages
        if messages and messages[-1].role != "assistant" and any(message.role == "assistant" for message in messages):
            return Problem(message=f"the last turn is the {messages[-1].role}'s", path=talk.role(len(messages) - 1))
    return None


@entered(Check("M07", "msg.empty", Severity.ERROR, Need.ROW, "fill it, or remove the row", why=_STOPS, rank=15))
def empty_answer(case: Case) -> Problem | None:
    """An assistant turn that is learnt and shows nothing: empty, blanks, or invisible characters. Texts that are no turns: C01."""
    if case.sound:
        return None
    for talk in case.talks:
        for index, message in enumerate(talk.messages):
            if message.role != "assistant" or not message.weight or message.tool_calls or talk.is_text(index):
                continue
            if is_blank(message.content) and not talk.shows_picture(index):
                return Problem(message=f"an assistant turn is empty: {shown(message.content)}", path=talk.content(index))
    return None


@entered(
    Check(
        "M08",
        "msg.user_empty",
        Severity.WARNING,
        Need.ROW,
        "look whether the question was lost",
        why="an answer to nothing teaches the model to talk without being asked",
        rank=16,
    )
)
def empty_question(case: Case) -> Problem | None:
    """A user or system turn (or a prompt) that shows nothing. C01 tells of empty instructions."""
    if case.sound or isinstance(case.row, InstructionRow):
        return None
    for talk in case.talks:
        for index, message in enumerate(talk.messages):
            if message.role in ("user", "system") and is_blank(message.content) and not talk.shows_picture(index):
                path = talk.content(index)
                return Problem(message="a prompt is empty" if talk.is_text(index) else f"a {message.role} turn is empty", path=path)
    return None


@entered(
    Check(
        "S08",
        "spec.normalised",
        Severity.INFO,
        Need.ROW,
        "harmless: nothing has to be done",
        why="the row is trained on in the form that is told here",
        rank=17,
    )
)
def normalised(case: Case) -> Iterator[Problem] | None:
    """Ways of writing that are taken as something else: text parts, the role `developer`, parallel_tool_calls."""
    if case.sound and getattr(case.row, "parallel_tool_calls", _UNSET) is _UNSET:
        return None
    return _normalised(case)


_UNSET = msgspec.UNSET


def _normalised(case: Case) -> Iterator[Problem]:
    row = case.row
    if getattr(row, "parallel_tool_calls", _UNSET) is not _UNSET:
        yield Problem(message="parallel_tool_calls is passed through and never looked at", path="$.parallel_tool_calls", kind="parallel_tool_calls")
    told: set[str] = set()
    for name in ("messages", "prompt", "chosen", "rejected", "completion"):
        turns = getattr(row, name, None)
        for index, turn in enumerate(turns if isinstance(turns, list) else ()):
            if turn.role == "developer" and "developer" not in told:
                told.add("developer")
                yield Problem(message="the role 'developer' is taken as 'system'", path=f"$.{name}[{index}].role", kind="developer")
            if isinstance(turn.content, list) and case.spec.family != "vision" and "parts" not in told:
                told.add("parts")
                yield Problem(message="a content that is a list of text parts is joined into one text", path=f"$.{name}[{index}].content", kind="parts")
