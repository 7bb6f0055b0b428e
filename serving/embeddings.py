"""Sentence embeddings of this box: the sealed sentence model, loaded when it is asked for first."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from core.errors import LoradError
from core.names import SENTENCE_MODEL
from store.seals import is_sealed

if TYPE_CHECKING:
    from serving.engines.sentences import SentenceModel


class EmbedderError(LoradError):
    """The sentence model of this box cannot be loaded."""


class Embedder(Protocol):
    """Texts to vectors of unit length."""

    name: str

    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """A vector a text, and how many tokens were read. Safe in threads; blocks. Raises EmbedderError."""


class Sentences:
    """The sentence model in `folder`. See `Embedder`."""

    name = SENTENCE_MODEL

    def __init__(self, folder: Path, threads: int) -> None:
        self._folder = folder
        self._threads = threads
        self._model: SentenceModel | None = None
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """One request at a time; the first one loads the model."""
        with self._lock:
            if self._model is None:
                self._model = self._load()
            return self._model.vectors(texts)

    def _load(self) -> "SentenceModel":
        try:
            from serving.engines.sentences import SentenceModel

            return SentenceModel(self._folder, self._threads)
        except (ImportError, OSError, ValueError) as error:
            raise EmbedderError(f"{self.name} cannot be loaded: {error}", hint="install lorad with its extra cpu or cuda", code="EMBEDDER_FAILED") from None


def embedder_in(models: Path, threads: int) -> Embedder | None:
    """The sentence model below `models`; None where it was never pulled, or torch is not installed."""
    from importlib.util import find_spec

    folder = models / SENTENCE_MODEL
    return Sentences(folder, threads) if is_sealed(folder) and find_spec("torch") and find_spec("transformers") else None
