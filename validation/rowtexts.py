"""The texts of rows as hashed words, worked out once a batch; and what many rows of the file share: its templates."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rendering.specs import BAD_JSON, Message, Spec
from validation.case import Case
from validation.checks.files import BOM
from validation.context import Batch, Context
from validation.control import ControlTokens
from validation.grams import Grams, Words, grams_of, words_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from validation.grams import Hashes, Places

SAMPLE_PLACES = 64  # of the file at which rows are read for its templates
PLACE_BYTES = 32 << 10
TEMPLATE_SHARE = 0.1  # of the sampled rows that hold a gram, from which on it belongs to a template
TEMPLATE_ROWS = 6  # and at least so many: fewer may be copies of one row


def texts_of(case: Case) -> list[str]:
    """What a row says: its turns, its tool calls, and the worse answer where it has one."""
    texts = _said(case.messages)
    rejected = case.rejected
    if rejected is not None:
        texts += _said([message for message in rejected if message not in case.messages])
    return texts


def _said(messages: Sequence[Message]) -> list[str]:
    texts = []
    for message in messages:
        if message.content:
            texts.append(message.content)
        texts.extend(f"{call.name} {call.arguments}" for call in message.tool_calls)
    return texts


@dataclass(frozen=True)
class RowWords:
    """The words of some rows: the texts of row i are texts `rows[i]` to `rows[i + 1] - 1` of `words`."""

    words: Words
    rows: "Places"
    _grams: dict[int, Grams] = field(default_factory=dict)

    @classmethod
    def of(cls, texts: Sequence[Sequence[str]]) -> "RowWords":
        """The words of rows whose texts are these."""
        import numpy as np

        rows = np.zeros(len(texts) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in texts], out=rows[1:])
        return cls(words_of([text for row in texts for text in row]), rows)

    def grams(self, n: int) -> Grams:
        """The n-grams of each row; none goes over the end of a text."""
        if n not in self._grams:
            self._grams[n] = grams_of(self.words, n, self.rows)
        return self._grams[n]

    @cached_property
    def counts(self) -> "Places":
        """Words of each row."""
        borders = self.words.offsets[self.rows]
        return borders[1:] - borders[:-1]


class BatchWords:
    """The words of the batch at hand, so that several checks share the work."""

    def __init__(self) -> None:
        self._cases: Sequence[Case] | None = None
        self._words = RowWords.of([])

    def of(self, batch: Batch) -> RowWords:
        """The words of the batch's rows."""
        if self._cases is not batch.cases:
            self._cases, self._words = batch.cases, RowWords.of([texts_of(case) for case in batch.cases])
        return self._words


def batch_words(batch: Batch) -> RowWords:
    """The words of the batch's rows, worked out once."""
    return batch.context.once("batch words", BatchWords).of(batch)


class Templates:
    """Word n-grams that stand in a large share of the file's rows. Found in a sample, the same in every process."""

    def __init__(self, rows: RowWords) -> None:
        self._rows = rows
        self._sorted: dict[int, Hashes] = {}
        self._maybe: dict[int, NDArray[np.bool_]] = {}

    def grams(self, n: int) -> "Hashes":
        """The n-grams that belong to templates, sorted."""
        if n not in self._sorted:
            self._sorted[n] = shared_grams(self._rows.grams(n), max(TEMPLATE_ROWS, TEMPLATE_SHARE * (len(self._rows.rows) - 1)))
        return self._sorted[n]

    def holds(self, hashes: "Hashes", n: int) -> "NDArray[np.bool_]":
        """Which of these n-grams belong to a template."""
        import numpy as np

        known = self.grams(n)
        found = np.zeros(len(hashes), dtype=np.bool_)
        if len(known):
            if n not in self._maybe:  # most grams are in no template: a look at a table of bits tells in a tenth of the time
                self._maybe[n] = np.zeros(1 << 20, dtype=np.bool_)
                self._maybe[n][(known >> np.uint64(44)).astype(np.int64)] = True
            maybe = np.flatnonzero(self._maybe[n][(hashes >> np.uint64(44)).astype(np.int64)])
            found[maybe] = np.isin(hashes[maybe], known)
        return found


def shared_grams(grams: Grams, least: float) -> "Hashes":
    """The grams that at least `least` rows hold, sorted."""
    import numpy as np

    rows = [np.unique(grams.of(place)) for place in range(len(grams.offsets) - 1)]
    if not rows:
        return grams.hashes
    found, counts = np.unique(np.concatenate(rows), return_counts=True)
    shared: Hashes = found[counts >= least]
    return shared


def templates(context: Context) -> Templates:
    """The templates of the file under check."""
    return context.once("templates", lambda: Templates(RowWords.of([texts_of(case) for case in sampled_rows(context.file, context.spec)])))


def sampled_rows(file: Path, spec: Spec) -> Iterator[Case]:
    """Rows from places all over the file, at most SAMPLE_PLACES times PLACE_BYTES of them."""
    fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    control = ControlTokens()
    try:
        size = os.fstat(fd).st_size
        length, places = (PLACE_BYTES, SAMPLE_PLACES) if size > SAMPLE_PLACES * PLACE_BYTES else (size, 1)
        for offset in range(0, size, max(1, size // places)):
            lines = os.pread(fd, length, offset).split(b"\n")
            for raw in lines[offset > 0 : len(lines) if offset + length >= size else -1]:
                try:
                    row = spec.decode(raw.removeprefix(BOM))
                except BAD_JSON:
                    continue
                yield Case(0, raw, row, spec, control)
    finally:
        os.close(fd)
