"""The fast path for a box whose traffic is one blend: its adapters folded into weights that stand beside the base's.

The base's own weights stay as they are, so leaving the fast path is choosing the other tensor. Folding rounds the sum
to the base's precision, at another place than the plain forward does; how much that changes is measured on an answer
that was just given, and a blend that it moves by more than the probe's floor is served unfolded.

An answer keeps the path that it began on while it is alone or among its like.

Axes: I inputs, O outputs.
"""

import logging
from collections.abc import Sequence

import psutil
import torch

from serving.engines.adapter_layers import ServedLinear
from serving.engines.answering import Answering
from serving.engines.port import Blend
from serving.engines.torch_model import TorchModel

log = logging.getLogger(__name__)

AFTER_TOKENS = 512  # of one blend with no other between: folding costs what some ten tokens cost
AT_A_TIME = 8  # layers folded between two steps, so that nobody waits long for a token
FLOOR = 0.02  # nats a token, as in the probe
SPARE = 2  # times the folded weights' size that must be free


class Merging:
    """Which blend is folded, if any. One thread."""

    def __init__(self, model: TorchModel) -> None:
        self._model = model
        self._blend: Blend = ()
        self._tokens = 0
        self._folded: list[torch.Tensor] = []
        self._is_ready = False
        self._refused: set[Blend] = set()
        self._sample: tuple[Sequence[int], Sequence[int]] = ((), ())

    def begin(self, blend: Blend) -> bool:
        """An answer of `blend` begins; whether it is given with folded weights."""
        if blend != self._blend:
            self._drop()
            self._blend = blend
        return self._is_ready

    def holds(self, blend: Blend) -> bool:
        """Whether the folded weights are those of `blend`."""
        return self._is_ready and blend == self._blend

    def heard(self, num_tokens: int) -> None:
        """Tokens that were made since the last call."""
        self._tokens += num_tokens

    def show(self, answer: Answering) -> None:
        """An answer that was given, to measure on."""
        if answer.wish.blend == self._blend and answer.made:
            self._sample = (answer.wish.prompt_ids, tuple(answer.made))

    def forget(self, release: str) -> None:
        """The release leaves the engine."""
        self._refused = {blend for blend in self._refused if all(part.release != release for part in blend)}
        if any(part.release == release for part in self._blend):
            self._drop()

    def work(self) -> None:
        """Fold some layers, where that is worth it; returns soon."""
        if self._is_ready or not self._blend or self._tokens < AFTER_TOKENS or self._blend in self._refused or not self._sample[1]:
            return
        linears = self._linears()
        if linears is None or (not self._folded and not _has_room(linears)):
            self._refused.add(self._blend)
            return
        for linear in linears[len(self._folded) : len(self._folded) + AT_A_TIME]:
            self._folded.append(_fold(linear, self._blend))
        if len(self._folded) == len(linears):
            self._finish(linears)

    def _finish(self, linears: Sequence[ServedLinear]) -> None:
        for linear, folded_OI in zip(linears, self._folded, strict=True):
            linear.merged_OI = folded_OI
        away = [
            abs(one - other)
            for one, other in zip(self._model.teach(self._blend, *self._sample), self._model.teach(self._blend, *self._sample, merged=True), strict=True)
        ]
        mean = sum(away) / len(away)
        self._is_ready = mean <= FLOOR
        name = "+".join(part.release[:12] for part in self._blend)
        log.info("%s folded into the base's weights: %.4f nats away, allowed %.4f", name, mean, FLOOR, extra={"action": "folded", "used": self._is_ready})
        if not self._is_ready:
            self._refused.add(self._blend)
            self._drop()

    def _drop(self) -> None:
        for linear in self._model.adapters.linears:
            linear.merged_OI = None
        self._blend, self._tokens, self._folded, self._is_ready, self._sample = (), 0, [], False, ((), ())

    def _linears(self) -> list[ServedLinear] | None:
        """The layers that the blend changes; None where one of them cannot be folded."""
        adapters = self._model.adapters
        releases = {part.release for part in self._blend}
        if self._model.quantized or adapters.changes_embeddings(releases):
            return None
        found = [linear for linear in adapters.linears if releases & linear.weights.keys()]
        return found if all(type(linear.base) is torch.nn.Linear for linear in found) else None


def _fold(linear: ServedLinear, blend: Blend) -> torch.Tensor:
    weight_OI = linear.base.weight.float()
    for part in blend:
        if found := linear.weights.get(part.release):
            weight_OI = weight_OI + (found.b_OR.float() @ found.a_RI.float()) * (found.scaling * part.scale)
    return weight_OI.to(linear.base.weight.dtype)


def _has_room(linears: Sequence[ServedLinear]) -> bool:
    needed = SPARE * sum(linear.base.weight.nbytes for linear in linears)
    device = linears[0].base.weight.device if linears else torch.device("cpu")
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return bool(linears) and needed < free
