"""How likely a turn corrects the answer before it, by its meaning: a logistic regression on sentence embeddings.

It learns from `turns.jsonl` beside this module when it is asked first: 230 short sentences take a second or two, and whoever
wants to know why it thinks so can read them. The sentence model knows English; what it makes of other languages is chance, so
only rules speak those.
"""

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from serving.meanings import Meanings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]
    Vector = NDArray[np.float64]

TURNS = Path(__file__).with_name("turns.jsonl")
RIDGE = 0.1  # pulls the weights to zero: with less, what it is sure of is more often wrong on turns that it has not learnt from
STEPS = 10  # of Newton's method; it stands still after eight


class Sense:
    """For one thread; blocks. Args: folder: of the sealed sentence model, loaded when it is asked first."""

    def __init__(self, folder: Path, embed: "Callable[[Sequence[str]], Vectors] | None" = None) -> None:
        self._folder = folder
        self._given = embed

    def __call__(self, said: str) -> float:
        """0 to 1. Raises MeaningsError."""
        import numpy as np

        vector = np.append(self._embed([said])[0], 1.0)
        return float(1 / (1 + np.exp(-vector @ self._weights)))

    @cached_property
    def _embed(self) -> "Callable[[Sequence[str]], Vectors]":
        return self._given or Meanings(self._folder)

    @cached_property
    def _weights(self) -> "Vector":
        turns = [json.loads(line) for line in TURNS.read_text(encoding="utf-8").splitlines()]
        return fitted(self._embed([turn["text"] for turn in turns]), [turn["corrects"] for turn in turns])


def fitted(vectors: "Vectors", labels: Sequence[bool]) -> "Vector":
    """Weights of a logistic regression with a ridge, the constant last and free of it; both labels weigh the same. By Newton's method."""
    import numpy as np
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    seen_ND = np.column_stack([np.asarray(vectors, dtype=np.float64), np.ones(len(labels))])
    wanted_N = np.asarray(labels, dtype=np.float64)
    share = wanted_N.mean()
    importance_N = np.where(wanted_N == 1, 0.5 / share, 0.5 / (1 - share))
    ridge_D = np.full(seen_ND.shape[1], RIDGE)
    ridge_D[-1] = 1e-6
    weights_D = np.zeros(seen_ND.shape[1])
    with threadpool_limits(1, user_api="blas"):  # see `serving.meanings`
        for _ in range(STEPS):
            guess_N = 1 / (1 + np.exp(-seen_ND @ weights_D))
            slope_D = seen_ND.T @ (importance_N * (guess_N - wanted_N)) + ridge_D * weights_D
            curve_DD = (seen_ND.T * (importance_N * guess_N * (1 - guess_N))) @ seen_ND + np.diag(ridge_D)
            weights_D = weights_D - np.linalg.solve(curve_DD, slope_D)
    return weights_D
