"""The port behind which an engine computes answers.

`begin` returns at once; the answer comes in pieces through the caller's sink, from the engine's own threads. How many
answers are computed together, and how, is the engine's matter; how many may wait is the server's (`serving.line`).
`load`, `unload` and `logprobs` may be called from any other thread and block until they are done.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from core.answering import NO_RULES, AnswerRules
from core.errors import LoradError
from rendering.specs import Message

FinishReason = Literal["stop", "length", "cancelled", "content_filter"]  # the last one by the box's own filters, never by an engine


class AdapterError(LoradError):
    """A release's bytes are those of its manifest, and this engine cannot serve them."""


class PromptError(LoradError):
    """The messages of a request cannot be answered: too long for the model, or refused by its template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseIdentity:
    """What a release must have been made for. `name` is the base's model name in the API."""

    name: str
    base_sha256: str
    tokenizer_sha256: str
    template_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One adapter of what answers: its release, and the factor of its weights."""

    release: str
    scale: float = 1.0


Blend = tuple[Part, ...]
"""W' = W + sum of s_i B_i A_i; the empty one is the base."""


def only(release: str | None) -> Blend:
    """The blend of one release, or of the base."""
    return (Part(release=release),) if release else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen. Temperature 0 is greedy. `max_tokens` None means the server's default, cut to what fits."""

    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 50  # 0: all
    repetition_penalty: float = 1.1  # over the prompt and the answer, as in transformers
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # token id -> added to its logit
    max_tokens: int | None = None
    seed: int | None = None
    logprobs: int | None = None  # None: not wanted; n: of each token, and of the n likeliest beside it


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What is to be answered: `messages` by the chat template, or `text` as it stands.

    `schema` is a JSON Schema that the answer must follow (an empty mapping: any JSON object); None: free text. Of the
    `rules` an engine keeps `penalties` and endings; system prompt and stop strings are the caller's part.
    """

    blend: Blend
    messages: tuple[Message, ...] = ()
    text: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    schema: Mapping[str, Any] | None = None
    sampling: Sampling = Sampling()
    rules: AnswerRules = NO_RULES


@dataclass(frozen=True, slots=True)
class Likely:
    """A token and its log-probability (nats, before temperature). `text` may be half a character: `raw` is its bytes."""

    text: str
    raw: bytes
    logprob: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A token of the answer and the likeliest beside it."""

    token: Likely
    top: tuple[Likely, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What became certain: text that never splits a character, and where asked for the tokens since the last piece.

    The last piece of an answer has `end` or `error`; nothing comes after it.
    """

    text: str = ""
    tokens: tuple[Chosen, ...] = ()
    end: FinishReason | None = None
    error: LoradError | None = None


Sink = Callable[[Piece], None]


class Generation(Protocol):
    """One answer on its way."""

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""

    @property
    def completion_tokens(self) -> int:
        """Tokens made so far."""

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that a cache of the same blend already held."""

    def cancel(self) -> None:
        """Stop soon; the sink hears `end` cancelled, unless it has heard an end. Repeating it is harmless."""


class Engine(Protocol):
    """Base weights and the adapters beside them. A release id never stands for other bytes."""

    name: str
    backend: str  # the only layout that it loads (`core.servable.layout_of`)
    base: BaseIdentity
    streams: int  # answers that it computes at once without making the others wait

    def open(self) -> None:
        """Load the base. Called once, before anything else. Raises LoradError."""

    def close(self) -> None:
        """Free threads and processes; nothing may be called afterwards."""

    def load(self, release: str, folder: Path) -> None:
        """Load a verified release beside the others; a loaded one stays as it is. Raises AdapterError, and nothing changed."""

    def unload(self, release: str) -> None:
        """Forget a release that no request is pinned to; an answer of it that was cancelled ends first. Repeating it is harmless."""

    def logprobs(self, blend: Blend, prompt_ids: Sequence[int], ids: Sequence[int]) -> list[float] | None:
        """Log-probability (nats) of each of `ids` after `prompt_ids`, from the same weights that answer; None: no model, no numbers.

        Raises AdapterError PROBE_DAMAGED for ids outside the vocabulary.
        """

    def begin(self, ask: Ask, sink: Sink) -> Generation:
        """Start an answer by loaded releases. Runs on any thread but an event loop's: it renders the prompt. Raises PromptError."""
