"""vLLM as a child process of the server: started, watched, started again; spoken to over its own HTTP routes.

The child listens on a loopback port with a key that only this process knows. Prompts are rendered here and sent as
token ids, so the chat template is the one that was trained with, and tokens come back as ids. Each release is loaded
under its own id, which never stands for other bytes, so vLLM's prefix cache is safe.

vLLM takes one adapter a prompt at the scale that it was trained for, and knows no rule that depends on what was said
so far: a blend of several, another scale, and penalties of a profile are refused (ASK_UNSERVED).
"""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from core.errors import LoradError
from rendering.tokens import Renderer
from serving.engines.port import AdapterError, Ask, BaseIdentity, Blend, Generation, PromptError, Sampling, Sink
from serving.engines.vllm_answer import VllmAnswer
from serving.engines.vllm_process import VllmProcess, VllmSettings
from store.bases import read_base
from store.encryption import is_encrypted
from store.seals import check_seal

log = logging.getLogger(__name__)

Starter = Callable[[Path, str, VllmSettings], VllmProcess]


class VllmEngine:
    """See `port.Engine`."""

    name = "vllm"
    backend = "peft"

    def __init__(self, folder: Path, settings: VllmSettings, start: Starter = VllmProcess) -> None:
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
        self._start = start
        self._process: VllmProcess | None = None
        self._renderer: Renderer
        self._loaded: dict[str, Path] = {}
        self._lock = threading.Lock()

    def open(self) -> None:
        """Start vLLM and wait until it answers. Raises IntegrityError, LoradError BASE_UNUSABLE."""
        check_seal(self._folder)
        self._renderer = Renderer.load(self._folder)
        self._process = self._start(self._folder, self.base.name, self._settings)
        self._process.start(self._load_again)

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            self._process.close()

    def load(self, release: str, folder: Path) -> None:
        """Ask vLLM to load it from the release's folder. Raises AdapterError."""
        with self._lock:
            if release in self._loaded:
                return
            if is_encrypted(folder):
                raise AdapterError(
                    f"release {release[:12]} is encrypted, and vLLM reads plain files only",
                    hint="serve it with serving.engine transformers, or pack without deploy.encryption_key",
                    code="ADAPTER_UNSERVED",
                )
            self._ask_load(release, folder)
            self._loaded[release] = folder

    def unload(self, release: str) -> None:
        """Ask vLLM to forget it."""
        with self._lock:
            if self._loaded.pop(release, None) is None:
                return
        status, text = self._child.post("/v1/unload_lora_adapter", {"lora_name": release})
        if status not in (200, 404):
            log.warning("vllm did not unload %s: %s", release[:12], text[:200], extra={"action": "unload_failed"})

    def logprobs(self, blend: Blend, prompt_ids: Sequence[int], ids: Sequence[int]) -> list[float] | None:
        """By vLLM's log-probabilities of a prompt."""
        body = {"model": self._model_of(blend), "prompt": [*prompt_ids, *ids], "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        status, answer = self._child.post_json("/v1/completions", body)
        try:
            told = answer["choices"][0]["prompt_logprobs"][len(prompt_ids) :]
            return [float(place[str(token)]["logprob"]) for place, token in zip(told, ids, strict=True)]
        except (KeyError, IndexError, TypeError, ValueError):
            code = "PROBE_DAMAGED" if status == 400 else "PROBE_FAILED"
            raise AdapterError(f"vllm computed no probe: {str(answer)[:300]}", hint="pack it again, or compare vllm on both boxes", code=code) from None

    def begin(self, ask: Ask, sink: Sink) -> Generation:
        """Stream vLLM's answer."""
        if ask.rules.penalties:
            raise PromptError("vllm cannot keep this release's penalties", hint="serve it with serving.engine transformers", code="ASK_UNSERVED")
        try:
            ids = (
                self._renderer.prompt(ask.messages, ask.tools) if ask.text is None else self._renderer.tokenizer.encode(ask.text, add_special_tokens=False).ids
            )
        except LoradError as error:
            raise PromptError(error.what, hint=error.hint, code=error.code) from None
        question = next((message.content for message in reversed(ask.messages) if message.role == "user"), "")
        body = self._body(ask, ids) | _endings(ask.rules.endings(question))
        answer = VllmAnswer(len(ids), self._renderer, sink)
        answer.start(lambda hear: self._child.stream("/v1/completions", body, hear))
        return answer

    def _body(self, ask: Ask, ids: Sequence[int]) -> dict[str, Any]:
        sampling = ask.sampling
        body: dict[str, Any] = {
            "model": self._model_of(ask.blend),
            "prompt": list(ids),
            "max_tokens": sampling.max_tokens or self._default(len(ids)),
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_tokens_as_token_ids": True,
            "logprobs": sampling.logprobs or 0,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "repetition_penalty": sampling.repetition_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "presence_penalty": sampling.presence_penalty,
        }
        if self._settings.context_tokens and len(ids) + body["max_tokens"] > self._settings.context_tokens:
            raise PromptError(
                f"the prompt has {len(ids)} tokens and {body['max_tokens']} are to be made; the model's context has {self._settings.context_tokens}",
                hint="send less, or ask for fewer tokens",
                code="CONTEXT_LENGTH",
            )
        return body | _wishes(sampling) | ({} if ask.schema is None else {"structured_outputs": {"json": dict(ask.schema) or {"type": "object"}}})

    def _default(self, prompt_tokens: int) -> int:
        """Tokens of an answer whose request names no limit."""
        wished, context = self._settings.max_new_tokens, self._settings.context_tokens
        return min(wished, max(1, context - prompt_tokens)) if context else wished

    def _model_of(self, blend: Blend) -> str:
        if len(blend) > 1 or (blend and blend[0].scale != 1):
            hint = "ask for one adapter, or serve with serving.engine transformers"
            raise PromptError("vllm takes one adapter at its own scale", hint=hint, code="ASK_UNSERVED")
        return blend[0].release if blend else self.base.name

    def _ask_load(self, release: str, folder: Path) -> None:
        status, text = self._child.post("/v1/load_lora_adapter", {"lora_name": release, "lora_path": str(folder)})
        if status != 200 and "already" not in text:
            what = f"vllm does not load release {release[:12]}: {text[:300]}"
            raise AdapterError(what, hint="it was made for another model or packed wrongly", code="ADAPTER_LOAD")

    def _load_again(self) -> None:
        """After a restart of the child: what was loaded is loaded again, before anybody is answered."""
        with self._lock:
            for release, folder in self._loaded.items():
                self._ask_load(release, folder)

    @property
    def _child(self) -> VllmProcess:
        assert self._process is not None, "opened first"
        return self._process


def _wishes(sampling: Sampling) -> dict[str, Any]:
    wishes: dict[str, Any] = {}
    if sampling.seed is not None:
        wishes["seed"] = sampling.seed
    if sampling.logit_bias:
        wishes["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    return wishes


def _endings(endings: Sequence[str]) -> dict[str, Any]:
    found = [ending for ending in endings if ending]
    return {"stop": found, "include_stop_str_in_output": True} if found else {}
