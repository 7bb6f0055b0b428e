"""Every metric by name: what it gives for right, wrong and unanswerable rows, and how it fails."""

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from metric_cases import replies, row, values, word_vectors

from core.errors import ConfigError
from ranking.metrics import Kind, Kit, Metric, MetricError, Reply, mean_of, metric_named, metric_names, metric_values, weights
from ranking.metrics.registry import SHIPPED, listed, where_from
from ranking.scores import EvidenceError
from rendering.specs import ToolCall

CHOICE = "Which city?\nA) London\nB) Paris"
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("name", "told", "expected"),
    [
        ("exact_match", [("q", "Paris.", "paris"), ("q", "Paris", "Rome"), ("q", "", "")], [1, 0, math.nan]),
        ("number_match", [("q", "so\n#### 12", "It is 12."), ("q", "#### 12", "13"), ("q", "twelve", "12")], [1, 0, math.nan]),
        ("multiple_choice", [(CHOICE, "B", "The answer is B."), (CHOICE, "B) Paris", "London"), ("no options", "B", "B")], [1, 0, math.nan]),
        ("json_valid", [("q", '{"a": 1}', '```json\n{"b": 2}\n```'), ("q", '{"a": 1}', "{a: 1}"), ("q", "text", "{}")], [1, 0, math.nan]),
        ("json_match", [("q", '{"a": 1, "b": 2}', '{"b": 2, "a": 1}'), ("q", '{"a": 1}', '{"a": 2}'), ("q", "text", "{}")], [1, 0, math.nan]),
        ("f1", [("q", "red green", "red blue"), ("q", "red", "")], [0.5, 0]),
        ("factual_recall", [("Who?", "It was Ada Byron in 1843.", "Ada, in 1843"), ("q", "yes, it was", "no")], [2 / 3, math.nan]),
        ("factual_recall", [("What did Ada write in 1843?", "That Ada wrote notes.", "notes")], [math.nan]),
        ("length", [("q", "w", "one two three"), ("q", "w", "")], [3, 0]),
        ("length_match", [("q", "one two", "one two three four"), ("q", "one", "")], [0.5, 0]),
        ("repetition", [("q", "w", "one two three four five"), ("q", "w", "a b c d a b c d")], [0, 0.2]),
        ("refusal_rate", [("q", "Sure.", "I'm sorry, I can't."), ("q", "Sure.", "Sure."), ("q", "I cannot do that.", "I cannot")], [1, 0, math.nan]),
        ("tone", [("q", "w", "Thanks, that is wonderful!"), ("q", "w", "You stupid, awful thing")], [2 / 3, -2 / 3]),
    ],
)
def test_a_metric_of_text(name: str, told: list[tuple[str, str, str]], expected: list[float]) -> None:
    assert values(name, told) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("name", ["bleu", "chrf", "rouge1", "rouge2", "rougeL"])
def test_a_metric_of_overlap_is_1_for_the_same_and_0_for_nothing_alike_in_every_script(name: str) -> None:
    same = "the quick brown fox jumps"
    found = values(
        name, [("q", same, same), ("q", same, "zzz"), ("q", same, "the quick red fox jumped"), ("q", "быстрая бурая лиса бежит", "быстрая бурая лиса бежит")]
    )
    assert found[0] == pytest.approx(1)
    assert found[1] < 0.05
    assert 0.1 < found[2] < 0.9
    assert found[3] == pytest.approx(1)


def test_overlap_is_what_the_libraries_say() -> None:
    import sacrebleu

    answer, wanted = "the cat sat on a mat today", "the cat sat on the mat"
    assert values("bleu", [("q", wanted, answer)])[0] * 100 == pytest.approx(sacrebleu.sentence_bleu(answer, [wanted]).score)
    assert values("chrf", [("q", wanted, answer)])[0] * 100 == pytest.approx(sacrebleu.sentence_chrf(answer, [wanted]).score)
    assert "sacrebleu" in where_from(metric_named("bleu"))


def test_without_its_library_a_metric_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sacrebleu.metrics.bleu", "rouge_score.rouge_scorer"):
        monkeypatch.setitem(sys.modules, module, None)
    for name, library in (("bleu", "sacrebleu"), ("rougeL", "rouge-score")):
        with pytest.raises(MetricError, match=f"{library} is not installed"):
            values(name, [("q", "w", "a")])


