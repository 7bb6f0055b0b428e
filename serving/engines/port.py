"""The port behind which an engine computes answers.

Threads: `step` runs on the engine's own thread (`Engine.thread`, one worker, first come first served), so that several
requests and an adapter load take turns token by token and no two of them touch the weights at once. `load`, `unload`
and `logprobs` may be called from any other thread and wait for their turn. `begin` runs on any thread.
"""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from core.answering import NO_RULES, AnswerRules
from core.errors import LoradError
from rendering.specs import Message

FinishReason = Literal["stop", "length"]


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
class Sampling:
    """How tokens are chosen. Temperature 0 is greedy. `max_tokens` None means the server's default, cut to what fits."""

    temperature: float = 0.7
    top_p: float = 0.9
    max_tokens: int | None = None
    seed: int | None = None


class Generation(Protocol):
    """One answer on its way. Belongs to one request; dropped without ceremony."""

    prompt_tokens: int
    completion_tokens: int
    finish_reason: FinishReason | None  # None while it goes on

    def step(self) -> str:
        """One forward step on the engine's thread: the text that became certain, often empty. Never splits a character."""


class Engine(Protocol):
    """Base weights and the adapters beside them. A release id never stands for other bytes."""

    name: str
    backend: str  # the only layout that it loads (`core.servable.layout_of`)
    base: BaseIdentity

    @property
    def thread(self) -> Executor:
        """The one worker that every forward step runs on."""

    def open(self) -> None:
        """Load the base. Called once, before anything else. Raises LoradError."""

    def close(self) -> None:
        """Free the thread; nothing may be called afterwards."""

    def load(self, release: str, folder: Path) -> None:
        """Load a verified release beside the others; a loaded one stays as it is. Raises AdapterError, and nothing changed."""

    def unload(self, release: str) -> None:
        """Forget a release that no request is pinned to. Repeating it is harmless."""

    def logprobs(self, release: str | None, prompt_ids: Sequence[int], ids: Sequence[int]) -> list[float] | None:
        """Log-probability (nats) of each of `ids` after `prompt_ids`, in one forward without cache; None: no model, no numbers.

        Raises AdapterError PROBE_DAMAGED for ids outside the vocabulary.
        """

    def begin(self, release: str | None, messages: Sequence[Message], sampling: Sampling, rules: AnswerRules = NO_RULES) -> Generation:
        """An answer by the loaded `release` (None: the base), not yet started. Raises PromptError.

        Of the `rules` an engine keeps `penalties` and endings; system prompt and stop strings are the caller's part. They
        hold for this answer alone.
        """
