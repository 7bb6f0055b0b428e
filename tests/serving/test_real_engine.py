"""The transformers engine with the real 135M base: the right adapter answers, and only for whom it was asked."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import real_adapters as real
from engine_contract import begin
from engine_contract import say as told
from inference_box import World
from safetensors.torch import load_file, save_file

from core.answering import NO_RULES, AnswerRules
from core.wire import Outcome
from serving.engines.port import AdapterError, PromptError, Sampling, only
from serving.engines.prefixes import PIECE_TOKENS

pytestmark = pytest.mark.model

GREEDY = Sampling(temperature=0, repetition_penalty=1, max_tokens=10)
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def engine() -> Iterator[real.OpenedEngine]:
    made = real.new_engine()
    made.open()
    yield made
    made.close()


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, engine: real.OpenedEngine) -> dict[str, Path]:
    """Two adapters of different shape, loaded on the engine under made-up release ids."""
    root = tmp_path_factory.mktemp("adapters")
    folders = {"a" * 64: root / "a", "b" * 64: root / "b"}
    real.save_adapter(root / "a", seed=1)
    real.save_adapter(root / "b", seed=2, r=8, target_modules="all-linear")
    for release, folder in folders.items():
        engine.load(release, folder)
    return folders


def say(engine: real.OpenedEngine, release: str | None, text: str = QUESTION, sampling: Sampling = GREEDY) -> str:
    return told(engine, only(release), text, sampling)


def test_a_greedy_answer_of_the_base_is_sane(engine: real.OpenedEngine) -> None:
    heard = begin(engine, (), QUESTION, GREEDY)
    assert heard.text == "The capital of France is Paris."
    assert heard.end == "stop"
    assert heard.generation is not None
    assert heard.generation.prompt_tokens == len(real.prompt(QUESTION))
    assert heard.generation.completion_tokens == 8, "seven words and marks, and the end of turn"


def test_greedy_tokens_are_those_of_transformers_own_loop(engine: real.OpenedEngine) -> None:
    """Of a lone row, whose products that loop rounds otherwise: some five tokens, before the first near tie."""
    text = "Write a long story about a fox."
    ids = real.reference_greedy(real.reference(), real.prompt(text), 5)
    assert say(engine, None, text, Sampling(temperature=0, repetition_penalty=1, max_tokens=5)) == real.renderer().decode(ids)


def test_the_limit_ends_an_answer_with_length(engine: real.OpenedEngine) -> None:
    heard = begin(engine, (), "Write a long story.", Sampling(temperature=0, max_tokens=3))
    assert heard.end == "length"
    assert heard.generation is not None
    assert heard.generation.completion_tokens == 3


def test_a_seed_repeats_an_answer_and_another_changes_it(engine: real.OpenedEngine) -> None:
    def name(seed: int) -> str:
        return say(engine, None, "Invent a name for a ship.", Sampling(temperature=1.5, top_p=0.95, max_tokens=8, seed=seed))

    assert name(1) == name(1)
    assert len({name(seed) for seed in (1, 2, 3)}) > 1


def test_a_prompt_beyond_the_context_is_refused(engine: real.OpenedEngine) -> None:
    with pytest.raises(PromptError, match="8192"):
        begin(engine, (), "word " * 9000, GREEDY)
    with pytest.raises(PromptError, match="8192"):
        begin(engine, (), "word", Sampling(max_tokens=8192))


def test_a_prompt_in_pieces_is_read_as_one(engine: real.OpenedEngine) -> None:
    text = "The fox ran over the hill. " * 80 + "How many animals are named here?"
    ids = real.prompt(text)
    assert len(ids) > 8 * PIECE_TOKENS
    wanted = real.renderer().decode(real.reference_greedy(real.reference(), ids, 1))
    for _ in ("cold", "warm"):
        assert say(engine, None, text, Sampling(temperature=0, repetition_penalty=1, max_tokens=1)) == wanted


# Adapters


def test_each_adapter_computes_bit_for_bit_what_peft_computes_with_it_alone(engine: real.OpenedEngine, adapters: dict[str, Path]) -> None:
    prompt_ids = real.prompt(QUESTION)
    ids = real.reference_greedy(real.reference(), prompt_ids)
    told: dict[str | None, list[float]] = {None: real.reference_logprobs(real.reference(), prompt_ids, ids)}
    for release, folder in adapters.items():
        told[release] = real.reference_logprobs(model := real.with_adapter(folder), prompt_ids, ids)
        model.unload()
    for release in (*told, *reversed(told)):
        assert engine.logprobs(only(release), prompt_ids, ids) == told[release]
    assert len({tuple(logprobs) for logprobs in told.values()}) == 3, "the three really differ"


def test_requests_of_different_releases_interleave_without_mixing(engine: real.OpenedEngine, adapters: dict[str, Path]) -> None:
    alone = {release: say(engine, release, "Tell me about rain.") for release in (None, *adapters)}
    assert len(set(alone.values())) == 3
    running = {release: begin(engine, only(release), "Tell me about rain.", GREEDY) for release in alone}
    assert {release: heard.text for release, heard in running.items()} == alone


def test_a_load_and_an_unload_in_the_middle_of_an_answer_do_not_touch_it(engine: real.OpenedEngine, adapters: dict[str, Path], tmp_path: Path) -> None:
    real.save_adapter(tmp_path / "c", seed=3, r=2, target_modules=["o_proj", "q_proj"])
    (release, *_) = adapters
    for pinned in (None, release):
        alone = say(engine, pinned, "Tell me about rain.")
        heard = begin(engine, only(pinned), "Tell me about rain.", GREEDY)
        assert heard.begun.wait(20)
        engine.load("c" * 64, tmp_path / "c")
        engine.unload("c" * 64)
        assert heard.text == alone


def test_after_the_last_adapter_left_the_next_one_works(tmp_path: Path) -> None:
    engine = real.new_engine()
    engine.open()
    real.save_adapter(tmp_path / "a", seed=1)
    ids = real.reference_greedy(real.reference(), real.prompt(QUESTION))
    engine.load("a" * 64, tmp_path / "a")
    before = engine.logprobs(only("a" * 64), real.prompt(QUESTION), ids)
    engine.unload("a" * 64)
    assert engine.logprobs((), real.prompt(QUESTION), ids) == real.reference_logprobs(real.reference(), real.prompt(QUESTION), ids)
    engine.load("d" * 64, tmp_path / "a")
    assert engine.logprobs(only("d" * 64), real.prompt(QUESTION), ids) == before
    engine.close()


def spoil_weights(folder: Path, number: float) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values()))[0, 0] = number
    save_file(tensors, path)


def not_a_number(folder: Path) -> None:
    spoil_weights(folder, float("nan"))


def infinite(folder: Path) -> None:
    spoil_weights(folder, float("inf"))


def torn(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def half_the_weights(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file(dict(list(tensors.items())[: len(tensors) // 2]), path)


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def weights_without_a_layer(folder: Path) -> None:
    change_config(folder, target_modules=["q_proj"])


def other_rank(folder: Path) -> None:
    change_config(folder, r=5)


def other_layers(folder: Path) -> None:
    change_config(folder, target_modules=["no_such_layer"])


def dora(folder: Path) -> None:
    change_config(folder, use_dora=True)


def more_modules(folder: Path) -> None:
    change_config(folder, modules_to_save=["lm_head"])


def other_kind(folder: Path) -> None:
    change_config(folder, peft_type="IA3")


BROKEN = [
    (not_a_number, "ADAPTER_NAN"),
    (infinite, "ADAPTER_NAN"),
    (torn, "ADAPTER_LOAD"),
    (half_the_weights, "ADAPTER_LOAD"),
    (weights_without_a_layer, "ADAPTER_LOAD"),
    (other_rank, "ADAPTER_LOAD"),
    (other_layers, "ADAPTER_LOAD"),
    (dora, "ADAPTER_UNSERVED"),
    (more_modules, "ADAPTER_UNSERVED"),
    (other_kind, "ADAPTER_UNSERVED"),
]


@pytest.mark.parametrize("fresh", [False, True], ids=["beside others", "as the first"])
def test_an_adapter_that_cannot_be_served_is_refused_and_changes_nothing(
    engine: real.OpenedEngine, adapters: dict[str, Path], tmp_path: Path, fresh: bool
) -> None:
    (good, *_), ids = adapters, real.reference_greedy(real.reference(), real.prompt(QUESTION))
    if fresh:
        engine = real.new_engine()
        engine.open()
    for number, (spoil, code) in enumerate(BROKEN):
        real.save_adapter(tmp_path / code / str(number), seed=1)
        spoil(tmp_path / code / str(number))
        with pytest.raises(AdapterError) as caught:
            engine.load(f"{number:064d}", tmp_path / code / str(number))
        assert caught.value.code == code, spoil.__name__
    assert engine.logprobs((), real.prompt(QUESTION), ids) == real.reference_logprobs(real.reference(), real.prompt(QUESTION), ids)
    engine.load("e" * 64 if fresh else good, adapters[good])
    assert engine.logprobs(only("e" * 64 if fresh else good), real.prompt(QUESTION), ids) is not None
    if fresh:
        engine.close()


# Releases


def test_a_real_release_passes_its_probe_and_goes_live(world: World, engine: real.OpenedEngine) -> None:
    agent = world.agent(engine)
    release = world.pack(real.recipe(seed=5))
    world.send(release)
    world.wish(release, None)
    agent.tick()
    assert (world.state().release, world.state().outcome, world.state().reason) == (release, Outcome.LIVE, "")
    longer = Sampling(temperature=0, repetition_penalty=1, max_tokens=20)
    assert say(engine, release, "Tell me about rain.", longer) != say(engine, None, "Tell me about rain.", longer)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"shift": 0.5}, "PROBE_FAILED"),
        ({"spoil": not_a_number}, "ADAPTER_NAN"),
        ({"base": "1" * 64}, "BASE_MISMATCH"),
        ({"tokenizer": "1" * 64}, "TOKENIZER_MISMATCH"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_real_release_that_is_not_what_it_says_is_refused(world: World, engine: real.OpenedEngine, changes: dict[str, Any], code: str) -> None:
    agent = world.agent(engine)
    release = world.pack(real.recipe(seed=6, **changes))
    world.send(release)
    world.wish(release, None)
    agent.tick()
    assert world.events() == [("refused", code)]
    assert world.state().release is None
    if code == "PROBE_FAILED":
        assert "0.5" in world.state().reason
        assert "allowed" in world.state().reason
    assert release not in engine._model.adapters.names


def test_a_probe_of_another_adapter_fails(world: World, engine: real.OpenedEngine) -> None:
    def swapped(folder: Path) -> None:
        real.save_adapter(folder, seed=8)

    agent = world.agent(engine)
    release = world.pack(real.recipe(seed=7, spoil=swapped))
    world.send(release)
    world.wish(release, None)
    agent.tick()
    assert world.events() == [("refused", "PROBE_FAILED")]


def test_a_probe_with_tokens_of_another_vocabulary_is_refused(world: World, engine: real.OpenedEngine) -> None:
    def foreign(folder: Path) -> None:
        side = {"ids": [10**6], "logprobs": [-1.0]}
        (folder / "probe.jsonl").write_text(json.dumps({"prompt": "x", "prompt_ids": [1], "base": side, "adapter": side}) + "\n")

    agent = world.agent(engine)
    release = world.pack(real.recipe(seed=7, spoil=foreign))
    world.send(release)
    world.wish(release, None)
    agent.tick()
    assert world.events() == [("refused", "PROBE_DAMAGED")]


def test_the_rules_of_one_answer_leave_the_answers_beside_it_alone(engine: real.OpenedEngine, adapters: dict[str, Path]) -> None:
    """The base and an adapter, with and without rules, in turn token by token; each says what it says alone."""
    paris = AnswerRules(end_after=("Paris",))
    muted = AnswerRules(penalties={"Paris": 30.0, "capital": 30.0})
    asked = [(None, NO_RULES), (None, paris), (None, muted), ("a" * 64, NO_RULES), ("a" * 64, paris)]
    answers = [begin(engine, only(release), QUESTION, GREEDY, rules=rules) for release, rules in asked]
    texts = [heard.text for heard in answers]
    assert texts[0] == say(engine, None) == "The capital of France is Paris."
    assert (texts[1], answers[1].end) == ("The capital of France is Paris", "stop")
    assert "Paris" not in texts[2]
    assert "capital" not in texts[2]
    assert texts[3] == say(engine, "a" * 64)
    assert texts[4] == (texts[3].partition("Paris")[0] + "Paris" if "Paris" in texts[3] else texts[3])
