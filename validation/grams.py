"""Texts as hashed word n-grams, many at a time: what near duplicates and contamination are found by.

Words are runs of letters and digits, case folded; everything between them is left out. Scripts without blanks (CJK, Thai
and their kin) count each character as a word. All numbers are 64-bit hashes, the same in every process and on every
machine, so they may be stored.

A hash of words i to i+n-1 comes from one running sum: with S the sum of hash(word j) * P**j, it is
(S[i+n] - S[i]) * P**-i modulo 2**64.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Hashes = NDArray[np.uint64]
    Places = NDArray[np.int64]

GRAMS_VERSION = 1  # of every stored hash; raise it with any change of what a word or its hash is

_BASE = 0x9E3779B97F4A7C15  # odd, so it has an inverse modulo 2**64
_INVERSE = pow(_BASE, -1, 1 << 64)
_MIX = 0xD6E8FEB86659FD93
# Scripts that write no blanks between words: Thai, Lao, Burmese, Khmer, Kana, Han.
_unspaced = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+").sub
_signs = re.compile(  # and blanks
    "[\u0080-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b8\u00bb\u00bf\u00d7\u00f7\u1680\u2000-\u200b\u200e-\u206f\u20a0-\u20cf\u2190-\u2bff"
    "\u3000-\u3004\ufe10-\ufe6f\ufeff\uff00-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\U0001f000-\U0001faff]"
).sub
_BORDER = b"\n"  # behind each text: no word goes over it
CHUNK_BYTES = 1 << 20  # hashed at a time: arrays of eight bytes for each byte of text


@dataclass(frozen=True, slots=True)
class Words:
    """The words of some texts, one after the other: those of text i are `hashes[offsets[i]:offsets[i + 1]]`."""

    hashes: "Hashes"
    offsets: "Places"  # one more than texts

    @property
    def counts(self) -> "Places":
        """Words of each text."""
        return self.offsets[1:] - self.offsets[:-1]


@dataclass(frozen=True, slots=True)
class Grams:
    """The n-grams of some texts or rows: those of place i are `hashes[offsets[i]:offsets[i + 1]]`."""

    hashes: "Hashes"
    offsets: "Places"

    def of(self, place: int) -> "Hashes":
        """The grams of one text or row."""
        return self.hashes[int(self.offsets[place]) : int(self.offsets[place + 1])]

    def kept(self, keep: "NDArray[np.bool_]") -> "Grams":
        """Those grams that `keep` says."""
        import numpy as np

        before = np.zeros(len(keep) + 1, dtype=np.int64)
        np.cumsum(keep, out=before[1:])
        return Grams(self.hashes[keep], before[self.offsets])


def words_of(texts: Sequence[str]) -> Words:
    """The hashed words of texts. About 9 µs for a text of 900 ASCII characters."""
    import numpy as np

    parts: list[Words] = []
    chunk: list[bytes] = []
    size = 0
    for encoded in map(_folded, texts):
        if chunk and size + len(encoded) > CHUNK_BYTES:
            parts.append(_hashed(chunk))
            chunk, size = [], 0
        chunk.append(encoded)
        size += len(encoded)
    parts.append(_hashed(chunk))
    if len(parts) == 1:
        return parts[0]
    offsets = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum(np.concatenate([part.counts for part in parts]), out=offsets[1:])
    return Words(np.concatenate([part.hashes for part in parts]), offsets)


def _folded(text: str) -> bytes:
    if text.isascii():
        return text.encode()
    return _unspaced(_apart, _signs(" ", text.casefold())).encode("utf-8", "replace")


def _apart(run: "re.Match[str]") -> str:
    return f" {' '.join(run[0])} "


_LOWER = bytes(byte | 0x20 if 0x41 <= byte <= 0x5A else byte for byte in range(256))
_IS_WORD = bytes(0x30 <= byte <= 0x39 or 0x61 <= byte <= 0x7A or byte >= 0x80 for byte in range(256))
_STRIDE = 8  # bytes of a word that are hashed at a time


def _hashed(texts: Sequence[bytes]) -> Words:
    import numpy as np

    content = _BORDER.join(texts).translate(_LOWER) + _BORDER
    starts = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum([len(text) + 1 for text in texts], out=starts[1:])
    in_word = np.frombuffer(content.translate(_IS_WORD), dtype=np.bool_)
    edges = np.flatnonzero(in_word[1:] != in_word[:-1]) + 1
    if in_word[0]:
        edges = np.concatenate([[0], edges])
    begins, ends = edges[0::2], edges[1::2]  # the last byte is a border: every word ends
    hashes = _word_hashes(content, begins, ends - begins)
    return Words(hashes, np.searchsorted(begins, starts))


def _word_hashes(content: bytes, begins: "Places", lengths: "Places") -> "Hashes":
    """Hash of each word content[begin:begin + length], eight bytes at a time."""
    import numpy as np

    padded = content + bytes(_STRIDE)
    eights = np.ndarray(shape=(len(content),), dtype="<u8", buffer=padded, strides=(1,))  # the eight bytes from each place on
    masks = np.array([(1 << 8 * size) - 1 for size in range(_STRIDE + 1)], dtype=np.uint64)
    hashes = _mixed((eights[begins] & masks[np.minimum(lengths, _STRIDE)]) + lengths.astype(np.uint64) * np.uint64(_BASE))
    longer, done = np.flatnonzero(lengths > _STRIDE), _STRIDE
    while len(longer):
        part = eights[begins[longer] + done] & masks[np.minimum(lengths[longer] - done, _STRIDE)]
        hashes[longer] = _mixed(hashes[longer] * np.uint64(_BASE) + part)
        done += _STRIDE
        longer = longer[lengths[longer] > done]
    return hashes


def _mixed(values: "Hashes") -> "Hashes":
    """Hashes whose every bit depends on every bit of the value (an xor-shift-multiply step)."""
    import numpy as np

    values = (values ^ (values >> np.uint64(32))) * np.uint64(_MIX)
    mixed: Hashes = values ^ (values >> np.uint64(32))
    return mixed


def grams_of(words: Words, n: int, rows: "Places | None" = None) -> Grams:
    """The n-grams of each text, none over the end of a text; a text of fewer words has none.

    Args: rows: first text of each row and the number of all texts; grams are then those of rows.
    """
    import numpy as np

    hashes, offsets = words.hashes, words.offsets
    borders = offsets if rows is None else offsets[rows]
    if len(hashes) < n:
        return Grams(hashes[:0], np.zeros(len(borders), dtype=np.int64))
    total = np.zeros(len(hashes) + 1, dtype=np.uint64)
    np.cumsum(hashes * _powers(len(hashes)), out=total[1:])
    grams = _mixed((total[n:] - total[:-n]) * _inverse_powers(len(hashes))[: len(hashes) - n + 1] + np.uint64(n))
    inside = np.ones(len(grams), dtype=np.bool_)
    for step in range(1, n):  # a gram that begins less than n words before the end of its text goes over it
        over = offsets[1:-1] - step
        inside[over[(over >= 0) & (over < len(grams))]] = False
    return Grams(grams, np.minimum(borders, len(grams))).kept(inside)


@lru_cache(maxsize=8)
def _power_table(base: int, length: int) -> "Hashes":
    import numpy as np

    return np.cumprod(np.concatenate([[np.uint64(1)], np.full(length, base, dtype=np.uint64)]), dtype=np.uint64)


def _powers(length: int) -> "Hashes":
    return _power_table(_BASE, _room(length))[:length]


def _inverse_powers(length: int) -> "Hashes":
    return _power_table(_INVERSE, _room(length))[:length]


def _room(length: int) -> int:
    """A length of table that serves many: the next power of two."""
    return 1 << max(16, (length - 1).bit_length())
