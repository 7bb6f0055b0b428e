"""The engine on torch: one base in memory, LoRA adapters beside it, answers batched on one thread (`batch`).

Importing torch takes seconds: it happens in `open`, while the process already listens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.answering import NO_RULES, AnswerRules
from core.errors import LoradError
from rendering.specs import Message
from rendering.tokens import Renderer
from serving.engines.port import AdapterError, Ask, BaseIdentity, Blend, Generation, PromptError, Sampling, Sink
from store.bases import TOKENIZER, read_base
from store.seals import check_seal

if TYPE_CHECKING:
    from rendering.answerrules import TokenTexts
    from serving.engines.answering import Voice
    from serving.engines.batch import Batch
    from serving.engines.grammar import Grammars
    from serving.engines.merging import Merging
    from serving.engines.prefixes import Prefixes
    from serving.engines.rules import LogitsRules
    from serving.engines.torch_model import TorchModel

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchSettings:
    """What of `serving` this engine reads."""

    threads: int = 0
    max_new_tokens: int = 256
    streams: int = 8
    prefix_mb: int = 256
    quantization: str = "none"
    device_map: str = ""


class TransformersEngine:
    """Base by transformers, adapters by PEFT. See `port.Engine`."""

    name = "transformers"
    backend = "peft"

    def __init__(self, folder: Path, settings: TorchSettings = TorchSettings(), *, key_file: str = "") -> None:
        sealed = read_base(folder)
        self.base = BaseIdentity(
            name=sealed.name,
            base_sha256=sealed.source_sha256,
            tokenizer_sha256=sealed.tokenizer_sha256,
            template_sha256=sealed.template_sha256,
        )
        self.streams = settings.streams
        self._folder = folder
        self._settings = settings
        self._key_file = key_file
        self._batch: Batch | None = None
        self._model: TorchModel
        self._prefixes: Prefixes
        self._merging: Merging
        self._renderer: Renderer
        self._grammars: Grammars
        self._voice: Voice
        self._texts: TokenTexts | None = None

    def open(self) -> None:
        """Verify and load the base. Raises IntegrityError, LoradError BASE_UNUSABLE, NO_CUDA."""
        from serving.engines.answering import Voice
        from serving.engines.batch import Batch
        from serving.engines.grammar import Grammars

        check_seal(self._folder)
        self._renderer = Renderer.load(self._folder)
        self._batch = Batch(self.streams)
        self._batch.call(self._load_base)
        eos_ids = self._model.eos_ids | {self._renderer.eos_id}
        tokenizer_json = (self._folder / TOKENIZER).read_text(encoding="utf-8")
        self._grammars = Grammars(tokenizer_json, self._model.vocabulary, eos_ids, self._renderer.eos_id)
        self._voice = Voice(decode=self._renderer.decode, bytes_of=self._grammars.bytes_of, eos_ids=frozenset(eos_ids))

    def close(self) -> None:
        """Free the thread."""
        if self._batch is not None:
            self._batch.close()

    def load(self, release: str, folder: Path) -> None:
        """Read beside the running answers; only putting the layers in takes a turn."""
        from serving.engines.adapter_files import read_adapter

        assert self._batch is not None, "opened first"
        if release not in self._model.adapters.names:
            config, tensors = read_adapter(folder, self._key_file)
            self._batch.call(lambda: self._model.adapters.add(release, config, tensors))

    def unload(self, release: str) -> None:
        """Take a release out, and what was computed with it."""
        assert self._batch is not None, "opened first"
        self._batch.call(lambda: self._forget(release))

    def logprobs(self, blend: Blend, prompt_ids: Sequence[int], ids: Sequence[int]) -> list[float] | None:
        """Teacher-forced, whole sequence, no cache."""
        assert self._batch is not None, "opened first"
        vocabulary = self._model.vocabulary
        if not all(0 <= token < vocabulary for token in (*prompt_ids, *ids)):
            raise AdapterError(f"the probe has tokens outside of the {vocabulary} of this base", hint="pack it again", code="PROBE_DAMAGED")
        try:
            return self._batch.call(lambda: self._model.teach(blend, prompt_ids, ids))
        except RuntimeError as error:
            raise AdapterError(f"the probe could not be computed: {error}", hint="compare torch and peft on both boxes", code="PROBE_FAILED") from None

    def begin(self, ask: Ask, sink: Sink) -> Generation:
        """An answer pinned to its blend, by its own rules."""
        from serving.engines.answering import Answering, Wish

        assert self._batch is not None, "opened first"
        prompt_ids = self._prompt(ask)
        wish = Wish(
            blend=ask.blend,
            prompt_ids=prompt_ids,
            sampling=ask.sampling,
            max_tokens=self._limit(prompt_ids, ask.sampling),
            rules=self._own_rules(ask.rules, ask.messages) if ask.rules != NO_RULES else None,
            grammar=None if ask.schema is None else self._grammars.follow(ask.schema),
        )
        answer = Answering(wish, self._voice, sink)
        self._batch.add(answer)
        return answer

    def _prompt(self, ask: Ask) -> list[int]:
        """The prompt's tokens. Raises PromptError."""
        try:
            if ask.text is None:
                return self._renderer.prompt(ask.messages, ask.tools)
        except LoradError as error:
            raise PromptError(error.what, hint=error.hint, code=error.code) from None
        ids: list[int] = self._renderer.tokenizer.encode(ask.text, add_special_tokens=False).ids
        if not ids:
            raise PromptError("the prompt is empty", hint="send some text", code="PROMPT_EMPTY")
        return ids

    def _limit(self, prompt_ids: Sequence[int], sampling: Sampling) -> int:
        """How many tokens may be made. Raises PromptError CONTEXT_LENGTH."""
        context, wanted = self._model.context_tokens, sampling.max_tokens
        room = context - len(prompt_ids)
        if room < (wanted or 1):
            raise PromptError(
                f"the prompt has {len(prompt_ids)} tokens and {wanted or 1} are to be made; the model's context has {context}",
                hint="send less, or ask for fewer tokens",
                code="CONTEXT_LENGTH",
            )
        return wanted or min(self._settings.max_new_tokens, room)

    def _own_rules(self, rules: AnswerRules, messages: Sequence[Message]) -> "LogitsRules":
        """The rules of one answer. The first time ever, reads the text of every token."""
        from rendering.answerrules import TokenTexts
        from serving.engines.rules import LogitsRules

        if rules.penalties and self._texts is None:
            self._texts = TokenTexts.of(self._renderer.tokenizer)
        question = next((message.content for message in reversed(messages) if message.role == "user"), "")
        return LogitsRules(rules, question, self._renderer.eos_id, self._texts)

    def _forget(self, release: str) -> None:
        self._merging.forget(release)
        self._prefixes.forget(release)
        self._model.adapters.remove(release)

    def _load_base(self) -> None:
        from serving.engines.batch import Floor
        from serving.engines.merging import Merging
        from serving.engines.prefixes import Prefixes
        from serving.engines.torch_model import Placing, TorchModel

        wish = self._settings
        self._model = TorchModel(self._folder, Placing(threads=wish.threads, quantization=wish.quantization, device_map=wish.device_map))
        together = self._model.can_batch()
        # Without places there is no cache that could be cut into pieces either.
        self._prefixes = Prefixes(self.base.base_sha256, wish.prefix_mb * MIB if together and self._model.can_cut else 0)
        self._merging = Merging(self._model)
        assert self._batch is not None, "its thread runs this"
        self._batch.open(Floor(model=self._model, prefixes=self._prefixes, merging=self._merging, together=together))
