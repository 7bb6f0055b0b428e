"""One answer by llama.cpp: its request, its chunks as pieces, and the rules of its release.

llama.cpp's bias of tokens is fixed for a request. Where the rules change it in the middle of an answer (a token that would
complete a disliked text is known only once its beginning was said), the request is broken off and goes on behind what was said.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.errors import LoradError
from rendering.answerrules import TextRules
from serving.engines.llama_server import LlamaServer, Slot
from serving.engines.port import Ask, Chosen, FinishReason, Likely, Piece, PromptError, Sampling, Sink

log = logging.getLogger(__name__)

SEEDS = (1 << 32) - 1  # llama.cpp takes the last number of 32 bits for "draw one"
BROKEN = "\ufffd"  # bytes that are no character
LAST = 32768  # tokens of prompt and answer that penalties look back at
BLANKS = {"whitespace_flexible": True, "whitespace_pattern": r"[ \n\t]{1,20}"}  # a small model would go on with blanks for ever
ANY_OBJECT = {"type": "object"}
ORDER = ("penalties", "temperature", "top_k", "top_p")  # as transformers has it
FAILED = "the server's log says where; the release before it: `lorad adapters rollback`"


@dataclass(slots=True, kw_only=True, eq=False)
class LlamaAnswer:
    """See `port.Generation`. `run` is called once, on a thread of the engine; it blocks until the answer has ended."""

    ask: Ask
    prompt: list[int]
    max_tokens: int
    sink: Sink
    encode: Callable[[str], list[int]]
    rules: TextRules | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    _is_cancelled: bool = False
    _end: FinishReason | None = None
    _error: LoradError | None = None
    _goes_on: bool = False  # the bias has changed: the rest is another request
    _said: list[int] = field(default_factory=list)  # tokens, where they are asked for

    def cancel(self) -> None:
        """Stop at the next token."""
        self._is_cancelled = True

    @property
    def tokens(self) -> int:
        """Most tokens that prompt and answer take together."""
        return len(self.prompt) + self.max_tokens

    def run(self, server: LlamaServer) -> None:
        """Compute it. The sink hears its end in any case."""
        try:
            if not self._is_cancelled:
                with server.slot(self.ask.blend, self.tokens) as slot:
                    self._requests(server, slot)
            last = Piece(error=self._error) if self._error else Piece(end=self._end or "cancelled")
        except LoradError as error:
            last = Piece(error=error)
        except Exception as error:  # the border of the thread: a caller waits for its last piece
            log.exception("an answer broke off", extra={"action": "answer_failed"})
            last = Piece(error=LoradError(f"the engine failed: {error}", hint="the server's log says where", code="ENGINE_FAILED"))
        self.sink(last)

    def _requests(self, server: LlamaServer, slot: Slot) -> None:
        number = 0
        while not (self._is_cancelled or self._end or self._error):
            bias = self._bias()
            self._goes_on = False
            request = self._request(bias, number)
            server.complete(self.ask.blend, slot, request, lambda chunk, bias=bias: self._hear(chunk, bias))  # type: ignore[misc]
            if not (self._goes_on or self._end or self._error or self._is_cancelled):
                self._error = LoradError("llama.cpp ended an answer without saying why", hint=FAILED, code="ENGINE_FAILED")
            number += 1
            slot = Slot(slot.number, is_warm=True)

    def _request(self, bias: Mapping[int, float], number: int) -> dict[str, Any]:
        sampling = self.ask.sampling
        made: dict[str, Any] = {
            "prompt": [*self.prompt, *self._said],
            "max_tokens": self.max_tokens - len(self._said),
            **sampled(sampling, number),
            "logit_bias": [[token, change] for token, change in bias.items()],
        }
        if sampling.logprobs is not None or self._needs_ids:
            made["logprobs"] = max(1, sampling.logprobs or 0)
        if self.ask.schema is not None:
            made["json_schema"] = as_object(self.ask.schema)
        return made

    @property
    def _needs_ids(self) -> bool:
        # A grammar's state would be lost in the middle of an answer.
        return self.rules is not None and bool(self.ask.rules.penalties) and self.ask.schema is None

    def _bias(self) -> dict[int, float]:
        """Token id -> what is added to its logit now: the request's own, and the largest penalty of the rules."""
        penalties: dict[int, float] = {}
        for ids, penalty in self.rules.disliked() if self.rules else ():
            for token in ids:
                penalties[token] = max(penalties.get(token, 0.0), penalty)
        wanted = self.ask.sampling.logit_bias
        return {token: wanted.get(token, 0.0) - penalties.get(token, 0.0) for token in (*wanted, *penalties)}

    def _hear(self, chunk: Mapping[str, Any], bias: Mapping[int, float]) -> bool:
        """Take one chunk. Returns whether llama.cpp is to stop."""
        if "error" in chunk:
            self._error = LoradError(f"llama.cpp refused: {chunk['error'].get('message', '')}", hint=FAILED, code="ENGINE_FAILED")
            return True
        if self._is_cancelled:
            return True
        choice = chunk["choices"][0]
        tokens = _chosen(choice.get("logprobs"))
        ids = [token for entry in (choice.get("logprobs") or {}).get("content", ()) for token in self._tokens(entry)]
        if reason := choice.get("finish_reason"):
            self._close(chunk.get("usage") or {}, reason)
        else:
            self.completion_tokens += max(1, len(ids))
        if choice["text"] or tokens:
            wanted = self.ask.sampling.logprobs
            told = tuple(Chosen(token=token.token, top=token.top[:wanted]) for token in tokens) if wanted is not None else ()
            if choice["text"] or told:
                self.sink(Piece(text=choice["text"], tokens=told))
        return self._end is not None or self._obey(choice["text"], ids, bias)

    def _tokens(self, entry: Mapping[str, Any]) -> list[int]:
        """The tokens of an entry. Of a character that took several, llama.cpp names the last."""
        last, text = int(entry["id"]), str(entry["token"])
        whole = [] if text.isascii() or BROKEN in text else self.encode(text)
        return whole if whole[-1:] == [last] else [last]

    def _obey(self, text: str, ids: Sequence[int], bias: Mapping[int, float]) -> bool:
        """Whether the rules end the answer here, or want another bias for the next token."""
        if self.rules is None:
            return False
        self.rules.hear(text)
        if self.rules.must_end:
            self._end = "stop"
            return True
        if not self._needs_ids:
            return False
        self._said.extend(ids)
        self._goes_on = len(self._said) < self.max_tokens and self._bias() != bias
        return self._goes_on

    def _close(self, usage: Mapping[str, Any], reason: str) -> None:
        self._end = "length" if reason == "length" else "stop"
        self.completion_tokens = len(self._said) + int(usage.get("completion_tokens", 0)) if not self._needs_ids else self.completion_tokens
        if not self.cached_tokens:
            self.cached_tokens = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0))


