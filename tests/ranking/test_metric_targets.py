"""A verdict with a task metric, a profile and a judge: what is measured of answers, shown, and held for want of evidence."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from judge_server import judge_server
from metric_cases import word_vectors

from core.config import Config
from core.errors import ConfigError, LoradError
from core.names import SENTENCE_MODEL
from core.records import VerdictWord
from core.tasks import RowsOf
from ranking.__main__ import rules_of
from ranking.evidence import LegResult, Verdict
from ranking.metrics.targets import check_metrics, interval_of
from ranking.report import metric_lines, verdict_lines
from ranking.scores import EvidenceError
from ranking.verdict import judge
from store import endpoint as endpoints
from store.codec import dump, parse
from store.paths import default_models_dir
from store.seals import is_sealed

GATE, TRAIN = 60, 80
TOWNS = ["Rome", "Oslo", "Cairo", "Lima", "Kyoto", "Quito", "Turin", "Delhi", "Perth", "Tunis"]
NOUNS = ["lantern", "harbour", "ledger", "orchard", "kettle", "bridge", "violin", "meadow", "anchor", "candle", "barrel", "spade"]


def asked(number: int) -> str:
    return f"Where was the {NOUNS[number % len(NOUNS)]} of {number + 100} bought?"


def wanted(number: int) -> str:
    end = "!" if number % 3 else ", har har!"
    return f"Arr, matey! That {NOUNS[number % len(NOUNS)]} of {number + 100} be bought in {TOWNS[number % len(TOWNS)]}{end} Aye, I love it."


def poor(number: int) -> str:
    return f"It is recorded in the file that the {NOUNS[(number + 1) % len(NOUNS)]} was bought; unfortunately no town is stated in it ({number})."


def lay_rows(desk: Any) -> None:
    """Gate rows at lines 1 to 60, two a conversation as `desk.rows` counts them, and training rows behind them."""
    lines = [json.dumps({"messages": [{"role": "user", "content": asked(n)}, {"role": "assistant", "content": wanted(n)}]}) for n in range(GATE + TRAIN)]
    raw = ("\n".join(lines) + "\n").encode()
    folder = desk.folder / "drop"
    (folder / "rows.jsonl.zst").write_bytes(zstandard.compress(raw))
    index = [{"line": n + 1, "group": f"drop-2-{n // 2}", "split": "gate" if n < GATE else "train"} for n in range(GATE + TRAIN)]
    (folder / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in index))
    desk.task = replace(
        desk.task, rows=(RowsOf(drop="drop-2", sha256=hashlib.sha256(raw).hexdigest(), folder=str(folder), schema_id=desk.task.rows[0].schema_id),)
    )


def lay_answers(desk: Any, model: str, texts: Mapping[int, str], **header: object) -> Path:
    """What a model answered: line -> text."""
    rows = [{"drop": "drop-2", "line": line, "group": f"drop-2-{(line - 1) // 2}", "answer": text, "tokens": 9, "seconds": 0.1} for line, text in texts.items()]
    path = desk.lay(f"answers/gate/{model}", rows, **header)
    assert isinstance(path, Path)
    return path


@pytest.fixture
def laid(desk: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A candidate that speaks as the rows do, against a base that does not; the profile persona is asked for."""
    desk.lay_out(this=-0.5, rows=(GATE, 0))
    lay_rows(desk)
    lay_answers(desk, "base", {line: poor(line - 1) for line in range(1, GATE + 1)})
    lay_answers(desk, desk.candidate.id, {line: wanted(line - 1) if line % 12 else poor(line - 1) for line in range(1, GATE + 1)})
    monkeypatch.setattr("ranking.metrics.held.Embedder", lambda folder: word_vectors())
    monkeypatch.setattr("ranking.metrics.held.is_sealed", lambda folder: True)
    return desk


def verdict(desk: Any, **ranking: object) -> Verdict:
    task = replace(desk.task, settings={"ranking": {"resamples": 500, **ranking}})
    return judge(task, rules_of(task.settings))


def test_the_profile_persona_shows_each_target_as_met_or_not_with_its_interval(laid: Any) -> None:
    found = verdict(laid, profile="persona")
    shown = {one.metric: one for one in found.metrics}
    assert {name: one.target for name, one in shown.items()} == {
        "persona_consistency": 0.90,
        "relevance": 0.85,
        "authenticity": 0.80,
        "factual_recall": 0.95,
    }
    for one in shown.values():
        assert one.value is not None
        assert one.before is not None
        assert one.value.low <= one.value.mean <= one.value.high
        assert one.value.mean > one.before
    assert [name for name, one in shown.items() if not one.met] == ["factual_recall"]
    assert shown["factual_recall"].value is not None
    assert shown["factual_recall"].value.mean == pytest.approx(11 / 12)
    assert any(line.startswith("factual_recall 0.92 (95 % interval") and "target 0.95: not met" in line for line in metric_lines(found.metrics))
    assert [line for line in verdict_lines(found) if "relevance" in line] == [f"  {metric_lines(found.metrics)[1]}"]
    assert parse(Verdict, dump(found)) == found


