"""An engine that says what a test wants, piece by piece, with tokens and log-probabilities; beside that, the stub."""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from inference_box import MODEL

from serving.engines.port import Ask, Chosen, Likely, Piece, Sink
from serving.engines.stub import StubEngine

Script = Callable[[Ask], Sequence[str]]


@dataclass(slots=True, kw_only=True)
class ScriptedGeneration:
    """One scripted answer."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


@dataclass(slots=True, kw_only=True)
class Asked:
    """What the engine was asked, in order, and what it began."""

    asks: list[Ask] = field(default_factory=list)
    begun: list[ScriptedGeneration] = field(default_factory=list)


class ScriptedEngine(StubEngine):
    """Each text of the script is one token. `holds`: answers stop before their first token, until they are cancelled."""

    def __init__(self, script: Script, *, holds: bool = False) -> None:
        super().__init__(MODEL, max_new_tokens=16)
        self.script = script
        self.asked = Asked()
        self._holds = holds

    def begin(self, ask: Ask, sink: Sink) -> ScriptedGeneration:  # type: ignore[override]
        texts = self.script(ask)
        generation = ScriptedGeneration(prompt_tokens=7, completion_tokens=len(texts))
        self.asked.asks.append(ask)
        self.asked.begun.append(generation)
        if not self._holds:
            threading.Thread(target=_say, args=(texts, ask, sink), daemon=True).start()
        return generation


def _say(texts: Sequence[str], ask: Ask, sink: Sink) -> None:
    most = ask.sampling.max_tokens
    for text in texts[:most]:
        sink(Piece(text=text, tokens=(chosen(text, ask.sampling.logprobs),) if ask.sampling.logprobs is not None else ()))
    sink(Piece(end="length" if most is not None and most < len(texts) else "stop"))


def chosen(text: str, likely: int | None) -> Chosen:
    """A token with as many made-up likeliest ones beside it; the last of them is impossible."""
    top = tuple(Likely(text=f"t{rank}", raw=f"t{rank}".encode(), logprob=-float(rank) if rank < 3 else -float("inf")) for rank in range(likely or 0))
    return Chosen(token=Likely(text=text, raw=text.encode(), logprob=-0.5), top=top)


def call_text(name: str, **arguments: object) -> str:
    """A call as Hermes and Qwen write it."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"
