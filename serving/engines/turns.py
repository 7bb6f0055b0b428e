"""Answers in turn on one thread: each step of each answer queues behind the steps of the others."""

import logging
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Protocol

from core.errors import LoradError
from serving.engines.port import FinishReason, Piece, Sink

log = logging.getLogger(__name__)


class Stepping(Protocol):
    """An answer that is computed step by step on one thread."""

    prompt_tokens: int
    completion_tokens: int
    finish_reason: FinishReason | None  # None while it goes on

    def step(self) -> str:
        """One step: the text that became certain, often empty."""


class Turns:
    """One answer's turns on an executor of one worker. See `port.Generation`."""

    cached_tokens = 0

    def __init__(self, thread: Executor, answer: Stepping, sink: Sink) -> None:
        self._thread = thread
        self._answer = answer
        self._sink = sink
        self._cancelled = False
        self.prompt_tokens = answer.prompt_tokens
        self._submit(self._turn)

    @property
    def completion_tokens(self) -> int:
        """Tokens made so far."""
        return self._answer.completion_tokens

    def cancel(self) -> None:
        """Stop at the next turn."""
        self._cancelled = True

    def _turn(self) -> None:
        if self._cancelled:
            self._sink(Piece(end="cancelled"))
            return
        try:
            text = self._answer.step()
        except LoradError as error:
            self._sink(Piece(error=error))
            return
        except Exception:  # the border of the thread: a caller waits for its last piece
            log.exception("an answer broke off", extra={"action": "answer_failed"})
            self._sink(Piece(error=LoradError("the engine failed at this answer", hint="the server's log says where", code="ENGINE_FAILED")))
            return
        end = self._answer.finish_reason
        if text or end:
            self._sink(Piece(text=text, end=end))
        if end is None:
            self._submit(self._turn)

    def _submit(self, turn: Callable[[], None]) -> None:
        try:
            self._thread.submit(turn).add_done_callback(self._look_after)
        except RuntimeError:  # the engine was closed meanwhile
            self._sink(Piece(end="cancelled"))

    def _look_after(self, turn: "Future[None]") -> None:
        if turn.cancelled():  # the engine was closed while it waited
            self._sink(Piece(end="cancelled"))