def sampled(sampling: Sampling, number: int = 0) -> dict[str, Any]:
    """How llama.cpp is to choose tokens; `number` counts the requests that one answer takes."""
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": 0.0,
        "repeat_penalty": sampling.repetition_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "repeat_last_n": LAST,
        "samplers": list(ORDER),
        "seed": -1 if sampling.seed is None else (sampling.seed + number) % SEEDS,
    }


def as_object(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema as llguidance reads it inside of llama.cpp: any object where it is empty, and few blanks between its parts."""
    return {"x-guidance": BLANKS, **(schema or ANY_OBJECT)}


def require_schema(schema: Mapping[str, Any]) -> None:
    """Raises PromptError SCHEMA_UNUSABLE: llama.cpp would answer without a schema that it cannot follow, and say nothing."""
    from llguidance import LLMatcher

    try:
        wrong = LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(json.dumps(as_object(schema))), None)
    except (ValueError, TypeError) as error:
        wrong = str(error)
    if wrong:
        raise PromptError(
            f"the JSON schema cannot be followed: {wrong[:300]}", hint="see the keywords of JSON Schema that llguidance knows", code="SCHEMA_UNUSABLE"
        )


def _chosen(logprobs: Mapping[str, Any] | None) -> tuple[Chosen, ...]:
    found = (logprobs or {}).get("content", ())
    return tuple(Chosen(token=_likely(entry), top=tuple(map(_likely, entry["top_logprobs"]))) for entry in found)


def _likely(entry: Mapping[str, Any]) -> Likely:
    return Likely(text=entry["token"], raw=bytes(entry["bytes"]), logprob=entry["logprob"])
