"""The engine as the routes see it: every answer passes the content filters, is counted and, where it is kept, written down.

Only what people ask comes through here; the probe, a rehearsal and the canary prompts ask the engine itself.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from serving.access import exchange
from serving.access.exchange import Exchange, Track
from serving.access.filters import REFUSED_END, ContentRefused, Filters, Outgoing
from serving.engines.port import Ask, BaseIdentity, Blend, Engine, Generation, Piece, Sink
from serving.metrics import Meter


class Doorway:
    """An engine before which stand filters, and beside which sits a meter."""

    def __init__(self, engine: Engine, filters: Filters, meter: Meter, *, keeps_texts: bool = False) -> None:
        self._engine = engine
        self._filters = filters
        self._meter = meter
        self._keeps_texts = keeps_texts
        self.name = engine.name
        self.backend = engine.backend
        self.streams = engine.streams

    @property
    def base(self) -> BaseIdentity:
        """The engine's."""
        return self._engine.base

    @base.setter
    def base(self, value: BaseIdentity) -> None:
        """Replace it, as the engine within does once its base is loaded."""
        self._engine.base = value

    def open(self) -> None:
        """The engine's."""
        self._engine.open()

    def close(self) -> None:
        """The engine's."""
        self._engine.close()

    def load(self, release: str, folder: Path) -> None:
        """The engine's."""
        self._engine.load(release, folder)

    def unload(self, release: str) -> None:
        """The engine's."""
        self._engine.unload(release)

    def logprobs(self, blend: Blend, prompt_ids: Sequence[int], ids: Sequence[int]) -> list[float] | None:
        """The engine's."""
        return self._engine.logprobs(blend, prompt_ids, ids)

    def begin(self, ask: Ask, sink: Sink) -> Generation:
        """The engine's, filtered and counted. Raises ContentRefused too."""
        if ask.sampling.logprobs is not None and self._filters.changes_answers:
            what = "this server's content filters change answers: it gives no log-probabilities of them"
            raise ContentRefused(what, hint="leave logprobs out", code="LOGPROBS_FILTERED")
        ask = self._filters.incoming(ask)
        track = Track(blend=ask.blend, begun_s=time.monotonic(), max_tokens=ask.sampling.max_tokens)
        if self._keeps_texts:
            track.asked = tuple((message.role, message.content) for message in ask.messages) if ask.text is None else (("", ask.text),)
        told = exchange.current()
        if told is not None:
            told.tracks.append(track)
        self._meter.begin(track, told, self.base.name)
        listener = _Listener(sink, self._filters.outgoing(), _Count(self._meter, track, told, self.base.name), keeps_texts=self._keeps_texts)
        try:
            generation = self._engine.begin(ask, listener)
        except BaseException:
            self._meter.break_off(self.base.name)
            raise
        listener.know(generation)
        return generation


class _Count:
    """Counts an answer once, when its end was heard and its generation is known, whichever comes last."""

    def __init__(self, meter: Meter, track: Track, told: Exchange | None, model: str) -> None:
        self.track = track
        self._meter, self._told, self._model = meter, told, model
        self._left = 2
        self._lock = threading.Lock()

    def step(self) -> None:
        with self._lock:
            self._left -= 1
            is_whole = self._left == 0
        if is_whole:
            self._meter.end(self.track, self._told, self._model)


class _Listener:
    """Hears the engine's pieces and hands on what may be shown."""

    def __init__(self, sink: Sink, outgoing: Outgoing | None, count: _Count, *, keeps_texts: bool) -> None:
        self._sink = sink
        self._outgoing = outgoing
        self._count = count
        self._keeps_texts = keeps_texts
        self._is_over = False  # the caller has heard the end; the engine may still go on for a moment
        self._has_ended = False

    def know(self, generation: Generation) -> None:
        self._count.track.generation = generation
        if self._is_over:  # refused before the engine's `begin` returned
            generation.cancel()
        self._count.step()

    def __call__(self, piece: Piece) -> None:
        track = self._count.track
        if track.first_s is None and (piece.text or piece.tokens):
            track.first_s = time.monotonic()
        is_end = piece.end is not None or piece.error is not None
        if not self._is_over:
            self._hand_on(self._filtered(piece))
        if is_end and not self._has_ended:
            self._has_ended = True
            track.ended_s = time.monotonic()
            track.end = track.end or ("error" if piece.error is not None else str(piece.end))
            self._count.step()

    def _filtered(self, piece: Piece) -> Piece:
        if self._outgoing is None or piece.error is not None:
            return piece
        text = self._outgoing.feed(piece.text, is_last=piece.end is not None)
        if not self._outgoing.is_refused:
            return replace(piece, text=text)
        track = self._count.track
        track.end = REFUSED_END
        if track.generation is not None:
            track.generation.cancel()
        return Piece(text=text, end=REFUSED_END)

    def _hand_on(self, piece: Piece) -> None:
        if self._keeps_texts and piece.text:
            self._count.track.said.append(piece.text)
        self._is_over = piece.end is not None or piece.error is not None
        self._sink(piece)
