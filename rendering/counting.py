"""How many tokens texts and conversations have, fast: without tensors, without rendering each row.

tokie counts many times faster than `tokenizers` and is young; so it is asked only after it has counted some hundred
awkward texts exactly as `tokenizers` does, with the very tokenizer in question.
"""

import hashlib
import logging
from collections.abc import Sequence
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from core.errors import LoradError
from rendering.specs import Message, Role, Tools, plain_messages
from rendering.tooltext import uses_tools
from rendering.trialtexts import awkward_texts

if TYPE_CHECKING:
    import numpy as np
    import tokie
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from rendering.tokens import Renderer

    Counts = NDArray[np.int64]

Conversation = Sequence[Message] | Sequence[str]

log = logging.getLogger(__name__)

_verdicts: dict[str, str] = {}  # SHA-256 of a tokenizer -> why tokie is not used for it; empty: it is


class TokenCounter:
    """Counts tokens of texts as `tokenizers` does without adding special tokens; those that stand in a text count as one.

    `note` says why the slower library counts; it is empty while tokie does. Not for use in several threads at once.
    """

    def __init__(self, tokenizer_json: Path | None, tokenizer: "Tokenizer | None" = None) -> None:
        """Args: tokenizer: the same as `tokenizer_json`, where it is loaded already; the file may be None then."""
        assert tokenizer_json or tokenizer, "one of them is needed"
        if tokenizer is None:
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_file(str(tokenizer_json))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self.note = ""
        self._fast: tokie.Tokenizer | None = None
        if tokenizer_json is None:
            self.note = "the tokenizer did not come from a file, which tokie reads"
        else:
            self._fast = self._checked(tokenizer_json)

    def counts(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text, in order."""
        if self._fast is not None:
            try:
                return list(self._fast.count_tokens_batch(list(texts)))
            except BaseException as error:
                self._give_up(f"it failed on a text: {_failure(error)}")
        return self._slow_counts(texts)

    def _slow_counts(self, texts: Sequence[str]) -> list[int]:
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(one) for one in encoded]

    def _give_up(self, why: str) -> None:
        self._fast, self.note = None, f"tokie is not used: {why}"
        log.info("tokens are counted by `tokenizers`: %s", self.note)

    def _checked(self, tokenizer_json: Path) -> "tokie.Tokenizer | None":
        digest = hashlib.sha256(tokenizer_json.read_bytes()).hexdigest()
        fast, why = (None, _verdicts[digest]) if _verdicts.get(digest) else _loaded(tokenizer_json)
        if fast and digest not in _verdicts:
            why = self._compared(fast)
        _verdicts[digest] = why
        if why:
            self._give_up(why)
            return None
        return fast

    def _compared(self, fast: "tokie.Tokenizer") -> str:
        """What differs between the libraries; empty where nothing does."""
        texts = awkward_texts([token.content for token in self._tokenizer.get_added_tokens_decoder().values()])
        wanted = self._slow_counts(texts)
        try:
            found = list(fast.count_tokens_batch(texts))
        except BaseException as error:
            return _failure(error)
        wrong = [index for index in range(len(texts)) if wanted[index] != found[index]]
        if not wrong:
            return ""
        first = wrong[0]
        return f"it counts {len(wrong)} of {len(texts)} texts otherwise than `tokenizers`, such as {texts[first][:40]!r}: {found[first]} for {wanted[first]}"


def _loaded(tokenizer_json: Path) -> "tuple[tokie.Tokenizer | None, str]":
    """The tokenizer in the fast library, and why there is none."""
    try:
        import tokie
    except ImportError:
        return None, "it is not installed"
    try:
        fast = tokie.Tokenizer.from_json(str(tokenizer_json))
    except BaseException as error:
        return None, f"it does not read this tokenizer: {_failure(error)}"
    fast.no_padding()
    fast.no_truncation()
    return fast, ""


def _failure(error: BaseException) -> str:
    """The library's failure as one line; anything else is raised again. A panic of Rust code is a BaseException of its own kind."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


BYTES_A_TOKEN = 4  # of English text, roughly; other scripts have fewer
MARKS_A_TURN = 4  # tokens that a template puts around a turn, roughly


def guess_tokens(messages: Sequence[Message]) -> tuple[int, int]:
    """(all tokens, learnt tokens) of a conversation where no tokenizer is at hand: a guess from its bytes."""
    counts = [MARKS_A_TURN + len(message.content.encode("utf-8", "replace")) // BYTES_A_TOKEN for message in messages]
    return sum(counts), sum(count for count, message in zip(counts, messages, strict=True) if message.role == "assistant" and message.weight)


class _Lead(NamedTuple):
    """What a template writes before a content: the text behind its last border, which may merge with the content."""

    text: str
    tokens: int  # of this text by itself
    before: int  # tokens up to the border


class _Shape(NamedTuple):
    """How counted texts add up to a conversation: all of `chunks` and `more`; of what is learnt, `answers` and `learnt`."""

    chunks: slice
    more: int
    answers: Sequence[int]
    learnt: int


class _Frame(NamedTuple):
    """What a template writes around the texts of a plain conversation of so many: the text before each, and tokens as in _Shape."""

    before: Sequence[str]
    more: int
    learnt: int


class _Uneven(LoradError):
    """The template does not write the same text before each content of a role."""

    def __init__(self, what: str) -> None:
        super().__init__(what, hint="", code="TEMPLATE_UNEVEN")


class ConversationCounter:
    """Counts tokens of conversations without rendering each: contents, and the text that the template puts between them.

    What stands between the contents is learnt once, from small conversations, and tried on others. Where a template
    writes other texts at other places, each conversation is rendered, and `note` says so; so is one that uses tools for
    which the template has a place of its own. One that the template refuses counts the tokens of its contents.

    Compared with `Renderer.encode` under SmolLM2's tokenizer and template, on 5,136 real conversations (one and several
    turns, tools, notes and letters) and 2,000 made of blanks, signs and scripts: every total and every number of learnt
    tokens was the same. Other tokenizers may differ by a token for a content that begins with blanks.
    """

    def __init__(self, renderer: "Renderer") -> None:
        self._renderer = renderer
        self.counter = TokenCounter(renderer.tokenizer_json, renderer.tokenizer)
        self.note = self.counter.note
        self._strips = False
        self._end_of_answer = 1  # learnt tokens behind the content
        self._end = 0  # tokens behind the last content of all
        self._leads: dict[tuple[str, str], _Lead] = {}
        self._frames: dict[int, _Frame | None] = {}
        try:
            self._learn()
            self._try()
        except LoradError as error:
            self._leads, self._frames = {}, {}
            self.note = " ".join(filter(None, (self.note, f"every conversation is rendered to be counted: {error.what}")))

    def counts(self, conversations: Sequence[Conversation], tools: Sequence[Tools] = ()) -> list[tuple[int, int]]:
        """(all tokens, learnt tokens) of each conversation, in order; `tools` is empty, or has the tools of each.

        A plain conversation may come as its texts alone (rendering.specs.plain_texts).
        """
        texts: list[str] = []
        shapes = [
            self._plain_shape(cast(Sequence[str], one), texts)
            if one and isinstance(one[0], str)
            else self._shape(cast(Sequence[Message], one), tools[place] if tools else (), texts)
            for place, one in enumerate(conversations)
        ]
        counted = self.counter.counts(texts)
        return [(sum(counted[chunks]) + more, sum([counted[index] for index in answers]) + learnt) for chunks, more, answers, learnt in shapes]

    def plain_counts(self, texts: Sequence[str], sizes: Sequence[int]) -> "tuple[Counts, Counts] | None":
        """(all tokens, learnt tokens) of plain conversations, of each in order; None where this template's must be rendered.

        Args: texts: those of all conversations; sizes: how many each has, at least two.
        """
        import numpy as np

        kinds = set(sizes)
        frames = {size: self._known_frame(size) for size in kinds}
        if not kinds or None in frames.values():
            return None
        known = {size: frame for size, frame in frames.items() if frame is not None}
        before = [text for size in sizes for text in known[size].before]
        counted = np.array(self.counter.counts(list(map(add, before, map(str.strip, texts) if self._strips else texts))), dtype=np.int64)
        lengths = np.array(sizes)
        starts = np.cumsum(lengths) - lengths
        # Turn by turn from the last one: that is the assistant's, and the one before it is not.
        is_answer = (np.repeat(starts + lengths, lengths) - np.arange(len(counted))) % 2 == 1
        is_answer[starts[lengths % 2 == 1]] = False  # a system turn
        total = np.add.reduceat(counted, starts) + np.array([known[size].more for size in sizes])
        learnt = np.add.reduceat(np.where(is_answer, counted, 0), starts) + np.array([known[size].learnt for size in sizes])
        return total, learnt

    def _plain_shape(self, said: Sequence[str], texts: list[str]) -> _Shape:
        """The same as `_shape` for a plain conversation: those of one length differ in their texts alone."""
        num_turns = len(said)
        frame = self._known_frame(num_turns)
        if frame is None:
            return self._shape(plain_messages(said), (), texts)
        before, more, learnt = frame
        start = len(texts)
        end = start + num_turns
        texts += map(add, before, map(str.strip, said) if self._strips else said)
        return _Shape(slice(start, end), more, range(start + 1 + num_turns % 2, end, 2), learnt)

    def _known_frame(self, num_turns: int) -> _Frame | None:
        if num_turns not in self._frames:
            self._frames[num_turns] = self._frame(num_turns)
        return self._frames[num_turns]

    def _frame(self, num_turns: int) -> _Frame | None:
        roles = [message.role for message in plain_messages([""] * num_turns)]
        leads = [self._leads.get(pair) for pair in zip(("", *roles), roles, strict=False)]
        known = [lead for lead in leads if lead is not None]
        if len(known) < num_turns:
            return None
        learnt = sum(self._end_of_answer - lead.tokens for lead, role in zip(known, roles, strict=True) if role == "assistant")
        return _Frame([lead.text for lead in known], self._end + sum(lead.before for lead in known), learnt)

    def _shape(self, messages: Sequence[Message], tools: Tools, texts: list[str]) -> _Shape:
        """Append the texts that must be counted for a conversation."""
        shape = None if tools else self._framed(messages, texts)
        if shape is None and self._renderer.template.tools_as_text and uses_tools(messages, tools):
            messages, tools = self._renderer.template.as_text(messages, tools), ()
            shape = self._framed(messages, texts)
        return shape or self._rendered(messages, tools, texts)

    def _framed(self, messages: Sequence[Message], texts: list[str]) -> _Shape | None:
        """The shape of a conversation by what the template writes before each content; None for one of another order."""
        leads, previous, learnt, more = self._leads, "", 0, self._end
        chunks: list[str] = []
        answers: list[int] = []
        start = len(texts)
        for message in messages:
            role = message.role
            lead = leads.get((previous, role))
            if lead is None or message.tool_calls or message.name:
                return None
            if role == "assistant" and message.weight:
                answers.append(start + len(chunks))
                learnt += self._end_of_answer - lead.tokens
            more += lead.before
            chunks.append(lead.text + (message.content.strip() if self._strips else message.content))
            previous = role
        if previous != "assistant":
            return None
        texts += chunks
        return _Shape(slice(start, len(texts)), more, answers, learnt)

    def _rendered(self, messages: Sequence[Message], tools: Tools, texts: list[str]) -> _Shape:
        answers = [index for index, message in enumerate(messages) if message.role == "assistant" and message.weight]
        start = len(texts)
        try:
            text = self._renderer.render(messages, tools)
            said = [self._said(text, self._renderer.render(messages[:index], tools, add_generation_prompt=True)) for index in answers]
        except LoradError:
            texts += [message.content for message in messages]
            return _Shape(slice(start, len(texts)), 0, [start + index for index in answers], len(answers))
        texts += [text, *said]
        return _Shape(slice(start, start + 1), 0, range(start + 1, len(texts)), 0)

    def _said(self, text: str, before: str) -> str:
        """What the assistant says after `before`, through its end token."""
        eos = self._renderer.eos_token
        end = text.find(eos, len(before))
        return text[len(before) :] if end < 0 else text[len(before) : end + len(eos)]

    # --- what the template writes between contents

    def _learn(self) -> None:
        blanks = f" {_MARKS[0]} \n"
        self._strips = blanks not in self._renderer.render([Message("user", blanks), Message("assistant", _MARKS[1])])
        first, answer, end = self._between("user", "assistant")
        self._lead("", "user", first)
        lead = self._lead("user", "assistant", answer)
        self._lead("assistant", "user", self._between("user", "assistant", "user", "assistant")[2])
        self._end, whole = self.counter.counts([end, lead.text + _MARKS[1]])
        encoding = self._renderer.encode([Message("user", _MARKS[0]), Message("assistant", _MARKS[1])])
        self._end_of_answer = encoding.num_supervised - whole + lead.tokens
        try:
            system, first, *_ = self._between("system", "user", "assistant")
        except LoradError:  # the template has no place for a system turn: a conversation with one is rendered
            return
        self._lead("", "system", system)
        self._lead("system", "user", first)

    def _lead(self, previous: str, role: str, text: str) -> _Lead:
        # A text is cut at its special tokens before anything else, so what stands before the last of them never changes.
        tokens = self._renderer.tokenizer.get_added_tokens_decoder().values()
        borders = [text.rfind(token.content) + len(token.content) for token in tokens if token.special and not token.rstrip and token.content in text]
        rest = text[max(borders, default=0) :]
        whole, behind = self.counter.counts([text, rest])
        lead = self._leads[previous, role] = _Lead(rest, behind, whole - behind)
        return lead

    def _between(self, *roles: Role) -> list[str]:
        """The texts before each content, and the one behind the last."""
        marks = _MARKS[: len(roles)]
        rest = self._renderer.render([Message(role, mark) for role, mark in zip(roles, marks, strict=True)])
        found = []
        for mark in marks:
            before, there, rest = rest.partition(mark)
            if not there:
                raise _Uneven("the chat template leaves out what a turn says")
            found.append(before)
        return [*found, rest]

    def _try(self) -> None:
        """Compare with rendered conversations. Raises LoradError where the counts are not the same."""
        pair: tuple[Role, Role] = ("user", "assistant")
        for roles in (pair * 3, ("system", *pair * 2)):
            if ("", roles[0]) not in self._leads:
                continue
            messages = [Message(role, said) for role, said in zip(roles, _SAID[: len(roles)], strict=True)]
            encoding = self._renderer.encode(messages)
            if self.counts([messages]) != [(len(encoding.ids), encoding.num_supervised)]:
                raise _Uneven("the chat template writes other texts at other places")


_MARKS = ("lorad-mark-one", "lorad-mark-two", "lorad-mark-three", "lorad-mark-four")
_SAID = ("What is 12 + 30?", "It is 42.", "And in words,\nplease?", "Forty-two 🦊", "日本語で?", "四十二です。")
