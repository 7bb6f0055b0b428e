"""Rows with the answers of a model, for tests of metrics."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from ranking.metrics import Kit, Place, Reply, metric_named, metric_values
from rendering.answers import words_of
from rendering.rows import Row
from rendering.specs import Message, ToolCall


def row(question: str, answer: str, line: int = 1, **more: Any) -> Row:
    calls: Sequence[ToolCall] = more.pop("calls", ())
    messages = [Message("user", question), Message("assistant", answer, tool_calls=tuple(calls))]
    return Row(drop="drop-1", line=line, group=f"g{line}", split="gate", schema_id="chat_v1", messages=messages, weight=1.0, **more)


def replies(answers: Sequence[str]) -> Mapping[Place, Reply]:
    return {("drop-1", line): Reply(answer=answer) for line, answer in enumerate(answers, 1)}


def values(name: str, told: Sequence[tuple[str, str, str]], kit: Kit | None = None) -> list[float]:
    """Values of a metric over (question, row's answer, model's answer)."""
    rows = [row(question, wanted, line) for line, (question, wanted, _) in enumerate(told, 1)]
    return [float(value) for value in metric_values(metric_named(name), rows, replies([answer for *_, answer in told]), kit or Kit())]


def word_vectors(size: int = 64) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """A sentence model that knows words alone: texts that share words are near."""

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        found = np.zeros((len(texts), size), dtype=np.float32)
        for place, text in enumerate(texts):
            for word in words_of(text):
                found[place] += np.random.default_rng(xxhash.xxh32_intdigest(word.encode())).normal(size=size)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return np.asarray(found / np.where(lengths > 0, lengths, 1), dtype=np.float32)

    return embed
