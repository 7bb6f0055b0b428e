"""Chat logs of OpenAI: ChatGPT's data export, and logs of the API.

- the data export: `conversations.json` (or its parts `conversations-000.json` …), whose `mapping` is a tree of messages, and
  `message_feedback.json`, the thumbs; both lie in the .zip that OpenAI sends
- pairs of preference fine-tuning: {input {messages}, preferred_output, non_preferred_output}: the right answer and the wrong one
- logged requests and answers: {messages}, {messages, response}, {request or body {messages}, response {choices}}; nobody has
  judged these: they are proposals, for a person to accept
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.signals import SignalKind
from feedback.importers.port import NO_TEXT, NOT_JUDGED, NOTHING_ASKED, Judged, Record, Wish, parsed, text_of, time_of, turns_of, verdict_of

NAME = "openai"
ROLES = ("system", "user", "assistant")
MOST_TURNS = 10_000


def matches(record: Record) -> bool:
    """Whether it is one of the forms above."""
    return _is_chat(record) or _is_thumb(record) or "preferred_output" in record or bool(_request(record))


def judged(records: Sequence[Record], wish: Wish) -> Iterator[Judged | str]:
    """One for each thumb of a data export, each pair, each logged answer."""
    del wish
    chats = [record for record in records if _is_chat(record)]
    thumbs = [record for record in records if _is_thumb(record)]
    yield from _rated(chats, thumbs)
    for record in records:
        if "preferred_output" in record:
            yield _pair(record)
        elif not _is_chat(record) and not _is_thumb(record):
            yield _logged(record)


# ---------------------------------------------------------------- the data export


def _is_chat(record: Record) -> bool:
    return isinstance(record.get("mapping"), Mapping)


def _is_thumb(record: Record) -> bool:
    return "rating" in record and ("conversation_id" in record or "message_id" in record)


def _rated(chats: Sequence[Record], thumbs: Sequence[Record]) -> Iterator[Judged | str]:
    nodes = {id: (chat, id) for chat in chats for id in chat["mapping"]}
    done = 0
    for thumb in thumbs:
        place = nodes.get(str(thumb.get("message_id") or "")) or nodes.get(str(thumb.get("id") or ""))
        kind = verdict_of(thumb.get("rating"))
        if place is None:
            yield "its message is in none of the conversations"
        elif kind is None:
            yield NOT_JUDGED
        else:
            done += 1
            yield _thumb(thumb, *place, kind)
    for _ in chats if not done else ():
        yield NOT_JUDGED


def _thumb(thumb: Record, chat: Record, node: str, kind: SignalKind) -> Judged | str:
    turns = _talk(chat["mapping"], node)
    if not turns or turns[-1]["role"] != "assistant" or not turns[-1]["content"].strip():
        return NO_TEXT
    if len(turns) < 2:
        return NOTHING_ASKED
    answer = turns[-1]["content"]
    return Judged(
        kind=kind,
        asked=tuple(turns[:-1]),
        answer="" if kind is SignalKind.POSITIVE else answer,
        right=answer if kind is SignalKind.POSITIVE else "",
        user=str(thumb.get("user_id") or ""),
        at=time_of(thumb.get("create_time") or chat.get("update_time")),
        reference=node,
        context=_words(thumb.get("content")),
        metadata={"model": str(chat["default_model_slug"])} if chat.get("default_model_slug") else {},
    )


def _words(content: Any) -> str:
    """What the person wrote beside the thumb: its text, else its tags."""
    told = parsed(content)
    if isinstance(told, Mapping):
        tags = told.get("tags")
        return str(told.get("text") or (", ".join(map(str, tags)) if isinstance(tags, Sequence) and not isinstance(tags, str) else ""))
    return told if isinstance(told, str) else ""


def _talk(mapping: Record, node: str) -> list[dict[str, str]]:
    """The turns from the root to a node; hidden and empty ones are left out, and answers in several messages are one."""
    path: list[Record] = []
    at: Any = node
    while isinstance(found := mapping.get(at), Mapping) and len(path) < MOST_TURNS:
        path.append(found)
        at = found.get("parent")
    turns: list[dict[str, str]] = []
    for one in reversed(path):
        message = one.get("message")
        if not isinstance(message, Mapping):
            continue
        author, meta = message.get("author"), message.get("metadata")
        role = str(author.get("role")) if isinstance(author, Mapping) else ""
        text = _parts(message.get("content"))
        is_hidden = isinstance(meta, Mapping) and bool(meta.get("is_visually_hidden_from_conversation"))
        if role not in ROLES or is_hidden or not text.strip():
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += f"\n\n{text}"
        else:
            turns.append({"role": role, "content": text})
    return turns


def _parts(content: Any) -> str:
    if not isinstance(content, Mapping):
        return ""
    parts = content.get("parts")
    return "\n".join(part for part in parts if isinstance(part, str)) if isinstance(parts, Sequence) else str(content.get("text") or "")


# ---------------------------------------------------------------- the API


def _pair(record: Record) -> Judged | str:
    turns, right, wrong = turns_of(record.get("input")), text_of(record["preferred_output"]), text_of(record.get("non_preferred_output"))
    if not turns:
        return NOTHING_ASKED
    return Judged(kind=SignalKind.CORRECTION, asked=tuple(turns), answer=wrong, right=right) if right.strip() else NO_TEXT


def _request(record: Record) -> list[Record]:
    """The messages of a logged request."""
    for key in ("messages", "request", "body", "input"):
        value = record.get(key)
        if isinstance(value, Mapping) and isinstance(value.get("body"), Mapping):
            value = value["body"]
        if value is not None and (turns := turns_of(value)):
            return turns
    return []


def _logged(record: Record) -> Judged | str:
    turns = _request(record)
    response = next((record[key] for key in ("response", "completion", "output") if record.get(key)), record if record.get("choices") else None)
    if isinstance(response, Mapping) and isinstance(response.get("body"), Mapping):
        response = response["body"]
    answer = text_of(response) if response is not None else ""
    if not answer and turns and turns[-1].get("role") == "assistant":
        answer, turns = text_of(turns[-1].get("content")), turns[:-1]
    if not turns:
        return NOTHING_ASKED
    if not answer.strip():
        return NO_TEXT
    inner = response if isinstance(response, Mapping) else {}
    told = {"model": str(inner.get("model") or record.get("model") or "")}
    at = time_of(inner.get("created") or record.get("created") or record.get("created_at"))
    reference = str(inner.get("id") or record.get("id") or "")
    return Judged(
        kind=SignalKind.IMPORT, asked=tuple(turns), right=answer, at=at, reference=reference, is_proposal=True, metadata={k: v for k, v in told.items() if v}
    )
