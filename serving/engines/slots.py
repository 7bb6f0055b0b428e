"""Keys and values of the answers that are decoded together: one place each in tensors that are written in place.

An answer's prompt is read with a cache of its own, as transformers makes it; `put` copies that into a place. Places are
filled from the first on without holes (`drop` moves the last one into the hole), so that a step reads a view and
copies nothing. What a place holds beyond its own length is masked.

Axes: S places, B batch, H heads, L length, D head size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache

GROW = 256  # tokens by which the places grow
SMALL = 1024  # tokens a place; places that grew beyond it are freed once nobody is in them


class Slots:
    """The places. `lengths[i]` is how many tokens place i holds."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self._layers: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._room = 0

    def put(self, cache: DynamicCache, length: int, room: int) -> None:
        """Copy what `cache` holds of `length` tokens into the next place, and make room for as many in all."""
        place = len(self.lengths)
        self._make_room(cache, place + 1, room)
        for (keys, values), layer in zip(self._layers, cache.layers, strict=True):
            kept = layer.keys.shape[-2]  # a sliding window keeps the last ones only
            keys[place, :, length - kept : length] = layer.keys[0]
            values[place, :, length - kept : length] = layer.values[0]
        self.lengths.append(length)

    def drop(self, place: int) -> None:
        """Free a place; the last one moves into it."""
        last = len(self.lengths) - 1
        length = self.lengths.pop()
        if place != last:
            self.lengths[place] = length
            for pair in self._layers:
                for tensor in pair:
                    tensor[place, :, :length] = tensor[last, :, :length]
        if not self.lengths and self._room > SMALL:
            self._layers, self._room = [], 0

    def step(self, places: Sequence[int]) -> "StepCache":
        """The cache of one decode step of these places; each grows by one token. Call `grown` when it went well.

        On a CPU a lone answer is computed twice over: oneDNN gives a row the same bits beside any number of others, and
        other ones by itself (measured in bf16: 23 of 960 products, by one rounding), for a step that costs the same.
        """
        if len(places) == 1 and self._layers[0][0].device.type == "cpu":
            places = [*places, *places]
        return StepCache(self._layers, places, [self.lengths[place] for place in places])

    def grown(self, places: Sequence[int]) -> None:
        """The step is done: each place holds one token more."""
        for place in places:
            self.lengths[place] += 1

    def _make_room(self, cache: DynamicCache, places: int, room: int) -> None:
        held = self._layers[0][0].shape[0] if self._layers else 0
        if places <= held and room <= self._room:
            return
        places = max(held, 1 << (places - 1).bit_length())
        room = max(self._room, -(-room // GROW) * GROW)
        layers = []
        for number, layer in enumerate(cache.layers):
            pair = []
            for side, like in enumerate((layer.keys, layer.values)):
                fresh = like.new_zeros(places, like.shape[1], room, like.shape[3])
                if self._layers:
                    old = self._layers[number][side]
                    fresh[: old.shape[0], :, : old.shape[2]] = old
                pair.append(fresh)
            layers.append((pair[0], pair[1]))
        self._layers, self._room = layers, room


class StepCache(Cache):
    """What the model sees as its cache in one step of one token a row."""

    def __init__(self, layers: Sequence[tuple[torch.Tensor, torch.Tensor]], places: Sequence[int], lengths: Sequence[int]) -> None:
        super().__init__(layers=[])
        device = layers[0][0].device
        self._tensors = layers
        self.num_rows = len(places)
        self._all = list(places) == list(range(len(places)))
        self._places_B = torch.tensor(places, device=device)
        self.position_B = torch.tensor(lengths, device=device)
        self.length = max(lengths) + 1

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new token of each row; all that the rows hold."""
        keys, values = self._tensors[layer_idx]
        keys[self._places_B, :, self.position_B] = key_states[:, :, 0]
        values[self._places_B, :, self.position_B] = value_states[:, :, 0]
        return self._of(keys), self._of(values)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens of the longest row, before the step."""
        return self.length - 1

    def mask(self, window: int | None = None) -> torch.Tensor:
        """Which keys each row may see: bool (B, 1, 1, L)."""
        places_L = torch.arange(self.length, device=self.position_B.device)
        seen_BL = places_L <= self.position_B[:, None]
        if window:
            seen_BL &= places_L > self.position_B[:, None] - window
        return seen_BL[:, None, None]

    def _of(self, tensor: torch.Tensor) -> torch.Tensor:
        rows = tensor[: self.num_rows] if self._all else tensor.index_select(0, self._places_B)
        return rows[:, :, : self.length]
