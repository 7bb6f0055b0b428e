"""The engine on torch: one base in memory, LoRA adapters beside it, one thread for all tensors.

One thread because torch keeps a pool of workers for every thread that calls it, and because its queue is the fair lock
that lets requests, probes and loads take turns. Importing torch takes seconds: it happens in `open`, on that thread,
while the process already listens.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from core.answering import NO_RULES, AnswerRules
from core.errors import LoradError
from rendering.specs import Message
from rendering.tokens import Renderer
from serving.engines.port import AdapterError, Ask, BaseIdentity, Blend, Generation, PromptError, Sink
from serving.engines.turns import Turns
from store.bases import read_base
from store.seals import check_seal

if TYPE_CHECKING:
    from rendering.answerrules import TokenTexts
    from serving.engines.rules import LogitsRules
    from serving.engines.torch_model import TorchModel

T = TypeVar("T")


class TransformersEngine:
    """Base by transformers, adapters by PEFT. See `port.Engine`."""

    name = "transformers"
    backend = "peft"
    streams = 8

    def __init__(self, folder: Path, *, threads: int, max_new_tokens: int, key_file: str = "") -> None:
        sealed = read_base(folder)
        self.base = BaseIdentity(
            name=sealed.name,
            base_sha256=sealed.source_sha256,
            tokenizer_sha256=sealed.tokenizer_sha256,
            template_sha256=sealed.template_sha256,
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._folder = folder
        self._num_threads = threads
        self._max_new_tokens = max_new_tokens
        self._key_file = key_file
        self._model: TorchModel
        self._renderer: Renderer
        self._texts: TokenTexts | None = None

    def open(self) -> None:
        """Verify and load the base. Raises IntegrityError, LoradError BASE_UNUSABLE."""
        check_seal(self._folder)
        self._renderer = Renderer.load(self._folder)
        self._model = self._on_thread(self._load_base)

    def close(self) -> None:
        """Free the thread."""
        self._thread.shutdown(cancel_futures=True)

    def load(self, release: str, folder: Path) -> None:
        """Read beside the running requests; only putting the layers in takes a turn."""
        from serving.engines.adapter_files import read_adapter

        if release not in self._model.adapters.names:
            config, tensors = read_adapter(folder, self._key_file)
            self._on_thread(lambda: self._model.adapters.add(release, config, tensors))

    def unload(self, release: str) -> None:
        """Take a release out."""
        self._on_thread(lambda: self._model.adapters.remove(release))

    def logprobs(self, blend: Blend, prompt_ids: Sequence[int], ids: Sequence[int]) -> list[float] | None:
        """Teacher-forced, whole sequence, no cache."""
        vocabulary = self._model.vocabulary
        if not all(0 <= token < vocabulary for token in (*prompt_ids, *ids)):
            raise AdapterError(f"the probe has tokens outside of the {vocabulary} of this base", hint="pack it again", code="PROBE_DAMAGED")
        try:
            return self._on_thread(lambda: self._model.teach(_single(blend), prompt_ids, ids))
        except RuntimeError as error:
            raise AdapterError(f"the probe could not be computed: {error}", hint="compare torch and peft on both boxes", code="PROBE_FAILED") from None

    def begin(self, ask: Ask, sink: Sink) -> Generation:
        """A decode loop pinned to its blend, by its own rules."""
        from serving.engines.decoding import Decoding

        try:
            prompt_ids = self._renderer.prompt(ask.messages, ask.tools)
        except LoradError as error:
            raise PromptError(error.what, hint=error.hint, code=error.code) from None
        context, sampling = self._model.context_tokens, ask.sampling
        room = context - len(prompt_ids)
        if room < (sampling.max_tokens or 1):
            raise PromptError(
                f"the prompt has {len(prompt_ids)} tokens and {sampling.max_tokens or 1} are to be made; the model's context has {context}",
                hint="send less, or ask for fewer tokens",
                code="CONTEXT_LENGTH",
            )
        forward = self._model.forward(_single(ask.blend), self._renderer)
        own = self._own_rules(ask.rules, ask.messages) if ask.rules != NO_RULES else None
        decoding = Decoding(forward, prompt_ids, sampling, sampling.max_tokens or min(self._max_new_tokens, room), own)
        return Turns(self._thread, decoding, sink)

    def _own_rules(self, rules: AnswerRules, messages: Sequence[Message]) -> "LogitsRules":
        """The rules of one answer. The first time ever, reads the text of every token."""
        from rendering.answerrules import TokenTexts
        from serving.engines.rules import LogitsRules

        if rules.penalties and self._texts is None:
            self._texts = TokenTexts.of(self._renderer.tokenizer)
        question = next((message.content for message in reversed(messages) if message.role == "user"), "")
        return LogitsRules(rules, question, self._renderer.eos_id, self._texts)

    def _load_base(self) -> "TorchModel":
        from serving.engines.torch_model import TorchModel

        return TorchModel(self._folder, self._num_threads)

    def _on_thread(self, work: Callable[[], T]) -> T:
        return self._thread.submit(work).result()


def _single(blend: Blend) -> str | None:
    assert len(blend) < 2, "one adapter at a time"
    return blend[0].release if blend else None
