"""Sentence embeddings, asked of a trainer child: texts go out as a file, numbers come back as one. Torch stays outside.

The child has a session of its own and dies with whoever asked. It inherits a sandbox (the gate's); only the soft limits of
memory and CPU are lifted to the hard ones, for torch maps more than it uses.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from core.errors import LoradError
from core.names import SENTENCE_MODEL
from core.tasks import EmbedTask, ExitNote

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

TEXTS, EMBEDDINGS = "texts.jsonl", "embeddings.npy"
MOST_CHARACTERS = 2_000  # of a text: far more than the tokens that the model looks at
MOST_THREADS = 4
TIME_LIMIT_S = 600.0
PULL = f"lorad models pull {SENTENCE_MODEL}"
_LIFTED = (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE)
_PR_SET_PDEATHSIG = 1


class Embedder:
    """Texts to vectors of unit length: float32 (texts, dimensions). A text is worked out once, however often it is asked for.

    Args: folder: of the sealed sentence model. time_limit_s: for one call.
    """

    def __init__(self, folder: Path, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._folder, self._time_limit_s = folder, time_limit_s
        self._known: dict[bytes, Vectors] = {}

    def __call__(self, texts: Sequence[str]) -> "Vectors":
        """Raises LoradError EMBEDDER_FAILED, EMBEDDER_SLOW."""
        import numpy as np

        keys = [xxhash.xxh3_128_digest(text.encode()) for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        if missing:
            for key, vector in zip(missing, self._ask(list(missing.values())), strict=True):
                self._known[key] = vector
        return np.stack([self._known[key] for key in keys]) if keys else np.zeros((0, 0), dtype=np.float32)

    def _ask(self, texts: list[str]) -> "Vectors":
        from store.codec import write  # pydantic: a quick check must not wait for it
        from store.runs import SPEC

        with tempfile.TemporaryDirectory(prefix="lorad-embed-") as name:
            run = Path(name)
            (run / TEXTS).write_text("".join(json.dumps(text[:MOST_CHARACTERS]) + "\n" for text in texts))
            threads = min(MOST_THREADS, os.cpu_count() or 1)
            write(run / SPEC, EmbedTask(model=str(self._folder.absolute()), threads=threads), durable=False)
            status = self._run(run)
            return _vectors(run, len(texts), status)

    def _run(self, run: Path) -> int:
        """Exit status of the child; its whole session is ended in any case."""
        from store.runs import LOG

        environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        command = [sys.executable, "-m", "trainer", str(run)]
        prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None
        prepare = partial(_prepare, os.getpid(), prctl)
        with open(run / LOG, "wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=prepare, env=environment)
            try:
                return process.wait(self._time_limit_s)
            except subprocess.TimeoutExpired:
                raise LoradError(
                    f"the sentence model took longer than {self._time_limit_s:.0f} s", hint="the machine is busy: check again later", code="EMBEDDER_SLOW"
                ) from None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _prepare(parent: int, prctl: Callable[..., int] | None) -> None:
    """Runs in the child between fork and exec."""
    os.setsid()
    for kind in _LIFTED:
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (hard, hard))
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above: no signal will come
            os._exit(1)


def _vectors(run: Path, wanted: int, status: int) -> "Vectors":
    import numpy as np

    from store.codec import read_if_whole
    from store.runs import EXIT

    note = read_if_whole(ExitNote, run / EXIT)
    reason = note.reason if note is not None else f"exit status {status}"
    hint = (note.hint if note is not None else "") or f"install lorad with its extra (pip install 'lorad[cpu]'), and `{PULL}`"
    if status == 0:
        try:
            with open(run / EMBEDDINGS, "rb") as file:
                vectors: Vectors = np.load(file, allow_pickle=False)
        except (OSError, ValueError) as error:
            reason = str(error)
        else:
            if vectors.ndim == 2 and len(vectors) == wanted and vectors.dtype == np.float32 and bool(np.isfinite(vectors).all()):
                return vectors
            reason = f"it gave {vectors.shape} {vectors.dtype} for {wanted} texts"
    raise LoradError(f"the sentence model failed: {reason}", hint=hint, code="EMBEDDER_FAILED")
