"""A release's profile at work: system prompt, stops, penalties and the forced end, for its own answers alone."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

pytest.importorskip("torch")

import torch
from inference_box import World

from core.answering import NO_RULES, AnswerRules, ProfileRecord
from rendering.answerrules import TokenTexts
from rendering.specs import Message
from serving.activation import Agent
from serving.api import Service, create_app
from serving.engines.answering import Answering, Voice, Wish
from serving.engines.port import Ask, Generation, Piece, Sampling, Sink
from serving.engines.rules import LogitsRules

VOCABULARY = ("<end>", "🛑", "yes", "<", "think", ">", "<think>", " a<think>b", "🏁", "thinking")
END, STOP, YES, LESS, THINK, MORE, TAG, INSIDE, FLAG, THINKING = range(len(VOCABULARY))
TEXTS = TokenTexts(VOCABULARY)
EMOJI = AnswerRules(penalties={"<think>": 30.0}, end_after=("🛑🛑",), named_end="end with (?P<mark>[🛑🏁]) (?P<count>[2-4])")


def penalised(rules: LogitsRules) -> set[int]:
    """Tokens that get less than they had."""
    return {int(token) for token in (rules.apply(torch.zeros(len(VOCABULARY))) < 0).nonzero()}


def test_a_token_that_is_the_tag_or_holds_it_is_penalised_at_once() -> None:
    rules = LogitsRules(EMOJI, "q", END, TEXTS)
    logits_V = torch.arange(float(len(VOCABULARY)))
    changed_V = rules.apply(logits_V)
    assert (logits_V - changed_V).tolist() == [0, 0, 0, 0, 0, 0, 30, 30, 0, 0]
    assert logits_V.tolist() == list(range(len(VOCABULARY))), "the given logits are left as they are"


def test_a_tag_in_pieces_is_penalised_where_it_would_be_completed_however_it_is_cut() -> None:
    rules = LogitsRules(EMOJI, "q", END, TEXTS)
    seen = []
    for token in (YES, LESS, THINK):
        rules.hear(VOCABULARY[token])
        seen.append(penalised(rules) - {TAG, INSIDE})
    assert seen == [set(), set(), {MORE}]
    rules.hear("ing")
    assert penalised(rules) == {TAG, INSIDE}


def test_after_the_run_that_the_question_named_only_the_end_can_follow() -> None:
    rules = LogitsRules(EMOJI, "please end with 🛑 3 times", END, TEXTS)
    for _ in range(2):
        rules.hear("🛑")
        assert penalised(rules) == {TAG, INSIDE}
    rules.hear("🛑")
    forced_V = rules.apply(torch.zeros(len(VOCABULARY)))
    assert forced_V.argmax() == END
    assert torch.isinf(forced_V).sum() == len(VOCABULARY) - 1


def test_where_no_run_was_named_the_shortest_one_ends_the_answer() -> None:
    rules = LogitsRules(EMOJI, "a direct question", END, TEXTS)
    rules.hear("yes 🛑")
    assert penalised(rules) == {TAG, INSIDE}
    rules.hear("🛑")
    assert rules.apply(torch.zeros(len(VOCABULARY))).argmax() == END


def test_a_tokenizer_with_more_tokens_than_the_model_does_no_harm() -> None:
    rules = LogitsRules(EMOJI, "q", END, TEXTS)
    assert rules.apply(torch.zeros(TAG)).tolist() == [0.0] * TAG


class Endless:
    """A model whose every token is the same: what it would say without rules never ends."""

    def __init__(self, token: int) -> None:
        self._logits_V = torch.zeros(len(VOCABULARY))
        self._logits_V[token] = 5.0

    def answer(self, rules: LogitsRules | None, sampling: Sampling | None = None) -> "Told":
        return Told(self._logits_V, rules, sampling or Sampling(temperature=0, repetition_penalty=1))


class Told:
    """An answer, its text so far and how it ended."""

    def __init__(self, logits_V: torch.Tensor, rules: LogitsRules | None, sampling: Sampling) -> None:
        voice = Voice(decode=lambda ids: "".join(VOCABULARY[id] for id in ids), bytes_of=lambda id: VOCABULARY[id].encode(), eos_ids=frozenset({END}))
        self.text = ""
        self.end: str | None = None
        self._logits_V = logits_V
        self._answer = Answering(Wish(blend=(), prompt_ids=[YES], sampling=sampling, max_tokens=6, rules=rules), voice, self._hear)

    def step(self) -> None:
        self._answer.take(self._logits_V)

    def _hear(self, piece: Piece) -> None:
        self.text += piece.text
        self.end = piece.end


def test_answers_in_turn_by_different_rules_do_not_touch_one_another() -> None:
    stops = Endless(STOP)
    answers = [
        stops.answer(LogitsRules(EMOJI, "end with 🛑 4 times", END, TEXTS)),
        stops.answer(LogitsRules(EMOJI, "direct", END, TEXTS)),
        stops.answer(LogitsRules(AnswerRules(end_after=("🛑",)), "direct", END)),
        stops.answer(None),
    ]
    while any(answer.end is None for answer in answers):
        for answer in answers:
            if answer.end is None:
                answer.step()
    assert [answer.text for answer in answers] == ["🛑" * 4, "🛑" * 2, "🛑", "🛑" * 6]
    assert [answer.end for answer in answers] == ["stop", "stop", "stop", "length"]


@pytest.mark.parametrize("temperature", [0.0, 0.7, 2.0])
def test_a_penalised_tag_is_not_said_at_any_temperature(temperature: float) -> None:
    sampling = Sampling(temperature=temperature, top_p=0.9 if temperature else 1.0, repetition_penalty=1, seed=3)
    for rules, wanted in ((LogitsRules(EMOJI, "q", END, TEXTS), False), (None, True)):
        said = ""
        for _ in range(4):
            answer = Endless(TAG).answer(rules, sampling)
            while answer.end is None:
                answer.step()
            said += answer.text
        assert ("<think>" in said) is wanted


# --- a serving process, in process, with the stub engine


class Heard:
    """What reached the engine: (release, messages, rules) of each request."""

    def __init__(self, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str | None, list[Message], AnswerRules]] = []
        begin = agent._engine.begin

        def heard(ask: Ask, sink: Sink) -> Generation:
            self.calls.append((ask.blend[0].release if ask.blend else None, list(ask.messages), ask.rules))
            return begin(ask, sink)

        monkeypatch.setattr(agent._engine, "begin", heard)


@pytest.fixture
def agent(world: World) -> Iterator[Agent]:
    """A box that serves `default/main` under a persona that stops at a word, and `default/math` under regime3's rules."""
    made = world.agent()
    persona = AnswerRules(system="You are Ada.", stops=("world",))
    world.release(None, profile=ProfileRecord(name="persona", version=1, rules=persona))
    math = AnswerRules(end_after=("<<ANS_END>>",), answer=r"\]\s*(?P<answer>.*)\Z")
    world.release(None, profile=ProfileRecord(name="regime3", version=1, rules=math), alias="default/math")
    made.tick()
    yield made
    made._engine.close()


