"""Messages to tokens, and which of them are learnt.

The text of a conversation is tokenised once, as a whole. The span of an assistant turn comes from rendering prefixes:
it starts where `messages[:i]` with the generation prompt ends and ends where `messages[:i+1]` ends. Both must be
prefixes of the whole text, or the model would be trained on another context than it is served. Two habits of templates
are known and let pass, as they change nothing before the turn: a mark that closes the last turn alone (Phi-3), and an
empty thinking block that only the last turn has (Qwen3). What a turn says within that block is never lost in silence.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from core.errors import IntegrityError, LoradError
from rendering.chat import ChatTemplate
from rendering.specs import Message, Tools
from rendering.tooltext import uses_tools
from store.bases import TEMPLATE, TOKENIZER, read_base
from store.seals import hash_file

EMPTY_THINKING = re.compile(r"\s*<think>\s*</think>")


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start:end` of a rendered text that belong to the assistant turn at index `turn` of the messages."""

    start: int
    end: int
    said: int  # where its content has ended: an end token before that is text of the answer
    weight: float
    turn: int

    @property
    def learnt(self) -> bool:
        """Whether the turn counts in the loss."""
        return self.weight > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """A conversation as tokens.

    `supervised` has the length of `ids`: True on the content (and the tool calls) of every assistant turn whose weight
    is not 0, through the token that ends the turn. `weights` has that length too: the weight of the turn on its
    supervised tokens, 0 on all others. `last_turn` is the index of the first supervised token of the last assistant turn,
    and `len(ids)` where that turn is not supervised. `offsets` are the characters `start:end` of `text` that each token
    stands for; tokens of one character share it.
    """

    ids: list[int]
    supervised: list[bool]
    weights: list[float]
    last_turn: int
    text: str
    offsets: Sequence[tuple[int, int]]
    spans: Sequence[Span]

    @property
    def num_supervised(self) -> int:
        """Tokens that are learnt."""
        return sum(self.supervised)


