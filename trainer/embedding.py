"""Sentence embeddings for the gate, which must not import torch: a text in, 384 numbers of unit length out.

The sentence model is a BERT with mean pooling; plain transformers carry it. Texts go through it sorted by length, so
that a batch holds little padding, and come back in their own order.
"""

import io
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import ChildError
from core.exits import ChildExit
from core.tasks import EmbedTask
from store.durable import replace_file
from store.engines import cpu_has_bf16, let_threads_sleep
from store.seals import is_sealed
from trainer.run import RunFolder
from trainer.silence import hush
from trainer.space import full_disk

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TEXTS = "texts.jsonl"
EMBEDDINGS = "embeddings.npy"
BATCH_TOKENS = 2048  # texts times the longest of them; more is slower on 1 core and gains nothing on 2

OnProgress = Callable[[int], None]


def embed(task: EmbedTask, run: RunFolder) -> None:
    """Write `embeddings.npy`: float32 (texts, dimensions), rows of unit length. Raises ChildError BAD_SPEC."""
    texts = _read_texts(run.root / TEXTS)
    model = SentenceModel(Path(task.model), task.max_tokens, task.threads)
    vectors = model.vectors(texts, lambda done: run.report("embed", step=done, total_steps=len(texts)))
    run.report("embed", last=True, step=len(texts), total_steps=len(texts))
    with full_disk(run.root):
        replace_file(run.root / EMBEDDINGS, _as_npy(vectors))


def _read_texts(path: Path) -> list[str]:
    try:
        texts = [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
    except (OSError, ValueError) as error:
        raise _unfit(f"{path} does not hold texts: {error}", "one JSON string a line") from None
    if not all(isinstance(text, str) for text in texts):
        raise _unfit(f"{path} does not hold texts alone", "one JSON string a line")
    return texts


def _unfit(what: str, hint: str) -> ChildError:
    return ChildError(what, hint=hint, code="EMBED_SPEC", exit_code=ChildExit.BAD_SPEC)


def _as_npy(vectors: "NDArray[np.float32]") -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, vectors, allow_pickle=False)
    return buffer.getvalue()


class SentenceModel:
    """The sentence model in `folder`. Raises ChildError BAD_SPEC where there is none.

    Args: max_tokens: what stands behind them in a text is not looked at. threads: of the CPU.
    """

    def __init__(self, folder: Path, max_tokens: int, threads: int) -> None:
        if not is_sealed(folder):
            raise _unfit(f"no sentence model in {str(folder)!r}", "run `lorad models pull all-minilm-l6-v2`")
        hush()
        let_threads_sleep()
        import torch
        from tokenizers import Tokenizer
        from transformers import BertModel

        with suppress(RuntimeError):  # it may be set only before the first parallel work
            torch.set_num_interop_threads(1)
        torch.set_num_threads(max(1, threads))
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        # Where the CPU multiplies bf16 itself it is 2.5 times as fast, and no cosine moves by more than 0.0001.
        dtype = torch.bfloat16 if cpu_has_bf16() else torch.float32
        self._model: Any = BertModel.from_pretrained(str(folder), local_files_only=True, add_pooling_layer=False, dtype=dtype).eval()

    def vectors(self, texts: Sequence[str], on_progress: OnProgress = lambda done: None) -> "NDArray[np.float32]":
        """One row a text, of unit length; zeros where the tokenizer makes nothing of a text."""
        import numpy as np

        ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]
        found = np.zeros((len(ids), int(self._model.config.hidden_size)), dtype=np.float32)
        done = 0
        for batch in batches([len(one) for one in ids], BATCH_TOKENS):
            told = [place for place in batch if ids[place]]
            if told:
                found[told] = self._pooled([ids[place] for place in told])
            done += len(batch)
            on_progress(done)
        return found

    def _pooled(self, ids: list[list[int]]) -> "NDArray[np.float32]":
        """Mean over the tokens of each text, then unit length."""
        import torch

        longest = max(map(len, ids))
        ids_BT = torch.tensor([one + [0] * (longest - len(one)) for one in ids])
        mask_BT = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in ids])
        with torch.inference_mode():
            hidden_BTD = self._model(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state
            mean_BD = (hidden_BTD * mask_BT[:, :, None]).sum(1) / mask_BT.sum(1, keepdim=True)
            unit: NDArray[np.float32] = torch.nn.functional.normalize(mean_BD.float(), dim=1).numpy()
        return unit


def batches(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Places of texts, longest first, in batches of at most `most` tokens with padding; a text alone may have more."""
    found: list[list[int]] = []
    width = 0
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        if not found or width * (len(found[-1]) + 1) > most:
            found.append([])
            width = lengths[place]
        found[-1].append(place)
    return found
