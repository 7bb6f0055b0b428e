"""The engine without a model: echoes, marked, so that everything around a model can be tried without weights."""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from core.errors import LoradError
from rendering.specs import Message
from serving.engines.port import AdapterError, Ask, BaseIdentity, Blend, FinishReason, PromptError, Sink
from serving.engines.turns import Turns
from store.bases import STUB_BASE
from store.encryption import read_weights

CONTEXT_TOKENS = 1 << 20


class Echo:
    """The last user turn behind a mark that names the release; one word is one token."""

    def __init__(self, mark: str, messages: Sequence[Message], max_tokens: int) -> None:
        said = next((message.content for message in reversed(messages) if message.role == "user"), "")
        self._words = [mark, *said.split()]
        self._max_tokens = max_tokens
        self.prompt_tokens = sum(len(message.content.split()) for message in messages)
        self.completion_tokens = 0
        self.finish_reason: FinishReason | None = None

    def step(self) -> str:
        """The next word with the blank before it."""
        word = self._words[self.completion_tokens]
        self.completion_tokens += 1
        if self.completion_tokens == len(self._words):
            self.finish_reason = "stop"
        elif self.completion_tokens == self._max_tokens:
            self.finish_reason = "length"
        return word if self.completion_tokens == 1 else f" {word}"


class StubEngine:
    """Serves releases of the stub backend; every answer begins with `[stub …]`."""

    name = "stub"
    backend = "stub"
    streams = 64

    def __init__(self, model_name: str, *, max_new_tokens: int, key_file: str = "") -> None:
        self.base = BaseIdentity(name=model_name, base_sha256=STUB_BASE, tokenizer_sha256=STUB_BASE, template_sha256=STUB_BASE)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._max_new_tokens = max_new_tokens
        self._key_file = key_file
        self._loaded: dict[str, str] = {}

    def open(self) -> None:
        """Nothing to load."""

    def close(self) -> None:
        """Free the thread."""
        self._thread.shutdown(cancel_futures=True)

    def load(self, release: str, folder: Path) -> None:
        """Remember the hash of the adapter file as the release's bytes."""
        if release not in self._loaded:
            try:
                json.loads((folder / "adapter_config.json").read_bytes())
                self._loaded[release] = hashlib.sha256(read_weights(folder, self._key_file)).hexdigest()
            except LoradError as error:
                raise AdapterError(error.what, hint=error.hint, code=error.code) from None
            except (OSError, ValueError) as error:
                raise AdapterError(f"{folder} holds no adapter: {error}", hint="pack it again", code="ADAPTER_LOAD") from None

    def unload(self, release: str) -> None:
        """Forget it."""
        self._loaded.pop(release, None)

    def logprobs(self, blend: Blend, prompt_ids: Sequence[int], ids: Sequence[int]) -> list[float] | None:
        """None: there is no model to ask."""
        return None

    def begin(self, ask: Ask, sink: Sink) -> Turns:
        """An echo; there are no logits that rules could change. Raises PromptError where the request's own limit does not fit."""
        assert all(part.release in self._loaded for part in ask.blend), "a pinned release is loaded"
        mark = "+".join(part.release[:12] + (f"*{part.scale:g}" if part.scale != 1 else "") for part in ask.blend) or "base"
        messages = ask.messages or (Message("user", ask.text or ""),)
        echo = Echo(f"[stub {mark}]", messages, ask.sampling.max_tokens or self._max_new_tokens)
        if echo.prompt_tokens + (ask.sampling.max_tokens or 1) > CONTEXT_TOKENS:
            raise PromptError(f"{echo.prompt_tokens} words do not fit into {CONTEXT_TOKENS}", hint="send less", code="CONTEXT_LENGTH")
        return Turns(self._thread, echo, sink)