class Renderer:
    """Tokenizer and chat template of one base model. Safe in threads.

    >>> renderer = Renderer.load(models_dir / "smollm2-135m-instruct")
    >>> encoding = renderer.encode([Message("user", "Hi"), Message("assistant", "Hello!")])
    """

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate, eos_token: str, tokenizer_json: Path | None = None) -> None:
        eos_id = tokenizer.token_to_id(eos_token)
        if eos_id is None:
            raise LoradError(
                f"end-of-turn token {eos_token!r} is not in the tokenizer", hint="pull the base model again: `lorad models pull`", code="EOS_UNKNOWN"
            )
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.tokenizer = tokenizer
        self.template = template
        self.eos_token = eos_token
        self.eos_id: int = eos_id
        self.tokenizer_json = tokenizer_json
        """The file that the tokenizer was read from, where it was."""

    @classmethod
    def load(cls, base_folder: Path) -> "Renderer":
        """The renderer of a sealed base. Reads base.json, tokenizer.json and chat_template.jinja.

        Raises BaseMissingError without a sealed base; IntegrityError where tokenizer or template are not those of base.json.
        """
        base = read_base(base_folder)
        for name, wanted in ((TOKENIZER, base.tokenizer_sha256), (TEMPLATE, base.template_sha256)):
            path = base_folder / name
            if not path.is_file() or hash_file(path) != wanted:
                raise IntegrityError(f"{path} is not the file that base.json names", hint="pull the base model again: `lorad models pull`", code="BASE_CHANGED")
        template = ChatTemplate((base_folder / TEMPLATE).read_text(encoding="utf-8"), bos_token=base.bos_token, eos_token=base.eos_token)
        path = base_folder / TOKENIZER
        return cls(Tokenizer.from_file(str(path)), template, base.eos_token, path)

    def render(self, messages: Sequence[Message], tools: Tools = (), add_generation_prompt: bool = False) -> str:
        """The text of a conversation. Raises LoradError TEMPLATE_RENDER."""
        return self.template.render(messages, add_generation_prompt, tools)

    def encode(self, messages: Sequence[Message], tools: Tools = ()) -> Encoding:
        """Tokens and label mask of a conversation.

        Raises LoradError: TEMPLATE_RENDER, TEMPLATE_NOT_PREFIX, TEMPLATE_NO_EOS (a supervised turn without its end).
        """
        turns = [index for index, message in enumerate(messages) if message.role == "assistant"]
        if uses_tools(messages, tools) and self.template.tools_as_text:
            # Once, not for each prefix: every assistant turn is still one turn, and what stands before it is the same.
            messages, tools = self.template.as_text(messages, tools), ()
        text = self.template.render(messages, tools=tools)
        spans = list(self._spans(messages, tools, text, turns))
        encoded = self.tokenizer.encode(text, add_special_tokens=False)
        ids: list[int] = encoded.ids
        # Offsets are characters of `text`. They only grow, so that a turn's tokens lie between two bisections.
        offsets: list[tuple[int, int]] = encoded.offsets
        starts = [start for start, _ in offsets]
        supervised, weights = [False] * len(ids), [0.0] * len(ids)
        last_turn = len(ids)
        for span in spans:
            last_turn = len(ids)
            if span.learnt:
                # A token that begins in the prompt and reaches into the content is context, not label.
                first = bisect_left(starts, span.start)
                last = self._end_of_turn(ids, bisect_left(starts, span.said), bisect_left(starts, span.end), span.turn)
                supervised[first : last + 1] = [True] * (last + 1 - first)
                weights[first : last + 1] = [span.weight] * (last + 1 - first)
                last_turn = first
        return Encoding(ids=ids, supervised=supervised, weights=weights, last_turn=last_turn, text=text, offsets=offsets, spans=spans)

    def prompt(self, messages: Sequence[Message], tools: Tools = ()) -> list[int]:
        """Tokens of the conversation so far, up to where the assistant begins to speak."""
        text = self.template.render(messages, add_generation_prompt=True, tools=tools)
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of tokens, by default without control tokens."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=skip_special)
        return text

    def _spans(self, messages: Sequence[Message], tools: Tools, text: str, turns: Sequence[int]) -> Iterator[Span]:
        places = [index for index, message in enumerate(messages) if message.role == "assistant"]
        for place, turn in zip(places, turns, strict=True):
            before = self.template.render(messages[:place], add_generation_prompt=True, tools=tools)
            through = text if place + 1 == len(messages) else self.template.render(messages[: place + 1], tools=tools)
            end = self._end_in(text, before, through, messages[place].content)
            if end is None:
                raise LoradError(
                    f"the chat template renders turn {turn} differently once later turns follow",
                    hint="such a template drops or rewrites earlier turns; end the row at that turn, or use another base",
                    code="TEMPLATE_NOT_PREFIX",
                )
            said = _end_of_content(text, len(before), end, messages[place].content)
            yield Span(start=len(before), end=end, said=said, weight=messages[place].weight, turn=turn)

    def _end_in(self, text: str, before: str, through: str, content: str) -> int | None:
        """Where the turn ends in `text` that begins behind `before` and, were it the last, would end `through`; None: nowhere."""
        start = len(before)
        if not (text.startswith(before) and through.startswith(before)):
            return None
        if text.startswith(through):
            return len(through)
        thinking = EMPTY_THINKING.match(through, start)
        for begin in (start, thinking.end() if thinking else len(through)):
            end = through.find(self.eos_token, _end_of_content(through, begin, len(through), content))
            turn = through[begin : end + len(self.eos_token)].lstrip() if end >= 0 else ""
            blanks = len(text) - start - len(text[start:].lstrip())
            if turn and text.startswith(turn, start + blanks):
                return start + blanks + len(turn)
        return None

    def _end_of_turn(self, ids: Sequence[int], first: int, stop: int, turn: int) -> int:
        for index in range(first, stop):
            if ids[index] == self.eos_id:
                return index
        raise LoradError(
            f"assistant turn {turn} is not ended by {self.eos_token!r}: the model would never learn to stop",
            hint="the base's eos_token must be the token that its chat template ends a turn with",
            code="TEMPLATE_NO_EOS",
        )


def _end_of_content(text: str, start: int, end: int, content: str) -> int:
    """Where the content of a turn ends in `text[start:end]`; `start` where the template writes it otherwise."""
    said = content.strip()
    place = text.find(said, start, end)
    return start if place < 0 else place + len(said)


def supervised_text(renderer: Renderer, encoding: Encoding) -> list[str]:
    """The text of each unbroken run of supervised tokens, control tokens included: what the model learns to say."""
    runs: list[list[int]] = []
    before = False
    for id, learnt in zip(encoding.ids, encoding.supervised, strict=True):
        if learnt:
            runs[-1].append(id) if before else runs.append([id])
        before = learnt
    return [renderer.decode(run, skip_special=False) for run in runs]