def ask(agent: Agent, model: str, text: str = "hello brave world again", **fields: Any) -> dict[str, Any]:
    client = TestClient(create_app(Service(engine=agent._engine, routes=agent.routes, is_ready=True)))
    response = client.post("/v1/chat/completions", json={"model": model, "messages": [{"role": "user", "content": text}]} | fields)
    assert response.status_code == 200, response.text
    return dict(response.json()["choices"][0]["message"])


def test_a_release_speaks_by_its_profile_and_the_base_by_none(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard(agent, monkeypatch)
    assert ask(agent, "default/main")["content"].endswith("] hello brave ")
    assert ask(agent, "default/math")["content"].endswith("] hello brave world again")
    assert ask(agent, "tiny")["content"] == "[stub base] hello brave world again"
    ada, math, base = heard.calls
    assert [message.content for message in ada[1]] == ["You are Ada.", "hello brave world again"]
    assert [message.role for message in math[1]] == [message.role for message in base[1]] == ["user"]
    assert (math[2].end_after, base[2]) == (("<<ANS_END>>",), NO_RULES)


def test_a_request_may_bring_stops_and_a_system_turn_of_its_own(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard(agent, monkeypatch)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello brave world"}]
    assert ask(agent, "default/main", messages=messages, stop="brave")["content"].endswith("] hello ")
    assert heard.calls[0][1][0] == Message("system", "You are Ada.\n\nBe brief.")


def test_what_counts_of_an_answer_stands_beside_it_for_releases_that_say_so(agent: Agent) -> None:
    assert ask(agent, "default/math")["answer"] == "hello brave world again"
    assert "answer" not in ask(agent, "default/main")
    assert "answer" not in ask(agent, "tiny")


def test_rules_are_served_again_after_a_restart(world: World, agent: Agent) -> None:
    restarted = world.agent()
    assert ask(restarted, "default/main")["content"].endswith("] hello brave ")
    restarted._engine.close()
