"""The engine for CPUs: llama.cpp in this process, by the xllamacpp wheel. No torch.

The base is a GGUF file that llama.cpp maps; adapters are the GGUF form that packing puts beside PEFT's. Another set of
adapters is another server object (`llama_server`): it is made beside the one that answers, then takes its place, and the old
one ends with its last answer. What `unload` forgets leaves memory with the next such change.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from core.answering import NO_RULES
from core.errors import BaseMissingError, LoradError
from rendering.answerrules import TextRules, TokenTexts
from rendering.tokens import Renderer
from serving.engines.gguf_files import AdapterFile, context_of, read_adapter
from serving.engines.llama_answer import LlamaAnswer, require_schema
from serving.engines.llama_logprobs import Forcing
from serving.engines.llama_server import LlamaServer, Shape, Slot
from serving.engines.port import AdapterError, Ask, BaseIdentity, Blend, Piece, PromptError, Sink
from serving.engines.tiles import tiled
from store.bases import gguf_of, read_base
from store.engines import let_threads_sleep
from store.seals import hash_file

# llama.cpp's threads wait as OpenMP does, some hundred times a token. Tokens/s of one stream on 2 idle cores: 39 where they sleep at once,
# 115 to 146 where they spin a tenth of a millisecond first, 145 where they spin on; beside two busy processes 60 to 85, 35 to 56 and 4 to 19.
SPIN = ("GOMP_SPINCOUNT", "10000")
MOST_CONTEXT = 32768  # tokens: the cache of a long context is memory that is taken at once


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaOptions:
    """Of the config: serving.threads (0: all cores), serving.streams, serving.max_new_tokens, deploy.encryption_key.

    `forms`: a folder of this engine's own, for its form of the base; None maps the base as it is.
    """

    threads: int = 0
    streams: int = 8
    max_new_tokens: int = 256
    key_file: str = ""
    forms: Path | None = None


@dataclass(slots=True)
class _Generation:
    """A server object, who uses it, and whether another has taken its place."""

    server: LlamaServer
    users: int = 0
    is_old: bool = False


class LlamaCppEngine:
    """Base and adapters by llama.cpp. See `port.Engine`."""

    name = "llamacpp"
    backend = "peft"

    def __init__(self, folder: Path, options: LlamaOptions) -> None:
        sealed = read_base(folder)
        self.base = BaseIdentity(
            name=sealed.name,
            base_sha256=sealed.source_sha256,
            tokenizer_sha256=sealed.tokenizer_sha256,
            template_sha256=sealed.template_sha256,
        )
        self.streams = options.streams
        self._folder = folder
        self._options = options
        self._threads = ThreadPoolExecutor(options.streams, thread_name_prefix="llama")
        self._building = threading.Lock()  # of one server object at a time
        self._lock = threading.Lock()  # of who uses which
        self._running: set[LlamaAnswer] = set()
        self._is_closed = False
        self._adapters: dict[str, AdapterFile] = {}
        self._shape: Shape
        self._now: _Generation
        self._renderer: Renderer

    def open(self) -> None:
        """Verify and map the base. Raises BaseMissingError, LoradError BASE_UNUSABLE."""
        model = gguf_of(self._folder)
        if model is None:
            raise BaseMissingError(
                f"the base {self.base.name!r} has no GGUF file here", hint="`lorad models pull`, or set serving.engine to transformers", code="BASE_MISSING"
            )
        if hash_file(model) != self.base.base_sha256:
            raise LoradError(f"{str(model)!r} has other bytes than its name says", hint="delete it and run `lorad models pull`", code="BASE_UNUSABLE")
        os.environ.setdefault(*SPIN)
        let_threads_sleep()
        self._renderer = Renderer.load(self._folder)
        if self._options.forms is not None:
            model = tiled(model, self._options.forms)
        threads = self._options.threads or os.cpu_count() or 1
        self._shape = Shape(model=model, threads=threads, streams=self.streams, context=min(context_of(model), MOST_CONTEXT))
        self._now = _Generation(LlamaServer(self._shape, {}))

    def close(self) -> None:
        """Cut running answers off at their next token, and free threads and memory."""
        with self._lock:
            self._is_closed = True
            running = tuple(self._running)
        for answer in running:
            answer.cancel()
        self._threads.shutdown()
        if hasattr(self, "_now"):
            self._now.server.close()

    def load(self, release: str, folder: Path) -> None:
        """Make a server object with one adapter more, beside the one that answers, and let it take over."""
        with self._building:
            if release in self._adapters:
                return
            wanted = {**self._adapters, release: read_adapter(folder, self._options.key_file)}
            fresh = _Generation(LlamaServer(self._shape, wanted))
            self._adapters = wanted
            with self._lock:
                old, self._now = self._now, fresh
                old.is_old = True
                is_idle = not old.users
            if is_idle:
                old.server.close()

    def unload(self, release: str) -> None:
        """Forget a release. Its memory is given back when the next one is loaded."""
        with self._building:
            self._adapters = {known: file for known, file in self._adapters.items() if known != release}

    def logprobs(self, blend: Blend, prompt_ids: Sequence[int], ids: Sequence[int]) -> list[float] | None:
        """Token by token: llama.cpp tells the log-probability of the token that it chose, so each one is made its only choice."""
        if not all(0 <= token < self._vocabulary for token in (*prompt_ids, *ids)):
            raise AdapterError(f"the probe has tokens outside of the {self._vocabulary} of this base", hint="pack it again", code="PROBE_DAMAGED")
        with self._used() as server, server.slot(blend, len(prompt_ids) + len(ids) + 1) as slot:
            found = []
            forcing = Forcing(server=server, blend=blend, vocabulary=self._vocabulary, whole=self._whole_token)
            for place, token in enumerate(ids):
                found.append(forcing.logprob(slot, [*prompt_ids, *ids[:place]], token))
                slot = Slot(slot.number, is_warm=True)
        return found

    def begin(self, ask: Ask, sink: Sink) -> LlamaAnswer:
        """An answer on a thread of its own, by the server object that is in place when its turn comes. Raises PromptError."""
        if ask.schema is not None:
            require_schema(ask.schema)
        try:
            prompt = self._renderer.prompt(ask.messages, ask.tools) if ask.text is None else self._encode(ask.text)
        except LoradError as error:
            raise PromptError(error.what, hint=error.hint, code=error.code) from None
        room, wanted = self._shape.context - len(prompt), ask.sampling.max_tokens or 1
        if not prompt or room < wanted:
            raise PromptError(
                f"the prompt has {len(prompt)} tokens and {wanted} are to be made; the model's context has {self._shape.context}",
                hint="send less, or ask for fewer tokens" if prompt else "send a text",
                code="CONTEXT_LENGTH" if prompt else "PROMPT_EMPTY",
            )
        answer = LlamaAnswer(
            ask=ask,
            prompt=prompt,
            max_tokens=ask.sampling.max_tokens or min(self._options.max_new_tokens, room),
            sink=sink,
            encode=self._encode,
            rules=self._rules(ask) if ask.rules != NO_RULES else None,
            prompt_tokens=len(prompt),
        )
        with self._lock:
            is_late = self._is_closed
            if not is_late:
                self._running.add(answer)
                self._threads.submit(self._answer, answer)
        if is_late:
            sink(Piece(end="cancelled"))
        return answer

    def _answer(self, answer: LlamaAnswer) -> None:
        try:
            with self._used() as server:
                answer.run(server)
        finally:
            with self._lock:
                self._running.discard(answer)

    @contextmanager
    def _used(self) -> Iterator[LlamaServer]:
        """The server object in place; it stays until the context ends, and is freed then where another has taken its place."""
        with self._lock:
            mine = self._now
            mine.users += 1
        try:
            yield mine.server
        finally:
            with self._lock:
                mine.users -= 1
                is_last = mine.is_old and not mine.users
            if is_last:
                mine.server.close()

    def _encode(self, text: str) -> list[int]:
        return list(self._renderer.tokenizer.encode(text, add_special_tokens=False).ids)

    def _rules(self, ask: Ask) -> TextRules:
        question = next((message.content for message in reversed(ask.messages) if message.role == "user"), "")
        return TextRules(ask.rules, question, self._texts if ask.rules.penalties else None)

    @cached_property
    def _texts(self) -> TokenTexts:
        return TokenTexts.of(self._renderer.tokenizer)

    @cached_property
    def _whole_token(self) -> int:
        return self._encode("a")[0]

    @cached_property
    def _vocabulary(self) -> int:
        return self._renderer.tokenizer.get_vocab_size(with_added_tokens=True)
