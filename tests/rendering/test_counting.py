"""Fast counts are those of the trainer's own tokenizer, or they are not used."""

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import template_cases as templates
from tokenizers import Tokenizer

from rendering import counting
from rendering.chat import ChatTemplate
from rendering.counting import ConversationCounter, TokenCounter
from rendering.specs import Message, ToolCall
from rendering.tokens import Renderer
from rendering.trialtexts import NUM_TEXTS, awkward_texts

TINY = Path(__file__).parents[1] / "data" / "tiny_base" / "tokenizer.json"
TEXTS = ["the quick brown fox", "", " \n\n ", "שלום 日本語 👩‍👩‍👧‍👦", "a <|im_end|> b", "x" * 5_000, "١٢٣ 12345", "a\u2028b\x85c"]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]


@pytest.fixture(autouse=True)
def _no_verdicts() -> Iterator[None]:
    counting._verdicts.clear()
    yield
    counting._verdicts.clear()


@pytest.fixture
def tiny_of() -> Callable[[str], Renderer]:
    """The tiny tokenizer, with its file, under another template."""
    return lambda source: Renderer(Tokenizer.from_file(str(TINY)), ChatTemplate(source), "<|im_end|>", TINY)


def exact(texts: list[str]) -> list[int]:
    tokenizer = Tokenizer.from_file(str(TINY))
    return [len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts]


# --- texts


def test_texts_are_counted_as_the_trainer_tokenises_them() -> None:
    counter = TokenCounter(TINY)
    assert counter.counts(TEXTS) == exact(TEXTS)
    assert counter.counts([]) == []
    assert counter.note == ""


def test_a_library_that_counts_otherwise_is_not_used_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import tokie

    class Wrong:
        @staticmethod
        def from_json(path: str) -> "Wrong":
            return Wrong()

        def no_padding(self) -> None: ...

        def no_truncation(self) -> None: ...

        def count_tokens_batch(self, texts: list[str]) -> list[int]:
            return [count + (text == "السلام عليكم ورحمة الله") for text, count in zip(texts, exact(texts), strict=True)]

    monkeypatch.setattr(tokie, "Tokenizer", Wrong)
    counter = TokenCounter(TINY)
    assert counter.counts(TEXTS) == exact(TEXTS)
    assert "1 of" in counter.note
    assert "السلام" in counter.note
    monkeypatch.setattr(Wrong, "from_json", lambda path: pytest.fail("the verdict is remembered"))
    assert TokenCounter(TINY).note == counter.note


def test_a_library_that_is_not_installed_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokie", None)
    counter = TokenCounter(TINY)
    assert counter.counts(TEXTS) == exact(TEXTS)
    assert counter.note == "tokie is not used: it is not installed"


class PanicException(BaseException):
    """What a panic of Rust code looks like."""


@pytest.mark.parametrize("error", [PanicException("index out of bounds"), ValueError("bad text")])
def test_a_failure_in_the_middle_falls_back_for_good(error: BaseException) -> None:
    class Failing:
        def count_tokens_batch(self, texts: list[str]) -> list[int]:
            raise error

    counter = TokenCounter(TINY)
    counter._fast = Failing()  # type: ignore[assignment]
    assert counter.counts(TEXTS) == exact(TEXTS)
    assert str(error) in counter.note
    assert counter._fast is None


def test_a_wish_to_stop_is_no_failure_of_the_library() -> None:
    class Stopped:
        def count_tokens_batch(self, texts: list[str]) -> list[int]:
            raise KeyboardInterrupt

    counter = TokenCounter(TINY)
    counter._fast = Stopped()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        counter.counts(TEXTS)


def test_a_tokenizer_without_a_file_is_counted_slowly() -> None:
    counter = TokenCounter(None, Tokenizer.from_file(str(TINY)))
    assert counter.counts(TEXTS) == exact(TEXTS)
    assert "file" in counter.note


def test_padding_and_truncation_in_the_file_change_no_count(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(TINY))
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    assert TokenCounter(path).counts(TEXTS) == exact(TEXTS)


def test_the_trial_texts_are_many_and_always_the_same() -> None:
    texts = awkward_texts(["<|im_end|>", "{}"])
    assert len(texts) >= NUM_TEXTS
    assert texts == awkward_texts(["<|im_end|>", "{}"])
    assert sum("<|im_end|>" in text for text in texts) > 20
    assert len(awkward_texts([])) >= NUM_TEXTS