def test_tool_calls_count_only_where_tools_are() -> None:
    call = ToolCall("weather", '{"city": "Rome"}')
    rows = [row("q", "", 1, calls=[call], tools=(TOOL,)), row("q", "hello", 2, tools=(TOOL,)), row("q", "hello", 3)]
    said = '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'
    metric = metric_named("tool_call_match")
    assert metric_values(metric, rows, replies([said, "hello", "hello"]), Kit()).tolist() == pytest.approx([1, 1, math.nan], nan_ok=True)
    assert metric_values(metric, rows, replies(["hello", said, said]), Kit()).tolist() == pytest.approx([0, 0, math.nan], nan_ok=True)


def test_a_schema_in_the_row_is_kept_or_broken_and_a_bad_one_is_told() -> None:
    schema: dict[str, Any] = {"type": "object", "required": ["a"]}
    metric = metric_named("json_schema")
    rows = [row("q", "w", line, metadata={"schema": schema} if line < 4 else {}) for line in range(1, 5)]
    assert metric_values(metric, rows, replies(['{"a": 1}', "{}", "no", "{}"]), Kit()).tolist() == pytest.approx([1, 0, 0, math.nan], nan_ok=True)
    with pytest.raises(MetricError, match="line 1 of 'drop-1' is not a JSON schema"):
        metric_values(metric, [row("q", "w", metadata={"schema": {"type": "nonsense"}})], replies(["{}"]), Kit())


def test_losses_weigh_by_tokens() -> None:
    rows = [row("q", "w", 1), row("q", "w", 2)]
    told = {("drop-1", 1): Reply(loss=2.0, tokens=2, correct=1), ("drop-1", 2): Reply(loss=2.0, tokens=8, correct=8)}
    means = {}
    for name in ("nll", "perplexity", "token_accuracy"):
        metric = metric_named(name)
        means[name] = mean_of(metric, metric_values(metric, rows, told, Kit()), weights(metric, rows, told))
    assert means == pytest.approx({"nll": 0.4, "perplexity": math.exp(0.4), "token_accuracy": 0.9})


def test_a_row_without_its_answer_is_missing_evidence_and_no_zero() -> None:
    with pytest.raises(EvidenceError, match="line 2 of 'drop-1' has no answer, which the metric 'f1' needs"):
        metric_values(metric_named("f1"), [row("q", "w", 1), row("q", "w", 2)], replies(["w"]), Kit())
    with pytest.raises(EvidenceError, match="no loss"):
        metric_values(metric_named("nll"), [row("q", "w", 1)], replies(["w"]), Kit())


def test_without_a_sentence_model_a_metric_of_meaning_says_what_to_do() -> None:
    for name in ("relevance", "embedding_similarity", "persona_consistency", "voice"):
        with pytest.raises(MetricError) as caught:
            values(name, [("q", "w", "a")])
        assert "no sentence model" in caught.value.what
        assert "models pull" in caught.value.hint


def test_relevance_is_lost_when_answers_go_to_other_questions() -> None:
    topics = ["apples pears", "ships harbours", "stars planets", "bread flour", "roads bridges", "rivers lakes", "drums flutes"]
    told = [(f"Tell me about {topic}", "w", f"About {topic} much is known") for topic in topics]
    shifted = [(question, wanted, told[place - 1][2]) for place, (question, wanted, _) in enumerate(told)]
    kit = Kit(embed=word_vectors())
    assert np.mean(values("relevance", told, kit)) > 0.95
    assert np.mean(values("relevance", shifted, kit)) < 0.5
    assert values("relevance", [(question, wanted, " ") for question, wanted, _ in told], kit) == [0.0] * len(told)
    assert all(math.isnan(value) for value in values("relevance", told[:4], kit))  # too few questions to tell its own from


def test_similarity_of_meaning_is_never_below_0() -> None:
    found = values("embedding_similarity", [("q", "red green", "red green"), ("q", "red green", ""), ("q", "", "red")], Kit(embed=word_vectors()))
    assert found == pytest.approx([1, 0, math.nan], nan_ok=True, abs=1e-5)


# ---------------------------------------------------------------- by name


def test_every_metric_has_a_name_and_says_what_it_is() -> None:
    assert [name for name, metric in SHIPPED.items() if metric.name != name or not metric.about] == []
    asked = {
        *("nll", "perplexity", "token_accuracy", "exact_match", "number_match", "multiple_choice", "json_valid", "json_schema", "tool_call_match", "f1"),
        *("bleu", "rougeL", "chrf", "embedding_similarity", "persona_consistency", "tone", "authenticity", "relevance", "length", "repetition"),
        *("refusal_rate", "factual_recall", "judge"),
    }
    assert asked <= set(metric_names())
    assert [name for name in asked if SHIPPED[name].kind is Kind.OPEN and SHIPPED[name].is_quality] == []


