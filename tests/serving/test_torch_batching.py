"""What the torch engine does beyond the contract: caches, blends, folding, choosing, JSON; on a tiny random base."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_contract import DEADLINE_S, RAIN, begin, say

pytest.importorskip("torch")

import torch
from safetensors.torch import load_file, save_file
from tiny_torch import make_adapter, make_base, open_engine
from transformers import RepetitionPenaltyLogitsProcessor

from core.errors import LoradError
from rendering.specs import Message
from serving.engines import merging
from serving.engines.choosing import Chooser
from serving.engines.port import Ask, Part, PromptError, Sampling, only
from serving.engines.prefixes import PIECE_TOKENS
from serving.engines.transformers_peft import TransformersEngine

A, B = "a" * 64, "b" * 64
LONG = "All the rain of the world falls into the sea . " * 12
TOLD = Sampling(temperature=0, repetition_penalty=1, max_tokens=12, logprobs=3, logit_bias={2: -100.0})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("torch")
    base = make_base(root / "base")
    make_adapter(base, root / A, seed=1)
    make_adapter(base, root / B, seed=2, r=2, target_modules=["q_proj", "down_proj"])
    return root


@pytest.fixture
def engine(folders: Path) -> Iterator[TransformersEngine]:
    made = open_engine(folders / "base", streams=4, prefix_mb=16)
    for name in (A, B):
        made.load(name, folders / name)
    yield made
    made.close()


def numbers(engine: TransformersEngine, blend: Any, text: str = RAIN) -> list[float]:
    """Log-probabilities of a greedy answer, as told with it."""
    heard = begin(engine, blend, text, TOLD)
    assert heard.text
    return [chosen.token.logprob for piece in heard.pieces for chosen in piece.tokens]


# --- prompts that begin alike


def test_a_beginning_that_was_read_before_gives_bit_for_bit_the_cold_answer(engine: TransformersEngine) -> None:
    cold = begin(engine, only(A), LONG, TOLD)
    assert cold.ended.wait(DEADLINE_S)
    warm = begin(engine, only(A), LONG, TOLD)
    assert cold.text == warm.text
    assert cold.generation is not None
    assert warm.generation is not None
    assert cold.generation.cached_tokens == 0
    assert warm.generation.cached_tokens == (warm.generation.prompt_tokens - 1) // PIECE_TOKENS * PIECE_TOKENS > 0
    told = [[chosen.token.logprob for piece in heard.pieces for chosen in piece.tokens] for heard in (cold, warm)]
    assert told[0] == told[1]


def test_no_beginning_crosses_blends_or_outlives_its_release(engine: TransformersEngine, folders: Path) -> None:
    say(engine, only(A), LONG)
    half = (Part(release=A, scale=0.5),)
    for blend in ((), only(B), half):
        heard = begin(engine, blend, LONG)
        assert heard.text
        assert heard.generation is not None
        assert heard.generation.cached_tokens == 0
    engine.unload(A)
    engine.load(A, folders / A)
    again = begin(engine, only(A), LONG)
    assert again.text
    assert again.generation is not None
    assert again.generation.cached_tokens == 0


def test_beginnings_keep_to_their_budget_and_the_shared_first_piece_leaves_last(engine: TransformersEngine) -> None:
    say(engine, (), LONG)
    one = next(iter(engine._prefixes._pieces.values())).size_bytes
    engine._prefixes._budget = 3 * one
    for number in range(4):
        say(engine, (), f"{number} {LONG}")
    assert engine._prefixes.size_bytes == sum(read.size_bytes for read in engine._prefixes._pieces.values()) <= 3 * one
    again = begin(engine, (), f"3 {LONG}")
    assert again.text
    assert again.generation is not None
    assert again.generation.cached_tokens > 0, "the first pieces of the last prompt stayed"


# --- blends


def test_a_composed_answer_is_that_of_the_summed_weights(engine: TransformersEngine, folders: Path) -> None:
    blend = (Part(release=A, scale=0.5), Part(release=B, scale=-0.25))
    plain = engine.logprobs(blend, (5, 6, 7), (8, 9, 10))
    for linear in engine._model.adapters.linears:
        linear.merged_OI = merging._fold(linear, blend)
    summed = engine._model.teach(blend, (5, 6, 7), (8, 9, 10), merged=True)
    assert plain == pytest.approx(summed, abs=0.05)
    assert plain != pytest.approx(engine.logprobs(only(A), (5, 6, 7), (8, 9, 10)), abs=0.05)


def test_told_log_probabilities_are_those_of_the_model_and_the_same_in_a_mixed_batch(engine: TransformersEngine) -> None:
    blends = [(), only(A), only(B), (Part(release=A, scale=0.5), Part(release=B))]
    alone = [numbers(engine, blend) for blend in blends]
    together = [begin(engine, blend, RAIN, TOLD) for blend in blends]
    for heard, expected in zip(together, alone, strict=True):
        assert heard.text
        assert [chosen.token.logprob for piece in heard.pieces for chosen in piece.tokens] == expected, "to the bit"
        assert all(chosen.top[0].logprob >= chosen.token.logprob and len(chosen.top) == 3 for piece in heard.pieces for chosen in piece.tokens)


def test_an_adapter_that_overflows_ends_its_own_answers_alone(engine: TransformersEngine, folders: Path, tmp_path: Path) -> None:
    bad = shutil.copytree(folders / A, tmp_path / "bad")
    tensors = load_file(bad / "adapter_model.safetensors")
    save_file({name: tensor * 1e30 for name, tensor in tensors.items()}, bad / "adapter_model.safetensors")
    engine.load("c" * 64, bad)
    good = [say(engine, blend, sampling=TOLD) for blend in ((), only(B))]
    heard = [begin(engine, blend, sampling=TOLD) for blend in ((), only("c" * 64), only(B), only("c" * 64))]
    assert [heard[0].text, heard[2].text] == good
    for place in (1, 3):
        with pytest.raises(LoradError) as caught:
            _ = heard[place].text
        assert caught.value.code == "LOGITS_NAN"


def test_adapters_on_embeddings_are_given_one_blend_at_a_time(engine: TransformersEngine, folders: Path, tmp_path: Path) -> None:
    make_adapter(folders / "base", tmp_path / "wide", seed=4, target_modules=["embed_tokens", "v_proj"])
    engine.load("d" * 64, tmp_path / "wide")
    blends = [(), only("d" * 64), only(A), (Part(release="d" * 64, scale=0.5),)]
    alone = [say(engine, blend) for blend in blends]
    assert len(set(alone)) == 4
    assert [heard.text for heard in [begin(engine, blend) for blend in blends]] == alone
    engine.unload("d" * 64)
    assert [say(engine, blend) for blend in ((), only(A))] == [alone[0], alone[2]]


# --- folding


def folded(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch, floor: float) -> bool:
    monkeypatch.setattr(merging, "AFTER_TOKENS", 10)
    monkeypatch.setattr(merging, "FLOOR", floor)
    for _ in range(4):
        say(engine, only(A), sampling=TOLD)
    return engine._merging.holds(only(A))


def test_a_blend_that_takes_all_traffic_is_folded_and_answers_alike(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    before = numbers(engine, only(A))
    assert folded(engine, monkeypatch, floor=0.2)
    assert any(linear.merged_OI is not None for linear in engine._model.adapters.linears)
    assert numbers(engine, only(A)) == pytest.approx(before, abs=0.2)
    base = say(engine, ())
    assert not engine._merging.holds(only(A)), "another blend came"
    assert base == say(engine, ())
    assert numbers(engine, only(A)) == before


def test_a_blend_that_folding_moves_too_far_is_served_unfolded(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    before = numbers(engine, only(A))
    assert not folded(engine, monkeypatch, floor=-1)
    assert numbers(engine, only(A)) == before
    assert only(A) in engine._merging._refused


def test_unloading_lets_folded_weights_go(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folded(engine, monkeypatch, floor=0.2)
    engine.unload(A)
    assert all(linear.merged_OI is None for linear in engine._model.adapters.linears)


# --- choosing


def test_penalties_are_those_of_transformers_and_openai() -> None:
    torch.manual_seed(3)
    logits_V = torch.randn(20)
    chooser = Chooser(Sampling(temperature=0, repetition_penalty=1.3), [4, 5])
    assert torch.equal(chooser.changed(logits_V), RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([[4, 5]]), logits_V[None])[0])
    counting = Chooser(Sampling(temperature=0, repetition_penalty=1, frequency_penalty=0.5, presence_penalty=0.25, logit_bias={7: 50.0}), [4, 5])
    for _ in range(2):
        assert counting.choose(counting.changed(logits_V).index_fill(0, torch.tensor([9]), 99.0)) == 9
    away_V = counting.changed(logits_V) - logits_V
    assert away_V[9] == pytest.approx(-0.5 * 2 - 0.25)
    assert away_V[7] == pytest.approx(50)
    assert away_V[[4, 5]].tolist() == [0, 0], "the prompt counts for the repetition penalty only"


def test_top_k_and_top_p_leave_only_the_likeliest() -> None:
    logits_V = torch.tensor([0.0, 3.0, 2.9, -1.0])
    for wishes, wanted in (({"top_k": 1, "top_p": 1.0}, {1}), ({"top_k": 0, "top_p": 0.4}, {1}), ({"top_k": 2, "top_p": 1.0}, {1, 2})):
        chooser = Chooser(Sampling(temperature=2, repetition_penalty=1, seed=1, **wishes), [])
        assert {chooser.choose(logits_V) for _ in range(60)} == wanted


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 5}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def test_an_answer_by_a_schema_is_that_json_whatever_the_model_would_say(engine: TransformersEngine) -> None:
    wishes = Sampling(temperature=1.5, top_p=1, top_k=0, max_tokens=200, seed=4)
    heard = [begin(engine, blend, sampling=wishes, schema=SCHEMA) for blend in ((), only(A), ())]
    for one in heard:
        answer = json.loads(one.text)
        assert set(answer) == {"name", "age"}
        assert 0 <= answer["age"] <= 99
        assert one.end == "stop"
    with pytest.raises(PromptError) as caught:
        begin(engine, (), schema={"type": "no such type"})
    assert caught.value.code == "SCHEMA_UNUSABLE"


def test_an_empty_raw_prompt_is_refused(engine: TransformersEngine) -> None:
    with pytest.raises(PromptError) as caught:
        engine.begin(Ask(blend=(), text=""), lambda piece: None)
    assert caught.value.code == "PROMPT_EMPTY"


# --- other architectures

DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
KINDS: dict[str, tuple[dict[str, Any], bool]] = {
    "mistral": ({"sliding_window": 8}, True),
    "gemma3_text": ({"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}, True),
    "qwen3_next": (DELTA | {"layer_types": ["linear_attention", "full_attention"], "num_experts": 0}, False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_bases_with_windows_share_a_step_and_bases_with_a_state_take_turns(kind: str, tmp_path: Path) -> None:
    changes, together = KINDS[kind]
    engine = open_engine(make_base(tmp_path / kind, kind, **changes), streams=3)
    assert engine._batch is not None
    assert engine._batch._floor.together is together
    texts = [RAIN, LONG, "Hi"]
    alone = [say(engine, (), text, TOLD) for text in texts]
    ids = engine._renderer.prompt([Message("user", LONG)])
    assert alone[1] == engine._renderer.decode(greedy(engine, ids))
    assert [heard.text for heard in [begin(engine, (), text, TOLD) for text in texts]] == alone
    engine.close()


def greedy(engine: TransformersEngine, prompt_ids: list[int]) -> list[int]:
    """What transformers' own loop says, with the end token forbidden as in TOLD."""
    ids_BT = torch.tensor([prompt_ids])
    model = engine._model._model
    made = model.generate(
        input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), max_new_tokens=12, do_sample=False, suppress_tokens=[2], eos_token_id=299, pad_token_id=0
    )
    return [int(token) for token in made[0, len(prompt_ids) :]]
