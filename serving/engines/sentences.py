"""The sentence model on torch: a BERT with mean pooling, beside whatever engine answers.

Axes: B texts, T tokens, D dimensions.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import BertModel

MOST_TOKENS = 256  # of a text, as the model was trained; what stands behind is not looked at
BATCH_TEXTS = 32


class SentenceModel:
    """Loads at once. Raises OSError, ValueError for a folder that is no such model."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MOST_TOKENS)
        self._model: Any = BertModel.from_pretrained(str(folder), local_files_only=True, add_pooling_layer=False, dtype=torch.float32).eval()
        if threads:
            torch.set_num_threads(threads)

    def vectors(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """A vector of unit length a text, and how many tokens were read."""
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]
        by_length = sorted(range(len(ids)), key=lambda place: len(ids[place]))  # so that a batch holds little padding
        found: list[list[float]] = [[]] * len(ids)
        for start in range(0, len(ids), BATCH_TEXTS):
            places = by_length[start : start + BATCH_TEXTS]
            for place, vector in zip(places, self._pooled([ids[place] for place in places]), strict=True):
                found[place] = vector
        return found, sum(map(len, ids))

    def _pooled(self, ids: list[list[int]]) -> list[list[float]]:
        longest = max(map(len, ids))
        ids_BT = torch.tensor([one + [0] * (longest - len(one)) for one in ids])
        mask_BT = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in ids])
        with torch.inference_mode():
            hidden_BTD = self._model(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state
            mean_BD = (hidden_BTD * mask_BT[:, :, None]).sum(1) / mask_BT.sum(1, keepdim=True)
            unit: list[list[float]] = torch.nn.functional.normalize(mean_BD, dim=1).tolist()
        return unit
