"""Text out of tokens while they come: whole characters only, and nothing of a stop string."""

from collections.abc import Callable, Sequence

HALF = "\ufffd"  # how a decoder shows the beginning of a character whose other bytes have not come yet


class Detokenizer:
    """Text piece by piece; the pieces together are what decoding all tokens at once gives.

    Decoding each token alone would lose blanks and split characters, so a short window is decoded twice: with and
    without the new tokens. The window moves on when the text does not end in half a character.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._begin = 0  # the window's first token
        self._told = 0  # tokens whose text was given out

    def feed(self, token: int) -> str:
        """The text that this token makes certain; empty while a character is half."""
        self._ids.append(token)
        text = self._fresh()
        if not text or text.endswith(HALF):
            return ""
        self._begin, self._told = self._told, len(self._ids)
        return text

    def flush(self) -> str:
        """What is left at the end, half a character included."""
        text = self._fresh()
        self._begin = self._told = len(self._ids)
        return text

    def _fresh(self) -> str:
        told = self._decode(self._ids[self._begin : self._told])
        return self._decode(self._ids[self._begin :])[len(told) :]


class StopStrings:
    """Passes text on up to the first stop string; holds back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.hit = False

    def feed(self, text: str) -> str:
        """The text that can be given out now. Sets `hit` when a stop string was found; it is not part of the text."""
        if not self._stops:
            return text
        self._held += text
        found = [place for place in map(self._held.find, self._stops) if place >= 0]
        if found:
            self.hit = True
            text, self._held = self._held[: min(found)], ""
            return text
        keep = max(overlap(self._held, stop) for stop in self._stops)
        text = self._held[: len(self._held) - keep]
        self._held = self._held[len(text) :]
        return text

    def flush(self) -> str:
        """What was held back, once no more text comes."""
        text, self._held = self._held, ""
        return text


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
