"""The sentence model in numpy, for a few short texts: the server's own use of it must not bring torch into a process that answers by llama.cpp.

A BERT with mean pooling, as `serving.engines.sentences` computes it for /v1/embeddings; a test holds the two together.
Importing torch takes seconds and holds everything else up meanwhile; this is ready within a tenth of a second.

Axes: B texts, T tokens, D dimensions, H heads.
"""

import json
import math
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import LoradError
from core.names import SENTENCE_MODEL
from store.seals import is_sealed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

MOST_TOKENS = 64  # of a text: what is asked of it is shorter
BATCH_TEXTS = 32


class MeaningsError(LoradError):
    """The folder holds no sentence model that can be read."""


class Meanings:
    """Loads at once; safe in threads. Raises MeaningsError."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        try:
            config = json.loads((folder / "config.json").read_bytes())
            self._num_heads, self._num_layers = int(config["num_attention_heads"]), int(config["num_hidden_layers"])
            self._least = float(config["layer_norm_eps"])
            self._weights = _weights_in(folder / "model.safetensors")
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the tokenizer library raises its own kind, and the files are anybody's
            what = f"the sentence model in {str(folder)!r} cannot be read: {type(error).__name__}"
            raise MeaningsError(what, hint=f"pull it again: lorad models pull {SENTENCE_MODEL}", code="EMBEDDER_FAILED") from None
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MOST_TOKENS)

    def __call__(self, texts: Sequence[str]) -> "Array":
        """A vector of unit length a text: float32 (texts, dimensions)."""
        import numpy as np
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        found: dict[int, Array] = {}
        by_length = sorted(range(len(ids)), key=lambda place: len(ids[place]))
        with threadpool_limits(1, user_api="blas"):  # threads of its own would take the cores from the answers: six times the CPU, measured
            for start in range(0, len(ids), BATCH_TEXTS):
                places = by_length[start : start + BATCH_TEXTS]
                found |= dict(zip(places, self._pooled([ids[place] for place in places]), strict=True))
        return np.stack([found[place] for place in range(len(ids))])

    def _pooled(self, ids: list[list[int]]) -> "Array":
        import numpy as np

        longest = max(map(len, ids))
        ids_BT = np.array([one + [0] * (longest - len(one)) for one in ids])
        mask_BT = np.array([[1.0] * len(one) + [0.0] * (longest - len(one)) for one in ids], dtype=np.float32)
        words, places, kinds = (self._weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type"))
        hidden_BTD = self._normed("embeddings.LayerNorm", words[ids_BT] + places[:longest] + kinds[0])
        for number in range(self._num_layers):
            hidden_BTD = self._layer(f"encoder.layer.{number}", hidden_BTD, mask_BT)
        mean_BD = (hidden_BTD * mask_BT[:, :, None]).sum(1) / mask_BT.sum(1, keepdims=True)
        unit: Array = mean_BD / np.linalg.norm(mean_BD, axis=1, keepdims=True)
        return unit

    def _layer(self, name: str, hidden_BTD: "Array", mask_BT: "Array") -> "Array":
        import numpy as np
        from scipy.special import erf  # type: ignore[import-untyped]

        num_texts, num_tokens, width = hidden_BTD.shape

        def heads(part: str) -> "Array":
            """(B, H, T, D / H)."""
            made: Array = self._linear(f"{name}.attention.self.{part}", hidden_BTD).reshape(num_texts, num_tokens, self._num_heads, -1).transpose(0, 2, 1, 3)
            return made

        scores_BHTT = heads("query") @ heads("key").transpose(0, 1, 3, 2) / math.sqrt(width / self._num_heads) + (mask_BT[:, None, None, :] - 1) * 1e9
        shares_BHTT = np.exp(scores_BHTT - scores_BHTT.max(-1, keepdims=True))
        shares_BHTT /= shares_BHTT.sum(-1, keepdims=True)
        seen_BTD = (shares_BHTT @ heads("value")).transpose(0, 2, 1, 3).reshape(hidden_BTD.shape)
        hidden_BTD = self._normed(f"{name}.attention.output.LayerNorm", hidden_BTD + self._linear(f"{name}.attention.output.dense", seen_BTD))
        inner = self._linear(f"{name}.intermediate.dense", hidden_BTD)
        inner *= 0.5 * (1 + erf(inner / math.sqrt(2)))
        return self._normed(f"{name}.output.LayerNorm", hidden_BTD + self._linear(f"{name}.output.dense", inner))

    def _linear(self, name: str, given: "Array") -> "Array":
        flat = given.reshape(-1, given.shape[-1]) @ self._weights[f"{name}.weight"].T  # one product, not one for each text
        made: Array = (flat + self._weights[f"{name}.bias"]).reshape(*given.shape[:-1], -1)
        return made

    def _normed(self, name: str, given: "Array") -> "Array":
        import numpy as np

        apart = given - given.mean(-1, keepdims=True)
        made: Array = apart / np.sqrt((apart**2).mean(-1, keepdims=True) + self._least) * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return made


def sentence_model_in(models: Path) -> Path | None:
    """The folder of the sentence model below `models`; None where it was never pulled."""
    folder = models / SENTENCE_MODEL
    return folder if is_sealed(folder) else None


def _weights_in(path: Path) -> Mapping[str, Any]:
    """Name -> array of a safetensors file of float32, read where it is used: the file stays mapped."""
    import numpy as np

    with open(path, "rb") as file:
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    size = int.from_bytes(view[:8], "little")
    header = json.loads(bytes(view[8 : 8 + size]))
    found = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = entry["data_offsets"]
            found[name.removeprefix("bert.")] = np.frombuffer(view[8 + size + begin : 8 + size + end], dtype=np.float32).reshape(entry["shape"])
    return found
