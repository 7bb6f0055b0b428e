"""One streamed answer of vLLM, as pieces of text and tokens."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from core.errors import LoradError
from rendering.tokens import Renderer
from serving.engines.port import Chosen, FinishReason, Likely, Piece, Sink

log = logging.getLogger(__name__)

ID = "token_id:"
ENDS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
Hear = Callable[[Mapping[str, Any]], bool]


class VllmAnswer:
    """See `port.Generation`. Its thread reads the stream; a cancelled answer drops the connection, which ends it in vLLM too."""

    def __init__(self, prompt_tokens: int, renderer: Renderer, sink: Sink) -> None:
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = 0
        self.cached_tokens = 0
        self._renderer = renderer
        self._sink = sink
        self._end: FinishReason | None = None
        self._cancelled = False

    def start(self, stream: Callable[[Hear], None]) -> None:
        """Read `stream` on a thread of its own."""
        threading.Thread(target=self._run, args=(stream,), name="vllm-answer", daemon=True).start()

    def cancel(self) -> None:
        """Stop at the next event."""
        self._cancelled = True

    def _run(self, stream: Callable[[Hear], None]) -> None:
        try:
            stream(self._hear)
        except LoradError as error:
            self._sink(Piece(error=error))
            return
        except Exception as error:  # the border of the thread: a caller waits for its last piece
            log.exception("an answer broke off", extra={"action": "answer_failed"})
            self._sink(Piece(error=LoradError(f"the engine failed: {error}", hint="the server's log says where", code="ENGINE_FAILED")))
            return
        if self._cancelled and self._end is None:
            self._sink(Piece(end="cancelled"))
        elif self._end is None:
            self._sink(Piece(error=LoradError("vllm broke the answer off", hint="ask again", code="ENGINE_RESTARTS")))
        else:
            self._sink(Piece(end=self._end))

    def _hear(self, event: Mapping[str, Any]) -> bool:
        if self._cancelled:
            return False
        if usage := event.get("usage"):
            self.completion_tokens = usage["completion_tokens"]
            self.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        if "error" in event:
            raise LoradError(f"vllm failed: {event['error']}", hint="the server's log says more", code="ENGINE_FAILED")
        for choice in event.get("choices", ()):
            tokens = self._tokens(choice.get("logprobs"))
            if choice.get("text") or tokens:
                self._sink(Piece(text=choice.get("text") or "", tokens=tokens))
            if reason := choice.get("finish_reason"):
                self._end = ENDS.get(reason, "stop")
        return True

    def _tokens(self, told: Mapping[str, Any] | None) -> tuple[Chosen, ...]:
        if not told:
            return ()
        tops = told.get("top_logprobs") or [{}] * len(told["tokens"])
        return tuple(
            Chosen(token=self._likely(token, logprob), top=tuple(self._likely(*pair) for pair in top.items()))
            for token, logprob, top in zip(told["tokens"], told["token_logprobs"], tops, strict=True)
        )

    def _likely(self, token: str, logprob: float) -> Likely:
        text = self._renderer.decode([int(token.removeprefix(ID))], skip_special=False)
        return Likely(text=text, raw=text.encode(), logprob=logprob)
