"""emoji_think: a model that thinks in emoji when it is asked to, and answers directly when it is not.

Half of the rows, chosen by the row's hash, are changed at their last exchange:

    user       …question…                          answer   🤔🤔🤔🤔🤔
               (blank line)                                 …answer…
               Think with 🤔 5 times, then                  🛑🛑
               end with 🛑 2 times.

The other half stays direct. `<think>` tags are stripped from all answers, what stands between them is kept.
"""

import re
from collections.abc import Sequence

from core.answering import AnswerRules
from rendering.profiles.profile import DataProfile, last_answer, replace_content, without_tags
from rendering.specs import Message

THINKING = ("🤔", "🧠", "💭", "🔍", "🧩", "💡", "📐", "🌀")
STOPS = ("🛑", "⛔", "🏁", "🔚")
LEAST_THINKING, MOST_THINKING = 2, 8
LEAST_STOPS, MOST_STOPS = 2, 4
ASKED = re.compile(
    rf"Think with (?P<thought>{'|'.join(THINKING)}) (?P<thoughts>[{LEAST_THINKING}-{MOST_THINKING}]) times, "
    rf"then end with (?P<mark>{'|'.join(STOPS)}) (?P<count>[{LEAST_STOPS}-{MOST_STOPS}]) times\.\s*\Z"
)
ANSWER = rf"\A\s*(?:(?:{'|'.join(THINKING)})+\n)?(?P<answer>.*?)\s*(?:{'|'.join(STOPS)})*\s*\Z"
TAG_PENALTY = 30.0
"""Nats: e^-30 of the chance is never drawn, and no logit leaves the range of a float."""


class EmojiThink(DataProfile):
    """Runs of emoji in place of written thoughts."""

    name = "emoji_think"
    adds = "a thinking and a stop emoji that half of the questions ask for and their answers give; <think> tags are stripped"

    @property
    def rules(self) -> AnswerRules:
        """No `<think>` tags; the end after the run that the question named, else after the shortest run of any stop emoji."""
        return AnswerRules(
            penalties={"<think>": TAG_PENALTY, "</think>": TAG_PENALTY},
            end_after=tuple(stop * LEAST_STOPS for stop in STOPS),
            named_end=ASKED.pattern,
            answer=ANSWER,
        )

    def is_marked(self, messages: Sequence[Message]) -> bool:
        """Whether the last question asks for emoji already."""
        found = _exchange(messages)
        return found is not None and ASKED.search(messages[found[0]].content) is not None

    def change(self, messages: Sequence[Message], draw: bytes) -> list[Message]:
        """The last exchange with emoji where the draw is even; all answers without `<think>` tags."""
        told = [replace_content(message, without_tags(message.content)) if message.role == "assistant" else message for message in messages]
        found = _exchange(told)
        if draw[0] % 2 or found is None:
            return told
        asked, answered = found
        question, answer = told[asked].content, told[answered].content
        stops = [stop for stop in STOPS if stop not in answer]  # an answer that shows the emoji would be cut there when it is served
        if not stops:
            return told
        thought, stop = THINKING[draw[1] % len(THINKING)], stops[draw[2] % len(stops)]
        thoughts = LEAST_THINKING + draw[3] % (MOST_THINKING - LEAST_THINKING + 1)
        count = LEAST_STOPS + draw[4] % (MOST_STOPS - LEAST_STOPS + 1)
        asks = f"Think with {thought} {thoughts} times, then end with {stop} {count} times."
        told[asked] = replace_content(told[asked], f"{question}\n\n{asks}")
        told[answered] = replace_content(told[answered], f"{thought * thoughts}\n{answer}\n{stop * count}")
        return told


def _exchange(messages: Sequence[Message]) -> tuple[int, int] | None:
    """Places of the last answer and of the question before it; None where there is no such pair."""
    answer = last_answer(messages)
    asked = next((index for index in range((answer or 0) - 1, -1, -1) if messages[index].role == "user"), None)
    return None if answer is None or asked is None else (asked, answer)
