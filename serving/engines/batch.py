"""Continuous batching on one thread: answers join and leave between two steps of the others.

A turn is: what other threads asked for (loads, probes), one piece of one newcomer's prompt, then one token of every
answer that has been read. So a long prompt holds the others' tokens back by one piece at a time, and a load by its own
length. Answers of different releases share the step (`adapter_layers`); answers of a base whose state has no places
take it one after another.

transformers' own continuous batching was measured and left: on a CPU its paged cache and fixed-size inputs gave 18
tokens a second at 8 streams where the plain forward gives over 100; it knows no adapters per request, no grammar and no
cancelling between two tokens.

One thread because torch keeps a pool of workers for every thread that calls it.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from transformers.cache_utils import DynamicCache

from core.errors import LoradError
from serving.engines.answering import Answering
from serving.engines.merging import Merging
from serving.engines.prefixes import PIECE_TOKENS, Prefixes
from serving.engines.slots import Slots
from serving.engines.torch_model import TorchModel

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Row:
    """An answer that the thread works on: its cache while its prompt is read, then its place among the slots."""

    answer: Answering
    cache: DynamicCache
    merged: bool  # whether it began with the weights that hold its blend
    keys: list[bytes]
    num_read: int = 0


@dataclass(slots=True, kw_only=True)
class Floor:
    """What the thread works with once the base is loaded."""

    model: TorchModel
    prefixes: Prefixes
    merging: Merging
    together: bool  # whether this base's answers can share a step
    slots: Slots = field(default_factory=Slots)


class Batch:
    """The thread, its queue of calls, and the answers. `open` before the first `add`."""

    def __init__(self, streams: int) -> None:
        self._streams = streams
        self._floor: Floor
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._coming: deque[Answering] = deque()
        self._reading: deque[Row] = deque()
        self._rows: list[Row] = []  # in the order of their places
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def open(self, floor: Floor) -> None:
        """What the answers are computed with."""
        self._floor = floor

    def call(self, work: Callable[[], T]) -> T:
        """The result of `work`, run on the thread between two turns; what it raises is raised here."""
        future: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise LoradError("the engine is closed", hint="the server is stopping", code="ENGINE_FAILED")
            self._calls.append((work, future))
            self._changed.notify()
        return future.result()

    def add(self, answer: Answering) -> None:
        """Answer when there is a free stream, in the order of coming."""
        answer.awake = self._wake
        with self._changed:
            if not self._closed:
                self._coming.append(answer)
                self._changed.notify()
                return
        answer.stop()

    def close(self) -> None:
        """End the thread; every answer ends as cancelled."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._closed or self._calls or self._coming or self._reading or self._rows):
                    self._changed.wait()
                if self._closed:
                    break
            try:
                self._turn()
            except Exception as error:  # the border of the thread: callers wait for their last pieces
                log.exception("the engine's turn failed", extra={"action": "turn_failed"})
                self._end_all(_failed(error))
        self._end_all(None)
        for _, future in self._calls:
            future.cancel()

    def _turn(self) -> None:
        self._drop_ended()
        self._do_calls()
        while self._coming and len(self._rows) + len(self._reading) < self._streams:
            self._admit(self._coming.popleft())
        if self._reading:
            self._read_piece(self._reading[0])
        if self._rows:
            self._step()
        elif not self._reading:
            return
        if not self._reading:
            self._floor.merging.work()

    def _do_calls(self) -> None:
        while self._calls:
            work, future = self._calls.popleft()
            try:
                future.set_result(work())
            except BaseException as error:  # handed to whoever asked
                future.set_exception(error)

    def _admit(self, answer: Answering) -> None:
        if answer.is_cancelled:
            answer.stop()
            return
        floor, blend = self._floor, answer.wish.blend
        merged = floor.merging.begin(blend)
        row = Row(answer=answer, cache=floor.model.new_cache(), merged=merged, keys=list(floor.prefixes.keys(blend, merged, answer.wish.prompt_ids)))
        row.num_read = answer.cached_tokens = floor.prefixes.fill(row.cache, row.keys) * PIECE_TOKENS
        self._reading.append(row)

    def _read_piece(self, row: Row) -> None:
        floor, answer = self._floor, row.answer
        ids = answer.wish.prompt_ids[row.num_read : row.num_read + PIECE_TOKENS]
        try:
            merged = row.merged and floor.merging.holds(answer.wish.blend)
            logits_V = floor.model.read(answer.wish.blend, ids, row.cache, merged=merged)
            row.num_read += len(ids)
            if merged == row.merged and (place := row.num_read // PIECE_TOKENS - 1) < len(row.keys) and len(ids) == PIECE_TOKENS:
                floor.prefixes.keep(row.keys[: place + 1], answer.wish.blend, row.cache)
            if row.num_read < answer.prompt_tokens:
                return
            self._reading.popleft()
            answer.take(logits_V)
            if answer.is_over:
                return
            if floor.together:
                floor.slots.put(row.cache, row.num_read, row.num_read + answer.wish.max_tokens)
        except Exception as error:  # the border of one answer: the others go on
            log.exception("an answer broke off", extra={"action": "answer_failed"})
            if self._reading and self._reading[0] is row:
                self._reading.popleft()
            answer.fail(_failed(error))
            return
        self._rows.append(row)

    def _step(self) -> None:
        self._drop_ended()
        if not self._floor.together:
            for row in self._rows:
                self._forward(row)
            return
        blends = [row.answer.wish.blend for row in self._rows]
        everyone = list(range(len(self._rows)))
        if not everyone:
            return
        if self._floor.model.adapters.can_mix(blends):
            groups = [everyone]
        else:
            groups = [[place for place in everyone if blends[place] == blend] for blend in dict.fromkeys(blends)]
        for places in groups:
            self._forward_together(places)

    def _forward_together(self, places: list[int]) -> None:
        floor, rows = self._floor, [self._rows[place] for place in places]
        blends = [row.answer.wish.blend for row in rows]
        merged = len(set(blends)) == 1 and all(row.merged for row in rows) and floor.merging.holds(blends[0])
        try:
            logits_BV = floor.model.step(blends, [row.answer.last_token for row in rows], floor.slots.step(places), merged=merged)
        except Exception as error:  # the border of one step: whoever is not in it goes on
            log.exception("a step of %d answers failed", len(rows), extra={"action": "answer_failed"})
            for row in rows:
                row.answer.fail(_failed(error))
            return
        floor.slots.grown(places)
        floor.merging.heard(len(rows))
        for row, logits_V in zip(rows, logits_BV, strict=True):
            row.answer.take(logits_V)

    def _forward(self, row: Row) -> None:
        try:
            merged = row.merged and self._floor.merging.holds(row.answer.wish.blend)
            logits_V = self._floor.model.read(row.answer.wish.blend, [row.answer.last_token], row.cache, merged=merged)
        except Exception as error:  # the border of one answer
            log.exception("an answer broke off", extra={"action": "answer_failed"})
            row.answer.fail(_failed(error))
            return
        self._floor.merging.heard(1)
        row.answer.take(logits_V)

    def _drop_ended(self) -> None:
        for answer in [answer for answer in self._coming if answer.is_cancelled]:
            self._coming.remove(answer)
            answer.stop()
        for row in [row for row in self._reading if row.answer.is_cancelled]:
            self._reading.remove(row)
            row.answer.stop()
        for place in reversed(range(len(self._rows))):
            answer = self._rows[place].answer
            if answer.is_cancelled:
                answer.stop()
            if answer.is_over:
                self._leave(place)

    def _leave(self, place: int) -> None:
        """Free a place; the last row moves into it, among the slots and here."""
        self._floor.merging.show(self._rows[place].answer)
        if self._floor.together:
            self._floor.slots.drop(place)
        self._rows[place] = self._rows[-1]
        self._rows.pop()

    def _end_all(self, error: LoradError | None) -> None:
        answers = [*(row.answer for row in (*self._rows, *self._reading)), *self._coming]
        while self._rows:
            self._leave(len(self._rows) - 1)
        self._reading.clear()
        self._coming.clear()
        for answer in answers:
            if error:
                answer.fail(error)
            else:
                answer.stop()


def _failed(error: Exception) -> LoradError:
    full = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate" in str(error)
    why = "its memory is full" if full else str(error)
    return LoradError(f"the engine failed: {why}", hint="the server's log says where", code="ENGINE_FAILED")
