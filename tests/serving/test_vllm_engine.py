"""vLLM as a child, against a double of its routes: vLLM itself needs CUDA. What is asked, what comes back, what a death does."""

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_contract import Hearing, begin, say

from core.answering import AnswerRules
from core.errors import LoradError
from serving.engines import vllm_process
from serving.engines.port import AdapterError, Ask, Part, PromptError, Sampling, only
from serving.engines.vllm import VllmEngine
from serving.engines.vllm_process import VllmSettings
from store import codec
from store.bases import BASE, TEMPLATE, TOKENIZER, Base
from store.seals import hash_file, seal

DATA = Path(__file__).parents[1] / "data" / "tiny_base"
DOUBLE = Path(__file__).parent / "vllm_double.py"
A, B = "a" * 64, "b" * 64
DIE, SLOW = 31, 32
SETTINGS = VllmSettings(command=(sys.executable, str(DOUBLE)), context_tokens=200, cuda_graphs=False, quantization="nf4")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    for name in (TOKENIZER, TEMPLATE):
        (folder / name).write_bytes((DATA / name).read_bytes())
    hashes = {"tokenizer_sha256": hash_file(folder / TOKENIZER), "template_sha256": hash_file(folder / TEMPLATE)}
    codec.write(folder / BASE, Base(name="tiny", source="tests", source_sha256="0" * 64, weights=".", eos_token="<|im_end|>", **hashes))
    seal(folder)
    return folder


@pytest.fixture
def engine(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VllmEngine]:
    monkeypatch.setattr(vllm_process, "PAUSES_S", (0.01,))
    monkeypatch.setattr(vllm_process, "LOOK_S", 0.02)
    made = VllmEngine(base, SETTINGS)
    made.open()
    for name in (A, B):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_model.safetensors").write_bytes(b"{}")
        made.load(name, tmp_path / name)
    yield made
    made.close()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def raw(engine: VllmEngine, ids: list[int], monkeypatch: pytest.MonkeyPatch, blend: Any = ()) -> Hearing:
    monkeypatch.setattr(engine._renderer, "prompt", lambda *_: ids)
    return begin(engine, blend)


def test_each_release_is_asked_for_by_its_own_id_with_the_requests_wishes(engine: VllmEngine) -> None:
    wishes = Sampling(temperature=0.5, top_k=7, seed=3, max_tokens=50, logprobs=1)
    for blend, name in (((), "tiny"), (only(A), "aaaaaa"), (only(B), "bbbbbb")):
        heard = begin(engine, blend, sampling=wishes)
        assert heard.text == f"[{name}] temperature=0.5 top_k=7 seed=3"
        assert heard.end == "stop"
        assert heard.generation is not None
        assert (heard.generation.completion_tokens, heard.generation.cached_tokens) == (4, 2)
        told = [chosen for piece in heard.pieces for chosen in piece.tokens]
        assert [chosen.token.logprob for chosen in told] == [-0.5] * 4
        assert told[0].top[0] == told[0].token
    assert begin(engine, (), sampling=Sampling(max_tokens=1)).end == "length"


def test_endings_of_a_profile_become_stops_and_what_cannot_be_kept_is_refused(engine: VllmEngine) -> None:
    assert "stop=['<<END>>']" in say(engine, only(A), sampling=Sampling(max_tokens=9), rules=AnswerRules(end_after=("<<END>>",)))
    for more in ({"rules": AnswerRules(penalties={"<think>": 3.0})}, {"blend": (Part(release=A), Part(release=B))}, {"blend": (Part(release=A, scale=0.5),)}):
        with pytest.raises(PromptError) as caught:
            say(engine, **{"blend": only(A), "sampling": Sampling(max_tokens=3)} | more)
        assert caught.value.code == "ASK_UNSERVED"
    with pytest.raises(PromptError) as caught:
        say(engine, (), sampling=Sampling(max_tokens=500))
    assert caught.value.code == "CONTEXT_LENGTH"


def test_the_probe_reads_log_probabilities_of_a_prompt(engine: VllmEngine) -> None:
    told = [engine.logprobs(blend, (5, 6), (7, 8, 9)) for blend in ((), only(A))]
    assert [len(numbers or ()) for numbers in told] == [3, 3]
    assert told[0] != told[1]


def test_an_adapter_that_vllm_refuses_or_cannot_read_is_not_loaded(engine: VllmEngine, tmp_path: Path) -> None:
    with pytest.raises(AdapterError):
        engine.load("c" * 64, tmp_path / "nowhere")
    assert "c" * 64 not in engine._loaded
    engine.unload(A)
    engine.unload(A)
    with pytest.raises(LoradError):
        say(engine, only(A))


def test_a_cancelled_answer_drops_its_connection(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = raw(engine, [SLOW], monkeypatch)
    assert heard.begun.wait(20)
    assert heard.generation is not None
    heard.generation.cancel()
    assert heard.end == "cancelled"


def test_a_child_that_dies_is_started_again_with_its_adapters(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    child = engine._child._child
    assert child is not None
    heard = raw(engine, [DIE], monkeypatch)
    with pytest.raises(LoradError) as caught:
        _ = heard.text
    assert caught.value.code == "ENGINE_RESTARTS"
    wait_until(lambda: child.poll() is not None and engine._child._ready.is_set() and engine._child._child is not child)
    assert raw(engine, [5], monkeypatch, only(B)).text.startswith("[bbbbbb]")


def test_a_child_that_does_not_come_up_is_said_and_leaves_no_process(base: Path) -> None:
    engine = VllmEngine(base, dataclasses.replace(SETTINGS, command=(sys.executable, "-c", "raise SystemExit(3)")))
    with pytest.raises(LoradError) as caught:
        engine.open()
    assert caught.value.code == "BASE_UNUSABLE"
    engine.close()


def test_closing_ends_the_child_and_raw_text_goes_without_a_template(engine: VllmEngine) -> None:
    heard = Hearing()
    engine.begin(Ask(blend=(), text="Once", sampling=Sampling(max_tokens=1)), heard)
    assert heard.text == "[tiny]"
    child = engine._child._child
    engine.close()
    assert child is not None
    assert child.poll() is not None
