"""Suites and answers of a score child, on a tiny model and with the stub."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from trainer_cases import progress_of, results_of

from core.config import Config
from core.errors import ChildError
from core.tasks import RowsOf, ScoreModel, ScoreTask, SuiteOf, TrainTask
from rendering.suites import of_names
from trainer.backends.peft import PeftBackend
from trainer.backends.stub import StubBackend
from trainer.run import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")
RunIn = Callable[..., RunFolder]
BASE = ScoreModel(id="base", adapter=None)


def lines_of(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    header, *rows = (json.loads(line) for line in path.read_text().splitlines())
    return header, rows


@pytest.fixture
def mine(tmp_path: Path) -> tuple[SuiteOf, ...]:
    """One suite by likelihood, one that is written."""
    folder = tmp_path / "suites"
    folder.mkdir()
    choices = [{"id": f"c{place}", "prompt": f"Say {place}", "choices": [str(place), "x"], "right": 0} for place in range(5)]
    written = [{"suite": "written", "max_new_tokens": 4}]
    written += [{"id": f"w{place}", "prompt": "Say it " * (1 + place % 3), "check": [{"kind": "words", "most": 3}]} for place in range(70)]
    for name, lines in (("choices", choices), ("written", written)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return of_names(["choices", "written"], folder, on_gpu=False)


@pytest.fixture
def score(tiny_base: Path, tiny_config: Config, train_drop: RowsOf, mine: tuple[SuiteOf, ...], tmp_path: Path) -> ScoreTask:
    settings = tiny_config.model_dump(mode="json") | {"ranking": {"max_new_tokens": 6}}
    rows = (train_drop,)
    return ScoreTask(
        job="j", backend="peft", base=str(tiny_base), rows=rows, split="gate", models=(BASE,), settings=settings, suites=mine, cache=str(tmp_path / "kept")
    )


def trained(score: ScoreTask, run_in: RunIn) -> ScoreModel:
    run = run_in("00-train")
    PeftBackend().train(TrainTask(job="j", backend="peft", base=score.base, rows=score.rows, settings=score.settings), run)
    last = results_of(run).candidates[-1]
    return ScoreModel(id=last.id, adapter=str(run.root / last.path))


def test_each_item_has_a_value_and_the_header_says_under_what(score: ScoreTask, run_in: RunIn) -> None:
    run = run_in("01-score")
    PeftBackend().score(score, run)
    header, rows = lines_of(run.root / run.scores["suite/choices/base"])
    assert (header["model"], header["split"], header["suite"]["items"], header["suite"]["generated"]) == ("base", "suite/choices", 5, False)
    assert header["suite"]["sha256"] == score.suites[0].sha256
    assert {"template", "engine", "dtype", "decoding", "seed"} <= set(header["settings"])
    assert {row["item"] for row in rows} == {f"c{place}" for place in range(5)}
    assert all(0 <= row["value"] <= 1 for row in rows)
    assert any(0 < row["value"] < 1 for row in rows)
    header, rows = lines_of(run.root / run.scores["suite/written/base"])
    assert (header["settings"]["decoding"], header["settings"]["max_new_tokens"], len(rows)) == ("greedy", 4, 70)
    assert {row["value"] for row in rows} <= {0.0, 1.0}


def test_the_value_by_likelihood_is_what_plain_passes_give(score: ScoreTask, run_in: RunIn) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from rendering.specs import Message
    from rendering.tokens import Renderer
    from store.bases import weights_folder
    from trainer.backends.model import choose_place

    run = run_in("01-score")
    PeftBackend().score(replace(score, suites=score.suites[:1]), run)
    _, rows = lines_of(run.root / run.scores["suite/choices/base"])
    model = AutoModelForCausalLM.from_pretrained(weights_folder(Path(score.base)), dtype=choose_place().dtype).eval()
    renderer = Renderer.load(Path(score.base))
    for row in rows:
        logps = []
        for choice in (row["item"][1:], "x"):
            encoding = renderer.encode([Message("user", f"Say {row['item'][1:]}"), Message("assistant", choice)])
            with torch.no_grad():
                logits = model(torch.tensor([encoding.ids])).logits[0].float().log_softmax(-1)
            logps.append(sum(float(logits[place - 1, id]) for place, id in enumerate(encoding.ids) if encoding.supervised[place]))
        assert row["value"] == pytest.approx(float(torch.tensor(logps).softmax(0)[0]), rel=0.05)


def test_a_result_is_kept_by_content_and_asked_again_for_another_adapter_or_suite(score: ScoreTask, run_in: RunIn, tmp_path: Path) -> None:
    first, again, other = run_in("01-score"), run_in("02-score"), run_in("03-score")
    adapter = trained(score, run_in)
    PeftBackend().score(score, first)
    PeftBackend().score(score, again)
    PeftBackend().score(replace(score, models=(adapter,)), other)
    asked = [len([line for line in progress_of(run, "suite") if "suite" in line]) for run in (first, again, other)]
    assert asked == [2, 0, 2]
    name = first.scores["suite/written/base"]
    assert (first.root / name).read_text() == (again.root / name).read_text()
    kept = sorted((tmp_path / "kept").iterdir())
    assert len(kept) == 4
    for path in kept:
        path.write_text(path.read_text().replace("0.", "0.1", 1)[:-3])  # damaged: as good as none
    PeftBackend().score(score, run_in("04-score"))


def test_a_changed_or_missing_suite_ends_the_child_with_what_to_do(score: ScoreTask, run_in: RunIn) -> None:
    path = Path(score.suites[0].path)
    path.write_text(path.read_text().replace("Say 1", "Say one"))
    for backend in (PeftBackend(), StubBackend()):
        with pytest.raises(ChildError, match="was changed"):
            backend.score(score, run_in(f"changed-{type(backend).__name__}"))
    path.unlink()
    with pytest.raises(ChildError, match="cannot be read"):
        PeftBackend().score(score, run_in("gone"))


def test_answers_are_those_of_plain_greedy_decoding_and_lie_in_samples_alone(score: ScoreTask, run_in: RunIn) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from rendering.rows import read_rows
    from rendering.tokens import Renderer
    from store.bases import weights_folder
    from trainer.backends.model import choose_place

    run = run_in("01-score")
    PeftBackend().score(replace(score, suites=(), answers=3), run)
    header, rows = lines_of(run.root / run.scores["answers/gate/base"])
    assert run.scores["answers/gate/base"] == "samples/answers-gate-base.jsonl"
    assert (header["split"], header["settings"]["decoding"]) == ("answers/gate", "greedy")
    assert [row["group"] for row in rows] == sorted(row.group for row in read_rows(score.rows) if row.split == "gate")[:3]
    model = AutoModelForCausalLM.from_pretrained(weights_folder(Path(score.base)), dtype=choose_place().dtype).eval()
    renderer = Renderer.load(Path(score.base))
    by_line = {row.line: row for row in read_rows(score.rows)}
    for row in rows:
        ids = torch.tensor([renderer.prompt(by_line[row["line"]].messages[:-1])])
        made = model.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0)[0, ids.shape[1] :].tolist()
        text = renderer.decode(made[:-1] if made[-1] == renderer.eos_id else made)
        assert (row["answer"], row["tokens"]) == (text.strip(), len(made))
    assert not any("answer" in path.name for path in (run.root / "scores").iterdir())


def test_a_candidate_that_is_plainly_worse_is_stopped_and_that_result_is_not_kept(
    score: ScoreTask, run_in: RunIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from trainer.backends import examining

    adapter = replace(trained(score, run_in), id="cand")
    run, now = run_in("01-score"), {"model": ""}
    real = examining.Examining.examine

    def examine(self: Any, model: ScoreModel, network: Any, rows: Any) -> None:
        now["model"] = model.id
        real(self, model, network, rows)

    monkeypatch.setattr(examining.Examining, "examine", examine)
    monkeypatch.setattr(examining, "value_of", lambda item, answer: float(now["model"] == "base"))
    PeftBackend().score(replace(score, models=(adapter, BASE), probe="cand", suites=score.suites[1:]), run)
    header, rows = lines_of(run.root / run.scores["suite/written/cand"])
    assert header["suite"]["items"] == 70
    assert (header["stopping"]["against"], header["stopping"]["outcome"]) == ("base", "worse")
    assert len(rows) == header["stopping"]["items"] < 70
    assert "sequential test" in header["stopping"]["rule"]
    assert len(lines_of(run.root / run.scores["suite/written/base"])[1]) == 70
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_out_of_memory_while_answers_are_written_goes_on_with_fewer_at_once(score: ScoreTask, run_in: RunIn, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.backends import generating

    plain, short = run_in("01-score"), run_in("02-score")
    asked = replace(score, suites=(), answers=4)
    PeftBackend().score(asked, plain)
    real = generating.Generating._batch

    def batch(self: Any, model: Any, prompts: Any) -> Any:
        if len(prompts) > 2:
            raise MemoryError
        return real(self, model, prompts)

    monkeypatch.setattr(generating.Generating, "_batch", batch)
    PeftBackend().score(asked, short)
    texts = [[row["answer"] for row in lines_of(run.root / run.scores["answers/gate/base"])[1]] for run in (plain, short)]
    assert texts[0] == texts[1]


def test_the_rules_of_a_profile_hold_for_answers(score: ScoreTask, run_in: RunIn) -> None:
    from core.answering import AnswerRules
    from rendering.specs import Message
    from rendering.tokens import Renderer
    from trainer.backends.generating import Generating, Prompt
    from trainer.backends.model import choose_place, load_base

    model, renderer = load_base(Path(score.base), choose_place()), Renderer.load(Path(score.base))
    prompt = Prompt(renderer.prompt([Message("user", "Say it")]), "Say it", 8)

    def answer(rules: AnswerRules) -> Any:
        ((_, found),) = next(Generating(renderer=renderer, rules=rules, beat=lambda: None).answers(model, [prompt]))
        return found

    free = answer(AnswerRules())
    assert free.text
    letter = free.text[0]
    assert answer(AnswerRules(stops=(letter,))).text == ""
    assert answer(AnswerRules(end_after=(letter,))).text == letter
    assert letter not in answer(AnswerRules(penalties={letter: 1000.0})).text
    assert answer(AnswerRules(answer=r"(?P<answer>.)")).text == letter


def test_the_stub_makes_answers_and_values_up_and_says_so(score: ScoreTask, run_in: RunIn) -> None:
    run = run_in("01-score")
    StubBackend().score(replace(score, backend="stub", base="", answers=3, suites=(*score.suites, SuiteOf(name="lm_eval:x", path="", sha256="0"))), run)
    for key in ("suite/choices/base", "suite/written/base", "suite/lm_eval:x/base", "answers/gate/base"):
        header, rows = lines_of(run.root / run.scores[key])
        assert header["made_up"]
        assert rows


def fake_harness(monkeypatch: pytest.MonkeyPatch, simple_evaluate: Callable[..., Any]) -> None:
    """lm-evaluation-harness as far as its documented door goes; the package itself is not installed where tests run."""
    package, models, huggingface = ModuleType("lm_eval"), ModuleType("lm_eval.models"), ModuleType("lm_eval.models.huggingface")
    package.simple_evaluate = simple_evaluate  # type: ignore[attr-defined]
    huggingface.HFLM = lambda **how: how  # type: ignore[attr-defined]
    for module in (package, models, huggingface):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def test_a_task_of_lm_eval_is_a_suite_where_it_is_installed(score: ScoreTask, run_in: RunIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def simple_evaluate(*, model: Any, tasks: list[str], log_samples: bool, **how: Any) -> dict[str, Any]:
        assert log_samples
        assert tasks == ["arc_easy"]
        assert model["tokenizer"].eos_token == "<|im_end|>"
        assert model["pretrained"].config.model_type == "llama"
        return {"samples": {"arc_easy": [{"doc_id": 0, "acc": 1.0}, {"doc_id": 1, "acc": 0.0}]}}

    fake_harness(monkeypatch, simple_evaluate)
    run = run_in("01-score")
    PeftBackend().score(replace(score, suites=of_names(["lm_eval:arc_easy"], tmp_path, on_gpu=False)), run)
    _, rows = lines_of(run.root / run.scores["suite/lm_eval:arc_easy/base"])
    assert [(row["item"], row["value"]) for row in rows] == [("arc_easy/0", 1.0), ("arc_easy/1", 0.0)]


def test_a_task_of_lm_eval_without_the_package_or_a_usable_metric_says_what_to_do(
    score: ScoreTask, run_in: RunIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = replace(score, suites=of_names(["lm_eval:arc_easy"], tmp_path, on_gpu=False))
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ChildError, match="not installed"):
        PeftBackend().score(asked, run_in("01-score"))
    fake_harness(monkeypatch, lambda **how: {"samples": {"arc_easy": [{"doc_id": 0, "perplexity": 3.0}]}})
    with pytest.raises(ChildError, match="none of the metrics"):
        PeftBackend().score(asked, run_in("02-score"))