def test_a_fresh_process_counts_alike() -> None:
    code = "from pathlib import Path; from rendering.counting import TokenCounter; "
    code += f"counter = TokenCounter(Path({str(TINY)!r})); print(counter.counts(['the fox', 'a']), counter.note)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(exact(["the fox", "a"]))


# --- conversations

WORDS = ("the fox", "yes, 日本 🦊", "", "two\nlines", "  blanks around  ", "12,345.6 = x?", "שלום", "\nbegins with a line", "ends with one\n", "a\u2028b")


def conversations(seed: int, count: int) -> list[list[Message]]:
    """Conversations of one to four pairs of turns, some with a system turn, some with muted answers."""
    draw = random.Random(seed)  # noqa: S311
    made = []
    for _ in range(count):
        messages = [Message("system", draw.choice(WORDS))] if draw.random() < 0.4 else []
        for _ in range(draw.randint(1, 4)):
            messages.append(Message("user", " ".join(draw.choices(WORDS, k=3))))
            messages.append(Message("assistant", " ".join(draw.choices(WORDS, k=3)), weight=0 if draw.random() < 0.2 else 1))
        made.append(messages)
    return made


@pytest.mark.parametrize("source", [templates.PLAIN, templates.TRIMMED, templates.OBJECT_TOOLS, templates.NUMBERED])
def test_conversations_are_counted_as_the_trainer_encodes_them(tiny_of: Callable[[str], Renderer], source: str) -> None:
    renderer = tiny_of(source)
    counter = ConversationCounter(renderer)
    made = conversations(1, 60)
    encodings = [renderer.encode(messages) for messages in made]
    assert counter.counts(made) == [(len(encoding.ids), encoding.num_supervised) for encoding in encodings]
    assert bool(counter.note) is (source is templates.NUMBERED)
    assert "other texts at other places" in counter.note or not counter.note


@pytest.mark.parametrize("source", [templates.PLAIN, templates.NO_SYSTEM, templates.OBJECT_TOOLS, templates.TEXT_TOOLS])
def test_tools_count_too(tiny_of: Callable[[str], Renderer], source: str) -> None:
    renderer = tiny_of(source)
    call = (ToolCall("f", '{"a": 1}', "c1"),)
    talk = [Message("user", "the"), Message("assistant", "", tool_calls=call), Message("tool", "fox", tool_call_id="c1"), Message("assistant", "ok")]
    double = [*talk[:3], Message("tool", "dog", tool_call_id="c1"), *talk[3:], Message("user", "and?"), Message("assistant", "so", weight=0)]
    plain = [Message("user", "the"), Message("assistant", "fox")]
    encodings = [renderer.encode(talk, TOOLS), renderer.encode(plain), renderer.encode(double), renderer.encode(plain, TOOLS)]
    counts = ConversationCounter(renderer).counts([talk, plain, double, plain], [TOOLS, (), (), TOOLS])
    assert counts == [(len(encoding.ids), encoding.num_supervised) for encoding in encodings]


def test_conversations_of_another_order_are_rendered(tiny_of: Callable[[str], Renderer]) -> None:
    renderer = tiny_of(templates.PLAIN)
    odd = [Message("user", "a", name="ann"), Message("user", "b"), Message("assistant", "c"), Message("assistant", "d"), Message("user", "e")]
    encoding = renderer.encode(odd)
    assert ConversationCounter(renderer).counts([odd, []]) == [(len(encoding.ids), encoding.num_supervised), (0, 0)]


def test_what_the_template_refuses_counts_its_contents(tiny_of: Callable[[str], Renderer]) -> None:
    refused = [Message("system", "the fox"), Message("user", "the fox"), Message("assistant", "the fox")]
    ((total, learnt),) = ConversationCounter(tiny_of(templates.NO_SYSTEM)).counts([refused])
    assert total == 3 * exact(["the fox"])[0]
    assert learnt == exact(["the fox"])[0] + 1
    assert ConversationCounter(tiny_of("{{ raise_exception('never') }}")).counts([refused]) == [(total, learnt)]


@pytest.mark.model
def test_the_real_tokenizer_is_counted_fast_and_exactly(real: Renderer) -> None:
    counter = ConversationCounter(real)
    assert counter.note == ""
    made = conversations(2, 200)
    encodings = [real.encode(messages) for messages in made]
    assert counter.counts(made) == [(len(encoding.ids), encoding.num_supervised) for encoding in encodings]