def test_an_unknown_name_is_told_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match="unknown metric 'exactmatch'") as caught:
        metric_named("exactmatch")
    assert "exact_match" in caught.value.hint


FINE = Metric(name="own", about="one's own", kind="share", score=lambda cases, kit: [0.5] * len(cases))


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (replace(FINE, score=lambda cases, kit: [0.5]), r"gives \(1,\) values for 2 rows"),
        (replace(FINE, score=lambda cases, kit: [1.5, 0.5]), "gives values from 0.5 to 1.5"),
        (replace(FINE, score=lambda cases, kit: [math.inf, 0.5]), "not finite"),
        (replace(FINE, kind="binary"), "binary and gives 0.5"),
        (replace(FINE, score=lambda cases, kit: [1 / 0]), "ZeroDivisionError"),
        (replace(FINE, score=lambda cases, kit: ["a", "b"]), "ValueError"),
    ],
)
def test_a_metric_that_fails_is_told_and_never_counts(broken: Metric, why: str) -> None:
    rows = [row("q", "w", 1), row("q", "w", 2)]
    assert metric_values(FINE, rows, replies(["a", "b"]), Kit()).tolist() == [0.5, 0.5]
    with pytest.raises(MetricError, match=why):
        metric_values(broken, rows, replies(["a", "b"]), Kit())


def test_a_metric_of_an_unknown_kind_or_need_is_refused_where_it_is_written() -> None:
    with pytest.raises(ValueError, match="ratio"):
        Metric(name="own", about="", kind="ratio", score=lambda cases, kit: [])
    with pytest.raises(ValueError, match="gpu"):
        Metric(name="own", about="", kind="open", needs=("gpu",), score=lambda cases, kit: [])


# ---------------------------------------------------------------- one's own

OWN = """
from ranking.metrics import Metric

def politeness(cases, kit):
    return [float("please" in case.answer.lower()) for case in cases]

METRIC = Metric(name="politeness", about="the answer says please", kind="binary", score=politeness)
NUMBER = 3
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, *points: str, name: str = "polite") -> None:
    """A package as pip leaves it: a module and a dist-info folder with its entry points."""
    folder.mkdir(exist_ok=True)
    module = f"{name}_metrics_{len(sys.path)}"
    (folder / f"{module}.py").write_text(OWN)
    dist = folder / f"{name}-1.2.dist-info"
    dist.mkdir()
    (dist / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (dist / "entry_points.txt").write_text("[lorad.metrics]\n" + "".join(f"{point.replace('MODULE', module)}\n" for point in points))
    monkeypatch.syspath_prepend(str(folder))


def test_an_installed_package_brings_a_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site", monkeypatch, "politeness = MODULE:METRIC")
    assert "politeness" in metric_names()
    metric = metric_named("politeness")
    assert values("politeness", [("q", "w", "Please come"), ("q", "w", "Come")]) == [1, 0]
    assert where_from(metric) == "polite 1.2"
    assert [(one.source, one.broken) for one in listed() if one.name == "politeness"] == [("polite 1.2", "")]


@pytest.mark.parametrize(
    ("point", "why"),
    [
        ("politeness = no_such_module:METRIC", "ModuleNotFoundError"),
        ("politeness = MODULE:MISSING", "AttributeError"),
        ("politeness = MODULE:NUMBER", "is a int, not a ranking.metrics.Metric"),
        ("kindness = MODULE:METRIC", "calls itself 'politeness'"),
    ],
)
def test_a_package_whose_metric_does_not_load_is_named(point: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site", monkeypatch, point)
    name = point.partition(" ")[0]
    with pytest.raises(ConfigError, match=r"of polite 1\.2 ") as caught:
        metric_named(name)
    assert why in caught.value.what
    assert [why in one.broken for one in listed() if one.name == name] == [True]


def test_no_package_takes_a_shipped_name_and_two_of_one_name_are_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "one", monkeypatch, "f1 = MODULE:METRIC", "politeness = MODULE:METRIC")
    assert metric_named("f1") is SHIPPED["f1"]
    assert [one.broken for one in listed() if one.name == "f1" and one.source != "lorad"] == ["lorad has a metric of this name: its own is used"]
    install(tmp_path / "two", monkeypatch, "politeness = MODULE:METRIC", name="civil")
    with pytest.raises(ConfigError, match=r"several packages: civil 1\.2, polite 1\.2"):
        metric_named("politeness")