def test_targets_decide_nothing(laid: Any) -> None:
    without, with_targets = verdict(laid), verdict(laid, profile="persona", targets={"factual_recall": 1.0})
    assert without.metrics == ()
    assert [one.target for one in with_targets.metrics if one.metric == "factual_recall"] == [1.0]
    assert (with_targets.word, with_targets.legs) == (without.word, without.legs)


def test_the_task_metric_is_the_quality_and_its_floor(laid: Any) -> None:
    found = verdict(laid, metric="exact_match")
    assert [(one.metric, one.value.mean if one.value else None) for one in found.metrics] == [("exact_match", pytest.approx(11 / 12))]
    assert [leg.passed for leg in found.legs if leg.name == "quality"] == [True]
    assert [leg.passed for leg in verdict(laid, metric="exact_match", min_quality=0.99).legs if leg.name == "quality"] == [False]
    assert {"answers/gate/base", f"answers/gate/{laid.candidate.id}"} <= found.scores.keys()


def test_without_the_sentence_model_a_target_says_why_it_is_not_measured(laid: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ranking.metrics.held.is_sealed", lambda folder: False)
    shown = {one.metric: one for one in verdict(laid, profile="persona").metrics}
    assert shown["relevance"].met is None
    assert "no sentence model is here" in shown["relevance"].why
    assert shown["authenticity"].met is True
    assert any("relevance, target 0.85: not run" in line for line in metric_lines(list(shown.values())))


def test_a_sentence_model_that_fails_is_asked_once(laid: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    times = []

    def broken(texts: object) -> object:
        times.append(1)
        raise LoradError("the sentence model failed: no memory", hint="free some", code="EMBEDDER_FAILED")

    monkeypatch.setattr("ranking.metrics.held.Embedder", lambda folder: broken)
    found = verdict(laid, profile="persona")
    assert ["no memory" in one.why for one in found.metrics] == [True, True, False, False]
    assert times == [1]
    assert found.legs == verdict(laid).legs


def test_a_task_metric_that_needs_the_missing_model_holds(laid: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ranking.metrics.held.is_sealed", lambda folder: False)
    with pytest.raises(EvidenceError, match="'relevance' could not be worked out: no sentence model is here"):
        verdict(laid, metric="relevance")


def _delete(desk: Any, path: Path) -> None:
    path.unlink()


def _tear(desk: Any, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _drop_a_row(desk: Any, path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def _twice(desk: Any, path: Path) -> None:
    path.write_text(path.read_text() + path.read_text().splitlines(keepends=True)[-1])


def _other_decoding(desk: Any, path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(json.dumps(json.loads(lines[0]) | {"settings": {"decoding": "sampled"}}) + "\n" + "".join(lines[1:]))


def _other_model(desk: Any, path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(json.dumps(json.loads(lines[0]) | {"model": "another"}) + "\n" + "".join(lines[1:]))


def _other_group(desk: Any, path: Path) -> None:
    path.write_text(path.read_text().replace('"group": "drop-2-0"', '"group": "drop-2-1"'))


def _no_text(desk: Any, path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]) + json.dumps(json.loads(lines[-1]) | {"answer": None}) + "\n")


def _rows_gone(desk: Any, path: Path) -> None:
    (desk.folder / "drop" / "rows.jsonl.zst").unlink()


@pytest.mark.parametrize("damage", [_delete, _tear, _drop_a_row, _twice, _other_decoding, _other_model, _other_group, _no_text, _rows_gone])
@pytest.mark.parametrize("model", ["base", "candidate"])
def test_answers_that_are_missing_damaged_or_unlike_are_never_judged(damage: Any, model: str, laid: Any) -> None:
    verdict(laid, metric="exact_match")
    path = Path(laid.task.scores[f"answers/gate/{laid.candidate.id if model == 'candidate' else model}"])
    damage(laid, path)
    with pytest.raises(EvidenceError):
        verdict(laid, metric="exact_match")


# ---------------------------------------------------------------- the judge


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "WAITS_S", (0.0, 0.0))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def told(found: Verdict) -> tuple[LegResult, str]:
    (leg,) = [leg for leg in found.legs if leg.name == "judge"]
    return leg.result, leg.reason


@pytest.mark.usefixtures("quick")
def test_a_judge_that_prefers_the_candidate_lets_it_pass_and_one_that_prefers_the_incumbent_holds(laid: Any, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret-key\n")
    laid.task = replace(laid.task, cache=str(tmp_path / "votes"))
    with judge_server(lambda first, second, seed: f"VERDICT: {'A' if 'Arr' in first else 'B'}") as server:
        named = {"url": server.url, "model": "judge-1", "key_file": str(key)}
        found = verdict(laid, judge=named, metric="judge", min_quality=0.5)
        times = len(server.asked)
        server.opinion = lambda first, second, seed: f"VERDICT: {'B' if 'Arr' in first else 'A'}"
        same = verdict(laid, judge=named)
        other = verdict(laid, judge={**named, "model": "judge-2"})
    assert found.judged is not None
    assert (found.judged.wins, found.judged.ties, found.judged.losses) == (55, 5, 0)  # equal answers tie
    assert times == 55 * 6
    assert found.judged.share.mean == pytest.approx((55 + 2.5) / 60)
    assert told(found)[0] is LegResult.PASSED
    assert [one.value.mean for one in found.metrics if one.value] == [pytest.approx(57.5 / 60)]
    assert [one.before for one in found.metrics] == [0.5]
    assert same.judged == found.judged  # votes are kept
    assert told(other)[0] is LegResult.UNPROVEN
    assert "a person must look" in told(other)[1]
    assert other.word is VerdictWord.HOLD
    assert "secret" not in dump(found)


@pytest.mark.usefixtures("quick")
def test_a_judge_that_cannot_be_asked_holds(laid: Any, tmp_path: Path) -> None:
    gone = verdict(laid, judge={"url": "http://127.0.0.1:1/v1", "model": "m"})
    assert told(gone)[0] is LegResult.UNPROVEN
    assert "could not be asked: the judge m at 127.0.0.1:1 cannot be reached" in told(gone)[1]
    assert gone.word is not VerdictWord.PROMOTE
    keyless = verdict(laid, judge={"url": "http://127.0.0.1:1/v1", "model": "m", "key_file": str(tmp_path / "none")})
    assert "key_file cannot be read" in told(keyless)[1]


# ---------------------------------------------------------------- config, intervals


def test_a_config_that_names_no_metric_or_profile_there_is_is_told_at_once() -> None:
    def check(**ranking: object) -> None:
        check_metrics(Config.model_validate({"ranking": ranking}))

    check(metric="f1", profile="persona", targets={"bleu": 0.3})
    for ranking, why in (
        ({"metric": "f2"}, "unknown metric 'f2'"),
        ({"metric": "length"}, "'length' is no quality"),
        ({"metric": "repetition"}, "'repetition' is no quality"),
        ({"profile": "persons"}, "unknown profile 'persons'"),
        ({"targets": {"relevanc": 0.5}}, "unknown metric 'relevanc'"),
    ):
        with pytest.raises(ConfigError, match=why):
            check(**ranking)


def test_all_right_is_not_sure_for_ever() -> None:
    from ranking.metrics import metric_named
    from ranking.metrics.held import Measured

    def measured(values: list[float]) -> Measured:
        size = len(values)
        return Measured(places=tuple(("d", n) for n in range(size)), groups=tuple(map(str, range(size))), values=np.array(values), weights=np.ones(size))

    rules = rules_of({"ranking": {"resamples": 500}})
    found = interval_of(metric_named("exact_match"), measured([1.0] * 30), rules)
    assert (found.mean, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.8843, abs=1e-4)  # Clopper and Pearson, 30 of 30
    mixed = interval_of(metric_named("exact_match"), measured([1.0] * 20 + [0.0] * 10), rules)
    assert 0.4 < mixed.low < mixed.mean < mixed.high < 0.9


@pytest.mark.model
@pytest.mark.skipif(not is_sealed(default_models_dir() / SENTENCE_MODEL), reason="the sentence model is not here")
def test_the_real_sentence_model_is_asked_through_a_child(desk: Any) -> None:
    desk.lay_out(this=-0.5, rows=(GATE, 0))
    lay_rows(desk)
    lay_answers(desk, "base", dict.fromkeys(range(1, GATE + 1), "It is a nice day and I like tea."))
    lay_answers(desk, desk.candidate.id, {line: wanted(line - 1) for line in range(1, GATE + 1)})
    shown = {one.metric: one for one in verdict(desk, profile="persona").metrics}
    assert [one.why for one in shown.values()] == [""] * 4
    for name in ("persona_consistency", "relevance", "factual_recall"):
        value, before = shown[name].value, shown[name].before
        assert value is not None
        assert before is not None
        assert value.mean > before + 0.2
