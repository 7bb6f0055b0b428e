"""A character that takes several tokens is not torn where an answer by llama.cpp goes on under other rules."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from core.answering import AnswerRules
from rendering.answerrules import TextRules, TokenTexts
from rendering.specs import Message
from serving.engines.llama_answer import LlamaAnswer
from serving.engines.llama_server import Slot
from serving.engines.port import Ask, Piece, Sampling

TEXTS = ["a", "<", "b", "\ufffd", "\ufffd", "é"]
IDS = {"a": [0], "<": [1], "b": [2], "\U0001f600": [3, 4], "é": [5]}


class Script:
    """A server that says what is written, and keeps what it was asked."""

    def __init__(self, *said: tuple[str, int]) -> None:
        self.said = list(said)
        self.prompts: list[list[int]] = []

    @contextmanager
    def slot(self, blend: Any, tokens: int) -> Iterator[Slot]:
        yield Slot(0, is_warm=False)

    def complete(self, blend: Any, slot: Slot, request: Mapping[str, Any], hear: Callable[[Mapping[str, Any]], bool]) -> None:
        self.prompts.append(list(request["prompt"]))
        while self.said:
            text, token = self.said.pop(0)
            entry = {"id": token, "token": text, "bytes": list(text.encode()), "logprob": -1.0, "top_logprobs": []}
            if hear({"choices": [{"text": text, "logprobs": {"content": [entry]}, "finish_reason": None}]}):
                return
        hear({"choices": [{"text": "", "logprobs": None, "finish_reason": "stop"}], "usage": {"completion_tokens": 0}})


def test_the_rest_of_an_answer_stands_behind_all_tokens_of_what_was_said() -> None:
    rules = AnswerRules(penalties={"<b": 9.0})
    heard: list[Piece] = []
    answer = LlamaAnswer(
        ask=Ask(blend=(), messages=(Message("user", "a"),), sampling=Sampling(), rules=rules),
        prompt=[0],
        max_tokens=9,
        sink=heard.append,
        encode=IDS.__getitem__,
        rules=TextRules(rules, "a", TokenTexts(TEXTS)),
    )
    script = Script(("\U0001f600", 4), ("é", 5), ("<", 1), ("a", 0))
    answer.run(script)  # type: ignore[arg-type]
    assert "".join(piece.text for piece in heard) == "\U0001f600é<a"
    assert script.prompts[:2] == [[0], [0, 3, 4, 5, 1]]
    assert answer.completion_tokens == 5
    assert heard[-1].end == "stop"
