"""One server object of llama.cpp: the base by mmap, the adapters that it was made with, and slots that answers take.

Adapters are fixed when the object is made. Which of them answers, and how strongly, is said with each request. What a slot
keeps of a prompt is used again only by the blend that computed it: a prompt read through one adapter is wrong for another.

llama.cpp's server also listens by itself; here it does so on a socket in a private folder that nobody else can open.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from core.errors import LoradError
from serving.engines.gguf_files import AdapterFile
from serving.engines.port import AdapterError, Blend

SILENT = -1  # llama.cpp's verbosity
Chunk = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a server object is made. `pool` tokens are shared by all slots; one answer takes up to `context` of them."""

    model: Path
    threads: int
    streams: int
    context: int

    @property
    def pool(self) -> int:
        """Tokens that all answers together may hold: a whole context, and room for as many short answers as there are slots."""
        return max(self.context, self.streams * min(self.context, 1024))


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot that one answer holds. `is_warm`: what lies in it was computed by the same blend."""

    number: int
    is_warm: bool


class LlamaServer:
    """Answers by a fixed set of adapters. Safe in threads."""

    def __init__(self, shape: Shape, adapters: Mapping[str, AdapterFile]) -> None:
        """Loads; takes some tenths of a second. Raises AdapterError ADAPTER_LOAD, LoradError BASE_UNUSABLE where there is no adapter."""
        self._pool = shape.pool
        self._places = {release: place for place, release in enumerate(adapters)}
        self._free = list(range(shape.streams))
        self._blends: list[Blend | None] = [None] * shape.streams
        self._taken = 0
        self._is_at_work = False
        self._changed = threading.Condition()
        self._folder = TemporaryDirectory(prefix="lorad-llama-")  # for its owner alone
        self._server: Any = self._make(shape, adapters)

    @contextmanager
    def slot(self, blend: Blend, tokens: int) -> Iterator[Slot]:
        """A slot and room for so many tokens; waits for both."""
        assert tokens <= self._pool, "a prompt beyond the context is refused before"
        with self._changed:
            self._changed.wait_for(lambda: self._free and self._taken + tokens <= self._pool)
            number = min(self._free, key=lambda free: (self._blends[free] != blend, self._blends[free] is not None))
            self._free.remove(number)
            self._taken += tokens
            is_warm = self._blends[number] == blend
            self._blends[number] = blend
        try:
            yield Slot(number, is_warm)
        finally:
            with self._changed:
                self._free.append(number)
                self._taken -= tokens
                self._changed.notify_all()

    def complete(self, blend: Blend, slot: Slot, request: Mapping[str, Any], hear: Chunk) -> None:
        """Carry out a request of llama.cpp's /v1/completions; `hear` gets each chunk and says whether to stop. Blocks."""
        scales = {part.release: part.scale for part in blend}
        # Every adapter is named: one that is not answers too, at full strength.
        lora = [{"id": place, "scale": scales.get(release, 0.0)} for release, place in self._places.items()]
        self._server.handle_completions({**request, "lora": lora, "id_slot": slot.number, "cache_prompt": slot.is_warm, "stream": True}, hear)
        self._is_at_work = True

    def close(self) -> None:
        """Free it. No answer may be running on it.

        llama.cpp's loop starts on a thread of its own, and a stop that comes before it is forgotten: the destructor would wait for
        ever. One that has never answered is therefore asked for a token first.
        """
        if not self._is_at_work:
            self.complete((), Slot(0, is_warm=False), {"prompt": [0], "max_tokens": 1}, lambda chunk: False)
        server, self._server = self._server, None
        del server  # its destructor waits for its loop
        self._folder.cleanup()

    def _make(self, shape: Shape, adapters: Mapping[str, AdapterFile]) -> Any:
        import xllamacpp

        params = _params(shape, self._folder.name)
        with ExitStack() as stack:
            if adapters:  # llama.cpp copies them; the files are not needed afterwards
                params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(stack.enter_context(file.opened())), 1.0) for file in adapters.values()]
            try:
                return xllamacpp.Server(params)
            except RuntimeError as error:
                self._folder.cleanup()
                if adapters:
                    raise AdapterError(
                        f"llama.cpp does not load the adapter beside this base: {error}", hint="it was made for another base", code="ADAPTER_LOAD"
                    ) from None
                raise LoradError(
                    f"llama.cpp does not load {str(shape.model)!r}: {error}",
                    hint="pull the base again, or set serving.engine to transformers",
                    code="BASE_UNUSABLE",
                ) from None


def _params(shape: Shape, folder: str) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.verbosity = SILENT
    params.model.path = str(shape.model)
    params.n_ctx, params.n_parallel, params.kv_unified = shape.pool, shape.streams, True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = shape.threads
    params.n_gpu_layers, params.fit_params, params.warmup = 0, False, False
    params.lora_init_without_apply = True
    params.cache_ram_mib = 0  # llama.cpp's cache across slots does not look at the adapter
    params.hostnames, params.ui, params.endpoint_slots = [f"{folder}/llama.sock"], False, False
    return params
