"""From signals to rows: what each signal teaches, in a row of the schema that fits. Pure.

    a correction, an import with its right answer    correction_v1 or chat_sft_v1; preference_v1 by `feedback.corrections`
    a positive                                       chat_sft_v1
    a mistake without its right answer               unpaired_v1, label false, with as many positives beside it, label true

Whatever is learnt as it stands makes one file: correction_v1 where all of it corrects an answer that is known (such a file is
trained on with a gentle rate), else chat_sft_v1. Only the judged answer is learnt; the assistant's earlier turns are context.
Bad answers alone teach nothing (kto learns from the difference), so they wait until there are good ones to set beside them.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from core.learning import FeedbackConfig
from core.signals import Signal, SignalKind
from rendering.rows import conversation_key
from rendering.specs import BAD_JSON, SPECS, Message

CHAT, CORRECTION, PREFERENCE, UNPAIRED = "chat_sft_v1", "correction_v1", "preference_v1", "unpaired_v1"
LEAST_JUDGED = 20  # bad answers, and as many good ones: kto on fewer learns their chance
TURN_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id")
EARLIER = "a later correction of the same question takes its place"
CORRECTED = "the answer that it praises was corrected"
KNOWN = "what is right is known by another signal"
NO_CHANGE = "the correction is what the model had said"
NO_ANSWER = "the answer that it is about is not known"
NO_TALK = "its words are no conversation"
BAD_ORDER = "its conversation does not end with a question"
NO_WEIGHT = "its weight is 0: nothing would be learnt of it"

Row = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Made:
    """Rows of one schema. `lines` says by signal in which of them (from 1) it is; `left_out` why one is in none."""

    schema_id: str
    rows: list[bytes] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)
    signals: list[Signal] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """What one signal says: to which turns, which answer is right, which wrong; empty: it does not say. Keys fold case and blanks."""

    signal: Signal
    turns: list[Row]
    right: str
    wrong: str
    prompt: str
    answer: str

    @property
    def rank(self) -> tuple[float, datetime, str]:
        """Of two that disagree the higher holds: who weighs more, then who spoke later."""
        return self.signal.weight, self.signal.at, self.signal.id


def makes_row(signal: Signal, settings: FeedbackConfig) -> bool:
    """Whether its user agreed, where that is asked for."""
    return signal.consent or not settings.require_consent


def rows_of(signals: Iterable[Signal], settings: FeedbackConfig) -> list[Made]:
    """The rows of these signals, a file of each schema. What no one agreed to is passed over.

    A signal that makes no row for good (another takes its place, its words are no conversation) goes with the first file as
    left out; where nothing makes a row, that file has none. Bad answers that still wait for good ones beside them, or for
    their right answers, are in none.
    """
    left_out: dict[str, str] = {}
    ordered = sorted((one for one in signals if makes_row(one, settings)), key=lambda one: (one.at, one.id))
    heard = {one.id: one for one in ordered}
    said = [found for one in ordered if (found := _said(one, left_out)) is not None]
    taught, praised, blamed = _settled(said, left_out)
    judged = _judged(praised, blamed)
    kept = {one.signal.id for one in judged}
    pairs = [one for one in taught if settings.corrections == "preference" and one.wrong]
    kept |= {one.signal.id for one in pairs}
    plain = sorted((one for one in (*taught, *praised) if one.signal.id not in kept), key=_place)
    schema = CORRECTION if plain and all(one.wrong for one in plain) else CHAT
    made = [_made(schema, plain, left_out), _made(PREFERENCE, pairs, left_out), _made(UNPAIRED, judged, left_out)]
    files = [one for one in made if one.rows] or made[:1]
    files[0].left_out = left_out
    files[0].signals += [heard[id] for id in left_out]
    return files if files[0].signals else []


def _place(said: _Said) -> tuple[datetime, str]:
    return said.signal.at, said.signal.id


# ---------------------------------------------------------------- what a signal says


def _said(signal: Signal, left_out: dict[str, str]) -> _Said | None:
    """What it says; None, and why in `left_out`, where that is no row. A mistake without its answer waits in the review: no word of it."""
    try:
        turns = [_turn(message) for message in signal.input]
    except (TypeError, ValueError, AttributeError):  # one strange record must not keep all the others from becoming rows
        left_out[signal.id] = NO_TALK
        return None
    if not turns or turns[-1].get("role") not in ("user", "tool"):
        left_out[signal.id] = BAD_ORDER
        return None
    if not signal.weight:
        left_out[signal.id] = NO_WEIGHT
        return None
    right, wrong = signal.correct_output, signal.wrong_output
    if signal.kind is SignalKind.POSITIVE:
        right, wrong = right or wrong, ""
    elif right.strip() == wrong.strip():
        wrong = ""
        if signal.kind is SignalKind.CORRECTION:
            left_out[signal.id] = NO_CHANGE
            return None
    if not right.strip() and not wrong.strip():
        left_out[signal.id] = NO_ANSWER
        return None
    messages = [Message(role=turn.get("role", "user"), content=_text(turn.get("content"))) for turn in turns]
    return _Said(
        signal=signal,
        turns=turns,
        right=right if right.strip() else "",
        wrong=wrong if wrong.strip() else "",
        prompt=conversation_key(messages).whole,
        answer=_folded(right if right.strip() else wrong),
    )


def _turn(message: Mapping[str, Any]) -> Row:
    """A turn with the keys that a row may have. An earlier answer is context: nobody has judged it."""
    turn = {key: message[key] for key in TURN_KEYS if message.get(key) not in (None, "", [])}
    if calls := turn.get("tool_calls"):
        turn["tool_calls"] = [_call(call) for call in calls]
    return {**turn, "weight": 0} if turn.get("role") == "assistant" else turn


def _call(call: Any) -> Any:
    """A tool call with the keys that a row may have; what is none is left for the schema to refuse."""
    if not isinstance(call, Mapping) or not isinstance(call.get("function"), Mapping):
        return call
    function = {key: call["function"][key] for key in ("name", "arguments") if key in call["function"]}
    return {"function": function} | {key: call[key] for key in ("id", "type") if call.get(key)}


def _called(turns: Sequence[Row]) -> list[str]:
    """The tools that the earlier turns call: a signal does not say how they were declared, and a row must name what it calls."""
    calls = (call for turn in turns for call in turn.get("tool_calls", ()) if isinstance(call, Mapping))
    return sorted({str(call["function"].get("name")) for call in calls if isinstance(call.get("function"), Mapping)})


def _text(content: object) -> str:
    return content if isinstance(content, str) else json.dumps(content, sort_keys=True, default=str)


def _folded(text: str) -> str:
    return conversation_key([Message(role="assistant", content=text)]).whole


# ---------------------------------------------------------------- signals that agree or disagree


def _settled(said: Sequence[_Said], left_out: dict[str, str]) -> tuple[list[_Said], list[_Said], list[_Said]]:
    """(what is taught, what is praised, what is blamed): one right answer to each question that was corrected."""
    known: dict[str, _Said] = {}
    for one in said:
        if one.right and one.signal.kind is not SignalKind.POSITIVE and (one.prompt not in known or one.rank > known[one.prompt].rank):
            known[one.prompt] = one
    taught, praised, blamed = list[_Said](), list[_Said](), list[_Said]()
    for one in said:
        holds = known.get(one.prompt)
        if one.signal.kind is SignalKind.POSITIVE:
            is_wrong = holds is not None and holds.wrong and _folded(holds.wrong) == one.answer and holds.rank > one.rank
            _put(praised, one, left_out, CORRECTED if is_wrong else "")
        elif one.right:
            _put(taught, one, left_out, EARLIER if holds is not None and holds.answer != one.answer else "")
        else:
            _put(blamed, one, left_out, KNOWN if holds is not None else "")
    return taught, praised, blamed


def _put(found: list[_Said], one: _Said, left_out: dict[str, str], why: str) -> None:
    if why:
        left_out[one.signal.id] = why
    else:
        found.append(one)


def _judged(praised: Sequence[_Said], blamed: Sequence[_Said]) -> list[_Said]:
    """Bad answers with as many good ones; none where there are too few of either. Of an answer with both labels the later holds."""
    last = {(one.prompt, one.answer): one for one in sorted([*praised, *blamed], key=_place)}
    bad = [one for one in last.values() if not one.right]
    good = [one for one in last.values() if one.right]
    count = min(len(bad), len(good))
    return sorted([*bad[:count], *good[:count]], key=_place) if count >= LEAST_JUDGED else []


# ---------------------------------------------------------------- rows


def _made(schema_id: str, said: Sequence[_Said], left_out: dict[str, str]) -> Made:
    """The rows of one schema; signals that say the same to the same share one, with the weight of who weighs most."""
    made, places = Made(schema_id=schema_id), dict[tuple[str, str], int]()
    weights: dict[tuple[str, str], float] = {}
    for one in said:
        weights[one.prompt, one.answer] = max(one.signal.weight, weights.get((one.prompt, one.answer), 0.0))
    for one in said:
        key = (one.prompt, one.answer)
        if key not in places:
            try:
                line = msgspec.json.encode(_row(schema_id, one, weights[key]))
                SPECS[schema_id].decode(line)
            except (*BAD_JSON, TypeError) as error:
                left_out[one.signal.id] = f"it is no row of {schema_id}: {error}"
                continue
            made.rows.append(line)
            places[key] = len(made.rows)
        made.lines[one.signal.id] = places[key]
        made.signals.append(one.signal)
    return made


def _row(schema_id: str, said: _Said, weight: float) -> Row:
    signal = said.signal
    body: dict[str, Row] = {
        CHAT: {"messages": [*said.turns, {"role": "assistant", "content": said.right}]},
        CORRECTION: {"prompt": said.turns, "model_output": said.wrong, "correction": said.right},
        PREFERENCE: {"prompt": said.turns, "chosen": said.right, "rejected": said.wrong},
        UNPAIRED: {"prompt": said.turns, "completion": said.right or said.wrong, "label": bool(said.right)},
    }
    if schema_id == CHAT and (names := _called(said.turns)):
        body[CHAT]["tools"] = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in names]
    told = {"kind": signal.kind.value, "origin": signal.origin.value, "source": signal.source, "response": signal.response}
    row = {**body[schema_id], "id": signal.id, "metadata": {key: value for key, value in told.items() if value}}
    return row if weight == 1 else {**row, "weight": weight}
