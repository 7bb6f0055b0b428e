"""Stage two of the content filters: a small classifier of texts that lies on this box, a supervised fastText model (.ftz, .bin).

It judges a request's messages one by one, and an answer window by window, before a window is shown. A window ends with a
sentence that makes it SHORTEST characters or more, or at LONGEST: by the text alone, however the engine cuts it into pieces.
"""

import re
from collections.abc import Iterator
from typing import Any

from core.errors import ConfigError

SHORTEST, LONGEST = 40, 240  # characters
_END = re.compile(r"[.!?…\n。！？]\s*")
_PREFIX = "__label__"


class Classifier:
    """One label of one model. Raises ConfigError CLASSIFIER_MISSING without the file, the library, or the label's model."""

    def __init__(self, name: str, path: str, label: str, threshold: float) -> None:
        hint = "`pip install fasttext-predict`, and name a supervised fastText model (.ftz or .bin) of your own"
        try:
            import fasttext  # type: ignore[import-untyped]

            self._model: Any = fasttext.load_model(path)
        except (ImportError, ValueError, OSError) as error:
            raise ConfigError(f"serving.filters.{name}: {path!r} cannot be loaded: {error}", hint=hint, code="CLASSIFIER_MISSING") from None
        self._label = label if label.startswith(_PREFIX) else _PREFIX + label
        self._threshold = threshold

    def fits(self, text: str) -> bool:
        """Whether the label has at least the threshold's probability."""
        line = " ".join(text.split())  # the model reads one line
        if not line:
            return False
        found = self._model.predict(line, k=-1, threshold=0.0)
        return any(label == self._label and chance >= self._threshold for label, chance in zip(*found, strict=True))


class Windows:
    """Judges a text that comes in pieces."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._text = ""

    def feed(self, text: str, *, is_last: bool = False) -> Iterator[tuple[str, bool]]:
        """(a window, whether the label fits) in order."""
        self._text += text
        while window := self._next():
            self._text = self._text[len(window) :]
            yield window, self._classifier.fits(window)
        if is_last and self._text:
            window, self._text = self._text, ""
            yield window, self._classifier.fits(window)

    def _next(self) -> str:
        """The next whole window; empty while there is none. The blanks behind a sentence are the next window's where they have not come yet."""
        for match in _END.finditer(self._text):
            end = match.start() + 1
            if end > LONGEST:
                break
            if end >= SHORTEST:
                return self._text[:end]
        return self._text[:LONGEST] if len(self._text) >= LONGEST else ""
