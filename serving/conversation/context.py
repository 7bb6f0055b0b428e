"""What of a session goes with a new message, and how long its answer should be. Pure."""

import re
from collections.abc import Callable, Sequence
from typing import Literal

from rendering.specs import Message
from serving.conversation.histories import History, Said

Length = Literal["auto", "short", "medium", "long"]

TOKENS_A_WORD = 4  # an answer is aimed at so many tokens for each word that the user writes
SHORTEST_TOKENS = 64
RECENT = 3  # of the user's messages, the new one among them, that the aim is made from
SHARES = {"short": 4, "medium": 2}  # the aim is the longest answer divided by this
FENCE = "```"
SENTENCE_END = re.compile("[.!?…][\"')\\]»”]*(?=\\s)|[。！？]|\n\n")


def window(history: History, most: int, budget: int, count: Callable[[str], int]) -> list[Said]:
    """The newest messages of the session's context: at most `most`, of at most `budget` tokens together (0: no bound).

    They begin with a user's turn, because many chat templates refuse anything else.
    """
    messages = history.messages[history.context_from :][-most:] if most else ()
    taken: list[Said] = []
    left = budget
    for said in reversed(messages):
        left -= count(said.content) if budget else 0
        if left < 0:
            break
        taken.insert(0, said)
    return _from_user(taken)


def half(messages: Sequence[Said]) -> list[Said]:
    """The newer half of them, for a model into whose context all do not fit."""
    return _from_user(list(messages[(len(messages) + 1) // 2 :]))


def _from_user(messages: list[Said]) -> list[Said]:
    first = next((index for index, said in enumerate(messages) if said.role == "user"), len(messages))
    return messages[first:]


def turns(prompt: str, said: Sequence[Said], message: str) -> list[Message]:
    """The conversation as it is rendered: the persona's prompt where there is one, what was said, the new message."""
    head = [Message("system", prompt)] if prompt else []
    return [*head, *(Message(one.role, one.content) for one in said), Message("user", message)]


def aim_tokens(wish: Length, said: Sequence[Said], message: str, longest: int) -> int:
    """After how many tokens an answer may end at the next sentence.

    `auto` answers at the length at which the user writes: TOKENS_A_WORD for each word of their newest messages on
    average, at least SHORTEST_TOKENS. `long` is the longest that the server gives.
    """
    if wish == "auto":
        texts = [message, *(one.content for one in reversed(said) if one.role == "user")][:RECENT]
        aim = TOKENS_A_WORD * sum(len(text.split()) for text in texts) // len(texts)
    else:
        aim = longest // SHARES.get(wish, 1)
    return min(longest, max(aim, min(SHORTEST_TOKENS, longest)))


def sentence_end(text: str, start: int) -> int | None:
    """Where the first sentence that ends at or after `start` ends outside a block of code; None while none does."""
    ends = (found.end() for found in SENTENCE_END.finditer(text))
    return next((end for end in ends if end >= start and not text[:end].count(FENCE) % 2), None)
