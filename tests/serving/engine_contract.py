"""What every engine keeps to, whatever computes its answers. A case brings an engine and two adapters on its base."""

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from core.errors import LoradError
from rendering.specs import Message
from serving.engines.port import AdapterError, Ask, Blend, Engine, Generation, Piece, PromptError, Sampling, only

DEADLINE_S = 20
GREEDY = Sampling(temperature=0, repetition_penalty=1, max_tokens=8)
RAIN = "Tell me about rain and the sea ."


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An open engine with `adapters` (release id to folder) that it has not loaded; `broken` is a folder that it must refuse."""

    engine: Engine
    adapters: dict[str, Path]
    broken: Path


@dataclass(slots=True)
class Hearing:
    """A sink that remembers; `ended` is set by the last piece."""

    pieces: list[Piece] = field(default_factory=list)
    begun: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    generation: Generation | None = None

    def __call__(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.begun.set()
        if piece.end or piece.error:
            self.ended.set()

    @property
    def text(self) -> str:
        assert self.ended.wait(DEADLINE_S), "the answer never ended"
        if error := self.pieces[-1].error:
            raise error
        return "".join(piece.text for piece in self.pieces)

    @property
    def end(self) -> str | None:
        assert self.ended.wait(DEADLINE_S), "the answer never ended"
        return self.pieces[-1].end


def begin(engine: Engine, blend: Blend, text: str = RAIN, sampling: Sampling | None = None, **more: Any) -> Hearing:
    heard = Hearing()
    wishes = sampling or GREEDY
    heard.generation = engine.begin(Ask(blend=blend, messages=(Message("user", text),), sampling=wishes, **more), heard)
    return heard


def say(engine: Engine, blend: Blend, text: str = RAIN, sampling: Sampling | None = None, **more: Any) -> str:
    return begin(engine, blend, text, sampling, **more).text


class EngineContract:
    """Inherit, and give a fixture `case`. Each test leaves the engine without adapters."""

    @pytest.fixture
    def releases(self, case: Case) -> Sequence[str]:
        for release, folder in case.adapters.items():
            case.engine.load(release, folder)
        return list(case.adapters)

    @pytest.fixture(autouse=True)
    def _emptied(self, case: Case) -> Any:
        yield
        with contextlib.suppress(LoradError):  # closed by its test
            for release in case.adapters:
                case.engine.unload(release)

    def test_an_answer_ends_once_and_counts_its_tokens(self, case: Case) -> None:
        heard = begin(case.engine, ())
        assert heard.text
        assert heard.generation is not None
        assert [bool(piece.end or piece.error) for piece in heard.pieces] == [False] * (len(heard.pieces) - 1) + [True]
        assert heard.generation.prompt_tokens > 0
        assert 0 < heard.generation.completion_tokens <= 8

    def test_the_limit_ends_an_answer_with_length(self, case: Case) -> None:
        heard = begin(case.engine, (), sampling=Sampling(temperature=0, max_tokens=2))
        assert heard.end == "length"
        assert heard.generation is not None
        assert heard.generation.completion_tokens == 2

    def test_every_release_answers_for_itself_and_the_base_for_none(self, case: Case, releases: Sequence[str]) -> None:
        assert len({say(case.engine, blend) for blend in ((), *map(only, releases))}) == 1 + len(releases)

    def test_answers_given_together_are_those_given_alone(self, case: Case, releases: Sequence[str]) -> None:
        asked = [(blend, f"{RAIN} {'please ' * number}") for number, blend in enumerate(((), *map(only, releases)) * 3)]
        alone = [say(case.engine, blend, text) for blend, text in asked]
        together = [begin(case.engine, blend, text) for blend, text in asked]
        assert [heard.text for heard in together] == alone

    def test_more_answers_than_streams_all_end(self, case: Case) -> None:
        asked = [begin(case.engine, (), sampling=Sampling(temperature=0, max_tokens=1)) for _ in range(case.engine.streams + 3)]
        assert len({heard.text for heard in asked}) == 1

    def test_a_cancelled_answer_says_nothing_more_and_frees_its_place(self, case: Case) -> None:
        heard = begin(case.engine, (), sampling=Sampling(temperature=0, repetition_penalty=1, max_tokens=200, logit_bias={2: -100.0}), text="word " * 40)
        assert heard.generation is not None
        heard.generation.cancel()
        heard.generation.cancel()
        assert heard.end in ("cancelled", "stop", "length")
        before = len(heard.pieces)
        say(case.engine, ())
        assert len(heard.pieces) == before

    def test_loading_twice_and_unloading_twice_change_nothing(self, case: Case, releases: Sequence[str]) -> None:
        release = releases[0]
        before = say(case.engine, only(release))
        case.engine.load(release, case.adapters[release])
        assert say(case.engine, only(release)) == before
        case.engine.unload(release)
        case.engine.unload(release)
        case.engine.load(release, case.adapters[release])
        assert say(case.engine, only(release)) == before

    def test_a_load_and_an_unload_beside_an_answer_do_not_touch_it(self, case: Case) -> None:
        first, second = case.adapters
        case.engine.load(first, case.adapters[first])
        alone = say(case.engine, only(first))
        heard = begin(case.engine, only(first))
        case.engine.load(second, case.adapters[second])
        case.engine.unload(second)
        assert heard.text == alone

    def test_an_adapter_that_cannot_be_served_is_refused_and_changes_nothing(self, case: Case, releases: Sequence[str]) -> None:
        before = [say(case.engine, blend) for blend in ((), only(releases[0]))]
        with pytest.raises(AdapterError):
            case.engine.load("f" * 64, case.broken)
        assert [say(case.engine, blend) for blend in ((), only(releases[0]))] == before

    def test_a_prompt_beyond_the_context_is_refused_before_it_takes_a_place(self, case: Case) -> None:
        with pytest.raises(PromptError) as caught:
            begin(case.engine, (), sampling=Sampling(max_tokens=1 << 30))
        assert caught.value.code == "CONTEXT_LENGTH"

    def test_a_seed_repeats_an_answer(self, case: Case) -> None:
        told = [say(case.engine, (), sampling=Sampling(temperature=1.5, max_tokens=8, seed=5)) for _ in range(2)]
        assert told[0] == told[1]

    def test_raw_text_is_answered_too(self, case: Case) -> None:
        heard = Hearing()
        case.engine.begin(Ask(blend=(), text="Once upon a time", sampling=GREEDY), heard)
        assert heard.text

    def test_the_log_probabilities_of_a_release_are_its_own(self, case: Case, releases: Sequence[str]) -> None:
        told = [case.engine.logprobs(blend, (5, 6, 7), (8, 9)) for blend in ((), *map(only, releases))]
        if told[0] is None:  # no model behind it
            assert told == [None] * len(told)
            return
        assert all(numbers is not None and len(numbers) == 2 and max(numbers) <= 0 for numbers in told)
        assert len({tuple(numbers or ()) for numbers in told}) == len(told)

    def test_closing_ends_every_answer(self, case: Case) -> None:
        asked = [begin(case.engine, (), sampling=Sampling(temperature=0, max_tokens=100, logit_bias={2: -100.0})) for _ in range(3)]
        case.engine.close()
        ends = [heard.end for heard in asked]
        assert set(ends) <= {"cancelled", "stop", "length"}
        try:
            late = begin(case.engine, ())
        except LoradError:
            return
        assert late.end == "cancelled"
