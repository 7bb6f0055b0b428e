"""The engine on torch: one base in memory, LoRA adapters beside it, one thread for all tensors.

One thread because torch keeps a pool of workers for every thread that calls it, and because its queue is the fair lock
that lets requests, probes and loads take turns.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers

from core.errors import LoradError
from rendering.specs import Message
from rendering.tokens import Renderer
from serving.engines.adapter_files import read_adapter
from serving.engines.adapter_layers import AdapterLayers
from serving.engines.decoding import Decoding, Forward
from serving.engines.port import AdapterError, BaseIdentity, PromptError, Sampling
from store.bases import read_base, weights_folder
from store.seals import check_seal

T = TypeVar("T")

BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})  # the rule that the trainer follows too


def cpu_dtype(cpuinfo: str = "/proc/cpuinfo") -> torch.dtype:
    """bf16 where the CPU computes in it, else fp32: emulated bf16 is slower than fp32."""
    try:
        flags = Path(cpuinfo).read_text().split()
    except OSError:
        return torch.float32
    return torch.bfloat16 if BF16_FLAGS.intersection(flags) else torch.float32


class TransformersEngine:
    """Base by transformers, adapters by PEFT. See `port.Engine`."""

    name = "transformers"
    backend = "peft"

    def __init__(self, folder: Path, *, threads: int, max_new_tokens: int) -> None:
        sealed = read_base(folder)
        self.base = BaseIdentity(
            name=sealed.name,
            base_sha256=sealed.source_sha256,
            tokenizer_sha256=sealed.tokenizer_sha256,
            template_sha256=sealed.template_sha256,
        )
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._folder = folder
        self._num_threads = threads
        self._max_new_tokens = max_new_tokens
        self._model: Any = None
        self._adapters: AdapterLayers
        self._renderer: Renderer
        self._context_tokens = 0
        self._eos_ids: frozenset[int] = frozenset()

    def open(self) -> None:
        """Verify and load the base. Raises IntegrityError, LoradError BASE_UNUSABLE."""
        check_seal(self._folder)
        self._renderer = Renderer.load(self._folder)
        self._on_thread(self._load_base)

    def close(self) -> None:
        """Free the thread."""
        self.thread.shutdown(cancel_futures=True)

    def load(self, release: str, folder: Path) -> None:
        """Read beside the running requests; only putting the layers in takes a turn."""
        if release not in self._adapters.names:
            config, tensors = read_adapter(folder)
            self._on_thread(lambda: self._adapters.add(release, config, tensors))

    def unload(self, release: str) -> None:
        """Take a release out."""
        self._on_thread(lambda: self._adapters.remove(release))

    def logprobs(self, release: str | None, prompt_ids: Sequence[int], ids: Sequence[int]) -> list[float] | None:
        """Teacher-forced, whole sequence, no cache."""
        vocabulary = self._model.config.vocab_size
        if not all(0 <= token < vocabulary for token in (*prompt_ids, *ids)):
            raise AdapterError(f"the probe has tokens outside of the {vocabulary} of this base", hint="pack it again", code="PROBE_DAMAGED")
        try:
            return self._on_thread(lambda: self._teach(release, prompt_ids, ids))
        except RuntimeError as error:
            raise AdapterError(f"the probe could not be computed: {error}", hint="compare torch and peft on both boxes", code="PROBE_FAILED") from None

    def begin(self, release: str | None, messages: Sequence[Message], sampling: Sampling) -> Decoding:
        """A decode loop pinned to `release`."""
        try:
            prompt_ids = self._renderer.prompt(messages)
        except LoradError as error:
            raise PromptError(error.what, hint=error.hint, code=error.code) from None
        room = self._context_tokens - len(prompt_ids)
        if room < (sampling.max_tokens or 1):
            raise PromptError(
                f"the prompt has {len(prompt_ids)} tokens and {sampling.max_tokens or 1} are to be made; the model's context has {self._context_tokens}",
                hint="send less, or ask for fewer tokens",
                code="CONTEXT_LENGTH",
            )
        forward = Forward(
            logits=lambda ids_BT, cache: self._last_logits(release, ids_BT, cache),
            decode=self._renderer.decode,
            new_cache=self._new_cache,
            eos_ids=self._eos_ids,
        )
        return Decoding(forward, prompt_ids, sampling, sampling.max_tokens or min(self._max_new_tokens, room))

    def _on_thread(self, work: Callable[[], T]) -> T:
        return self.thread.submit(work).result()

    def _load_base(self) -> None:
        transformers.utils.logging.disable_progress_bar()
        if self._num_threads:
            torch.set_num_threads(self._num_threads)
        try:
            model = transformers.AutoModelForCausalLM.from_pretrained(
                str(weights_folder(self._folder)), dtype=cpu_dtype(), local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise LoradError(f"base in {self._folder}: {error}", hint="pull it again: `lorad models pull`", code="BASE_UNUSABLE") from None
        model.requires_grad_(False)
        model.eval()
        self._model = model
        self._adapters = AdapterLayers(model)
        self._context_tokens = model.config.max_position_embeddings
        self._eos_ids = frozenset({self._renderer.eos_id, *_eos_of(model.generation_config), *_eos_of(model.config)})

    def _new_cache(self) -> Any:
        return transformers.DynamicCache(config=self._model.config)

    def _last_logits(self, release: str | None, ids_BT: torch.Tensor, cache: Any) -> torch.Tensor:
        with torch.inference_mode(), self._adapters.selected(release):
            logits_BTV = self._model(input_ids=ids_BT, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            return logits_BTV[0, -1].float()

    def _teach(self, release: str | None, prompt_ids: Sequence[int], ids: Sequence[int]) -> list[float]:
        ids_BT = torch.tensor([[*prompt_ids, *ids]])
        with torch.inference_mode(), self._adapters.selected(release):
            logits_TV = self._model(input_ids=ids_BT, use_cache=False, logits_to_keep=len(ids) + 1).logits[0, :-1].float()
        logprobs_TV = torch.log_softmax(logits_TV, dim=-1)
        return [float(logprobs_TV[place, token]) for place, token in enumerate(ids)]


def _eos_of(config: Any) -> list[int]:
    eos = getattr(config, "eos_token_id", None)
    return [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
