"""The engine llamacpp on a tiny base: the engine contract, and what is llama.cpp's own."""

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("xllamacpp")
pytest.importorskip("torch")

from engine_contract import RAIN, Case, EngineContract, begin, say
from inference_box import Recipe, World
from tiny_llama import make_gguf_adapter, make_gguf_base, open_llama

from core.answering import AnswerRules
from core.errors import BaseMissingError, LoradError
from rendering.tokens import Renderer
from serving.engines.gguf_files import context_of
from serving.engines.llamacpp import LlamaCppEngine, LlamaOptions
from serving.engines.port import AdapterError, Blend, Part, PromptError, Sampling, only
from serving.probe import probe
from store.bases import gguf_of, read_base
from store.encryption import encrypt_weights, read_key

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

A, B = "a" * 64, "b" * 64
EXACT = Sampling(temperature=0, repetition_penalty=1, max_tokens=8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("llama")
    base = make_gguf_base(root)
    make_gguf_adapter(base, root / A, seed=1)
    make_gguf_adapter(base, root / B, seed=2, r=2, target_modules=["q_proj", "down_proj"])
    broken = shutil.copytree(root / A, root / "broken")
    (broken / "adapter.gguf").write_bytes(b"GGUF torn")
    return root


class TestLlamaCpp(EngineContract):
    @pytest.fixture
    def case(self, folders: Path) -> Iterator[Case]:
        engine = open_llama(folders / "tiny")
        yield Case(engine=engine, adapters={A: folders / A, B: folders / B}, broken=folders / "broken")
        engine.close()


@pytest.fixture(scope="module")
def engine(folders: Path) -> Iterator[LlamaCppEngine]:
    """With both adapters loaded; the tests that share it change nothing."""
    made = open_llama(folders / "tiny")
    for release in (A, B):
        made.load(release, folders / release)
    yield made
    made.close()


# The same numbers as elsewhere


def test_its_log_probabilities_are_those_of_transformers_and_peft(engine: LlamaCppEngine, folders: Path) -> None:
    from tiny_torch import open_engine

    torch_engine = open_engine(folders / "tiny")
    prompt, ids = tuple(range(5, 25)), (8, 2, 9, 40)  # 2 ends a turn: it must not end the probe
    for release in (A, B):
        torch_engine.load(release, folders / release)
    blends = ((), only(A), only(B), (Part(release=A, scale=0.5), Part(release=B, scale=0.25)))
    wanted = [torch_engine.logprobs(blend, prompt, ids) for blend in blends]
    for blend, numbers in zip(blends, wanted, strict=True):
        assert numbers is not None
        assert engine.logprobs(blend, prompt, ids) == pytest.approx(numbers, abs=0.25), "torch computes in bf16 where the CPU has it"
        others = [other for other in wanted if other is not numbers]
        assert min(max(abs(one - two) for one, two in zip(numbers, other or (), strict=True)) for other in others) > 0.5, "the blends differ by more"
    torch_engine.close()


def test_a_token_that_is_a_part_of_a_character_has_its_log_probability_too(engine: LlamaCppEngine, folders: Path) -> None:
    from tiny_torch import open_engine

    ids = Renderer.load(folders / "tiny").tokenizer.encode("é😀你", add_special_tokens=False).ids
    assert len(ids) > 3, "some are parts of a character"
    torch_engine = open_engine(folders / "tiny")
    assert engine.logprobs((), tuple(range(5, 25)), ids) == pytest.approx(torch_engine.logprobs((), tuple(range(5, 25)), tuple(ids)), abs=0.25)
    torch_engine.close()


def test_the_base_beside_loaded_adapters_is_the_base_alone(engine: LlamaCppEngine, folders: Path) -> None:
    alone = open_llama(folders / "tiny")
    assert engine.logprobs((), (5, 6, 7), (8, 9)) == alone.logprobs((), (5, 6, 7), (8, 9))
    alone.close()


def test_a_prompt_read_through_one_adapter_is_not_used_again_for_another(folders: Path) -> None:
    engine = open_llama(folders / "tiny", streams=1)  # every answer takes the same slot
    for release in (A, B):
        engine.load(release, folders / release)
    first, again, other = (begin(engine, only(release), sampling=EXACT) for release in (A, A, B))
    assert first.text == again.text != other.text
    cached = [heard.generation.cached_tokens for heard in (first, again, other) if heard.generation]
    assert cached[0] == 0 == cached[2]
    assert cached[1] > 0
    cold = open_llama(folders / "tiny", streams=1)
    cold.load(B, folders / B)
    assert say(cold, only(B), sampling=EXACT) == other.text
    engine.close()
    cold.close()


# What a request asks for


def test_log_probabilities_come_with_the_tokens_and_the_likeliest_beside_them(engine: LlamaCppEngine) -> None:
    heard = begin(engine, (), sampling=Sampling(temperature=0, repetition_penalty=1, max_tokens=4, logprobs=2))
    assert heard.text == b"".join(chosen.token.raw for piece in heard.pieces for chosen in piece.tokens).decode()
    tokens = [chosen for piece in heard.pieces for chosen in piece.tokens]
    assert len(tokens) == 4
    assert all(len(chosen.top) == 2 and chosen.top[0].logprob == chosen.token.logprob for chosen in tokens), "greedy takes the likeliest"


def test_an_answer_follows_its_schema_and_a_schema_that_none_can_follow_is_refused(engine: LlamaCppEngine) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    text = say(engine, (), sampling=Sampling(temperature=0, max_tokens=60), schema=schema)
    assert json.loads(text) in ({"a": 1}, {"a": 2})
    for wrong in ({"type": "nonsense"}, {"type": "string", "pattern": "(("}):
        with pytest.raises(PromptError) as caught:
            begin(engine, (), schema=wrong)
        assert caught.value.code == "SCHEMA_UNUSABLE"


def test_a_disliked_text_is_not_said_though_its_beginning_is(engine: LlamaCppEngine) -> None:
    greedy = say(engine, (), sampling=Sampling(temperature=0, repetition_penalty=1, max_tokens=12))
    assert len(greedy) > 6
    disliked = greedy[3:6]  # begins and ends within tokens: found only as it is said
    heard = begin(engine, (), sampling=Sampling(temperature=0, repetition_penalty=1, max_tokens=12), rules=AnswerRules(penalties={disliked: 60.0}))
    assert disliked not in heard.text
    assert heard.text[:3] == greedy[:3]
    assert heard.generation is not None
    assert heard.generation.completion_tokens <= 12
    assert not any(piece.tokens for piece in heard.pieces), "they were asked for by the rules, not by the request"


def test_an_answer_ends_behind_the_text_that_its_rules_name(engine: LlamaCppEngine) -> None:
    greedy = say(engine, (), sampling=EXACT)
    heard = begin(engine, (), sampling=EXACT, rules=AnswerRules(end_after=(greedy[:2],)))
    assert heard.text == greedy[:2]
    assert heard.end == "stop"


# What it refuses, and what it leaves behind


@pytest.mark.parametrize(("spoil", "code"), [("missing", "GGUF_MISSING"), ("nan", "ADAPTER_NAN"), ("torn", "ADAPTER_LOAD")])
def test_an_adapter_that_is_not_whole_is_refused_by_its_code(spoil: str, code: str, engine: LlamaCppEngine, folders: Path, tmp_path: Path) -> None:
    bad = shutil.copytree(folders / A, tmp_path / "bad")
    raw = bytearray((bad / "adapter.gguf").read_bytes())
    if spoil == "missing":
        (bad / "adapter.gguf").unlink()
    elif spoil == "nan":
        raw[-4:] = b"\xff\xff\xff\xff"
        (bad / "adapter.gguf").write_bytes(raw)
    else:
        (bad / "adapter.gguf").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(AdapterError) as caught:
        engine.load("c" * 64, bad)
    assert caught.value.code == code


def test_an_adapter_that_changed_after_its_load_is_not_loaded_beside_the_next(folders: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(folders / A, tmp_path / "mine")
    engine = open_llama(folders / "tiny", streams=1)
    engine.load(A, mine)
    before = say(engine, only(A))
    shutil.copyfile(folders / B / "adapter.gguf", mine / "adapter.gguf")
    with pytest.raises(AdapterError) as caught:
        engine.load(B, folders / B)
    assert caught.value.code == "RELEASE_BYTES"
    assert say(engine, only(A)) == before, "what answers is what was verified"
    engine.close()


def test_an_encrypted_adapter_is_served_with_its_key_only(engine: LlamaCppEngine, folders: Path, tmp_path: Path) -> None:
    secret = shutil.copytree(folders / A, tmp_path / "secret")
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    key.chmod(0o600)
    encrypt_weights(secret, read_key(str(key)))
    assert sorted(path.suffix for path in secret.iterdir() if "adapter" in path.name and "config" not in path.name) == [".enc", ".enc"]
    with pytest.raises(AdapterError) as caught:
        engine.load("d" * 64, secret)
    assert caught.value.code == "ENCRYPTION_KEY_MISSING"
    opened = open_llama(folders / "tiny", key_file=str(key))
    opened.load(A, secret)
    assert say(opened, only(A)) == say(engine, only(A))
    opened.close()


def test_a_base_without_its_file_or_with_another_is_refused(folders: Path, tmp_path: Path) -> None:
    shutil.copytree(folders / "tiny", tmp_path / "tiny")
    engine = LlamaCppEngine(tmp_path / "tiny", LlamaOptions())
    with pytest.raises(BaseMissingError):
        engine.open()
    shutil.copytree(folders / "gguf", tmp_path / "gguf")
    model = gguf_of(tmp_path / "tiny")
    assert model is not None
    assert context_of(model) == 512
    with open(model, "ab") as file:
        file.write(b"more")
    with pytest.raises(LoradError) as caught:
        engine.open()
    assert caught.value.code == "BASE_UNUSABLE"
    engine.close()


def test_llama_cpp_opens_no_port_and_leaves_no_files(folders: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import psutil

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    me = psutil.Process()
    before = {connection.laddr for connection in me.net_connections("inet")}
    engine = open_llama(folders / "tiny")
    folder = next(tmp_path.iterdir())
    assert {connection.laddr for connection in me.net_connections("inet")} == before
    assert folder.stat().st_mode & 0o077 == 0, "its socket is for nobody else"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(folder / "llama.sock"))
    engine.close()
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_answered_is_closed_all_the_same(folders: Path) -> None:
    """On one core its loop often starts after the stop, which llama.cpp then forgets."""
    code = f"""
import os
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
from pathlib import Path
from serving.engines.llamacpp import LlamaCppEngine, LlamaOptions
for _ in range(20):
    engine = LlamaCppEngine(Path({str(folders / "tiny")!r}), LlamaOptions(threads=1, streams=1))
    engine.open()
    engine.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr


def test_a_serving_box_needs_no_torch(folders: Path) -> None:
    code = f"""
import sys
for name in ("torch", "transformers", "peft", "safetensors"):
    sys.modules[name] = None
import threading
from pathlib import Path
from rendering.specs import Message
from serving.engines.llamacpp import LlamaCppEngine, LlamaOptions
from serving.engines.port import Ask, only
engine = LlamaCppEngine(Path({str(folders / "tiny")!r}), LlamaOptions(threads=1, streams=1, max_new_tokens=4))
engine.open()
engine.load("a" * 64, Path({str(folders / A)!r}))
ended = threading.Event()
engine.begin(Ask(blend=only("a" * 64), messages=(Message("user", {RAIN!r}),)), lambda piece: ended.set() if piece.end else None)
assert ended.wait(20)
engine.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr


def test_a_swap_lets_what_runs_end_on_the_object_that_it_began_on(folders: Path) -> None:
    engine = open_llama(folders / "tiny", streams=2)
    engine.load(A, folders / A)
    long: dict[str, Any] = {"sampling": Sampling(temperature=0, repetition_penalty=1, max_tokens=120, logit_bias={2: -100.0})}
    alone = say(engine, only(A), **long)
    heard = begin(engine, only(A), **long)
    assert heard.begun.wait(20)
    engine.load(B, folders / B)
    engine.unload(A)
    assert heard.text == alone
    assert say(engine, only(B)) != say(engine, ())
    engine.close()


# On a box


class Muffled(LlamaCppEngine):
    """It loads adapters, and computes with a share of their strength."""

    share = 0.0

    def logprobs(self, blend: Blend, prompt_ids: Sequence[int], ids: Sequence[int]) -> list[float] | None:
        return super().logprobs(tuple(Part(release=part.release, scale=self.share) for part in blend), prompt_ids, ids)


def write_probe(folder: Path, base: Path, numbers_of: Path) -> None:
    """probe.jsonl as the training box computes it, by transformers and PEFT; `numbers_of` is the adapter that was ranked."""
    from tiny_torch import open_engine

    engine = open_engine(base)
    engine.load(A, numbers_of)
    prompt, ids = tuple(range(5, 15)), (8, 9, 40)
    sides = {"base": (), "adapter": only(A)}
    line = {name: {"ids": ids, "logprobs": engine.logprobs(blend, prompt, ids)} for name, blend in sides.items()}
    engine.close()
    (folder / "probe.jsonl").write_text(json.dumps({"prompt": "Hi", "prompt_ids": prompt, **line}) + "\n")


def recipe(folders: Path, holds: str, ranked: str, version: int) -> Recipe:
    def fill(folder: Path) -> None:
        for path in (folders / holds).iterdir():
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
        write_probe(folder, folders / "tiny", folders / ranked)

    base = read_base(folders / "tiny")
    hashes = {"base": base.source_sha256, "tokenizer": base.tokenizer_sha256, "template": base.template_sha256}
    return Recipe(backend="peft", version=version, fill=fill, **hashes)


def test_a_release_goes_live_by_its_probe_and_one_with_another_adapter_inside_does_not(folders: Path, tmp_path: Path) -> None:
    world, engine = World(tmp_path), LlamaCppEngine(folders / "tiny", LlamaOptions(threads=1, streams=2))
    agent = world.agent(engine)
    right = world.pack(recipe(folders, holds=A, ranked=A, version=1))
    world.send(right)
    world.wish(right, None)
    agent.tick()
    assert world.live() == right, world.state()
    before = say(engine, only(right))
    wrong = world.pack(recipe(folders, holds=B, ranked=A, version=2))
    world.send(wrong)
    world.wish(wrong, right)
    agent.tick()
    assert (world.live(), world.state().code) == (right, "PROBE_FAILED")
    assert say(engine, only(right)) == before != say(engine, ())
    engine.close()


def test_an_engine_that_leaves_an_adapter_out_is_found_though_the_adapter_is_weak(folders: Path, tmp_path: Path) -> None:
    engine = Muffled(folders / "tiny", LlamaOptions(threads=1, streams=1))
    engine.open()
    engine.load(A, folders / A)
    prompt, ids = tuple(range(5, 15)), (8, 9, 40, 7, 12, 33, 51, 20)
    engine.share = weak = 0.004
    line = {name: {"ids": ids, "logprobs": engine.logprobs(blend, prompt, ids) or []} for name, blend in (("base", ()), ("adapter", only(A)))}
    for side in line.values():  # the training box computes a little differently
        side["logprobs"] = [number + 0.01 * (-1) ** place for place, number in enumerate(side["logprobs"])]
    (tmp_path / "probe.jsonl").write_text(json.dumps({"prompt": "Hi", "prompt_ids": prompt, **line}) + "\n")
    probe(engine, A, tmp_path)
    engine.share = 0.0
    changes = [abs(one - two) for one, two in zip(line["base"]["logprobs"], line["adapter"]["logprobs"], strict=True)]
    assert sum(changes) / len(changes) < 0.05, "within the allowance: three times 0.01, and 0.02"
    with pytest.raises(AdapterError) as caught:
        probe(engine, A, tmp_path)
    assert (caught.value.code, "0%" in caught.value.what) == ("ADAPTER_NOT_APPLIED", True)
    engine.share = weak / 4
    with pytest.raises(AdapterError):
        probe(engine, A, tmp_path)
    engine.close()
