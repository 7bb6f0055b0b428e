"""Beginnings of prompts that were read before, kept by what read them.

A prompt is read in pieces of a fixed size, cold or warm, so that a piece is computed by the same products either way:
an answer that found its beginning here is bit for bit the one that did not. A piece is known by the base, the blend
and all tokens up to its end; no cache crosses releases.

Axes: T tokens, H heads, D head size.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers.cache_utils import DynamicCache

from serving.engines.port import Blend

PIECE_TOKENS = 64  # below it, a piece's products cost nearly what 64 tokens cost; above, less is found again


@dataclass(frozen=True, slots=True)
class Read:
    """One piece: keys and values of every layer (1, H, T, D)."""

    blend: Blend
    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]

    @property
    def size_bytes(self) -> int:
        """Memory that it takes."""
        return sum(tensor.nbytes for pair in self.layers for tensor in pair)


class Prefixes:
    """Pieces by key, least recently used first out. One thread."""

    def __init__(self, base_sha256: str, budget_bytes: int) -> None:
        self._base = base_sha256
        self._budget = budget_bytes
        self._pieces: OrderedDict[bytes, Read] = OrderedDict()
        self.size_bytes = 0

    def keys(self, blend: Blend, merged: bool, ids: Sequence[int]) -> Iterator[bytes]:
        """The key of each whole piece of a prompt, in order; the last token is never part of one, as it must be read for its logits."""
        if not self._budget:
            return
        key = hashlib.sha256(repr((self._base, blend, merged)).encode()).digest()
        for start in range(0, len(ids) - PIECE_TOKENS, PIECE_TOKENS):
            piece = b"".join(token.to_bytes(4, "little") for token in ids[start : start + PIECE_TOKENS])
            key = hashlib.sha256(key + piece).digest()
            yield key

    def fill(self, cache: DynamicCache, keys: Sequence[bytes]) -> int:
        """Put the longest known beginning into an empty cache; how many pieces of it there were."""
        found = []
        for key in keys:
            if key not in self._pieces:
                break
            found.append(key)
        if found:
            pieces = [self._pieces[key].layers for key in found]
            for number in range(len(pieces[0])):
                keys_T, values_T = (torch.cat([layers[number][side] for layers in pieces], dim=2) for side in (0, 1))
                cache.update(keys_T, values_T, number)
        self._touch(found)
        return len(found)

    def keep(self, keys: Sequence[bytes], blend: Blend, cache: DynamicCache) -> None:
        """Remember the piece that `cache` ends with; `keys` are those of its prompt up to it."""
        if keys[-1] in self._pieces:
            return
        read = Read(blend, tuple((layer.keys[:, :, -PIECE_TOKENS:].clone(), layer.values[:, :, -PIECE_TOKENS:].clone()) for layer in cache.layers))
        self._pieces[keys[-1]] = read
        self.size_bytes += read.size_bytes
        self._touch(keys)
        while self.size_bytes > self._budget:
            self.size_bytes -= self._pieces.popitem(last=False)[1].size_bytes

    def forget(self, release: str) -> None:
        """Drop what a release read."""
        for key, read in list(self._pieces.items()):
            if any(part.release == release for part in read.blend):
                del self._pieces[key]
                self.size_bytes -= read.size_bytes

    def _touch(self, keys: Sequence[bytes]) -> None:
        """The pieces of one prompt were used; the first of them is what most prompts share, and leaves last."""
        for key in reversed(keys):
            if key in self._pieces:
                self._pieces.move_to_end(key)
