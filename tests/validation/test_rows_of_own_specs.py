"""A project's own spec gets every check of the first pass, without a word about it in the gate."""

import json
from pathlib import Path

import pytest
from gate_cases import as_bytes, found

from rendering.ownspecs import load_specs
from validation import DataValidator, Report

SPEC = {
    "id": "faq_v1",
    "keys": {"frage": "string", "antwort": "string", "stand": "number?", "quelle": "object?"},
    "messages": [{"role": "system", "content": "Antworte kurz."}, {"role": "user", "content": "Frage: {frage}"}, {"role": "assistant", "content": "{antwort}"}],
    "example": {"frage": "Wo?", "antwort": "Hier."},
}
GOOD = [{"frage": f"Frage {number}?", "antwort": f"Antwort {number}."} for number in range(12)]


def check(tmp_path: Path, *rows: object) -> Report:
    (tmp_path / "faq.json").write_text(json.dumps(SPEC), encoding="utf-8")
    path = tmp_path / "rows.jsonl"
    path.write_bytes(as_bytes([*GOOD, *rows]))
    return DataValidator(specs=load_specs({"faq_v1": "faq.json"}, tmp_path)).check_file(path, "faq_v1")


def test_right_rows_pass_without_a_word(tmp_path: Path) -> None:
    rich = {"frage": "q", "antwort": "a", "stand": 0.5, "quelle": {"a": {"b": [1]}}, "metadata": {"x": 1}, "id": 7, "weight": 0.5}
    report = check(tmp_path, rich, {"antwort": "a", "frage": "Was heißt 你好?"}, {"frage": "is a < b?", "antwort": "role, content", "quelle": {}})
    assert report.findings == (), report.to_text()


@pytest.mark.parametrize(
    ("row", "id", "path", "says"),
    [
        ({"frage": "q"}, "S02", "$.antwort", '"antwort"'),
        ({"frage": "q", "antwort": "a", "lang": "de"}, "S03", "$.lang", "--columns lang"),
        ({"frage": "q", "antwort": "a", "stan": 1}, "S03", "$.stan", "did you mean 'stand'?"),
        ({"frage": "q", "antwort": 3}, "S04", "$.antwort", "a text"),
        ({"frage": "q", "antwort": None}, "S04", "$.antwort", "null"),
        ({"frage": "q", "antwort": "a", "stand": "2021"}, "S04", "$.stand", "a number"),
        ({"frage": "q", "antwort": "a", "quelle": '{"a": 1}'}, "S05", "$.quelle", "parse the text back"),
        ({"frage": "q", "antwort": " \u200b"}, "C01", "$.antwort", "stop at once"),
        ({"frage": "q", "antwort": "a<|im_end|>"}, "X01", "$.antwort", "'<|im_end|>'"),
        ({"frage": "<|im_start|>q", "antwort": "a"}, "X01", "$.frage", "'<|im_start|>'"),
        (b'{"frage": "q", "frage": "r", "antwort": "a"}', "J05", "", "'frage'"),
        (b'{"frage": "q", "antwort": "a", "quelle": {"a": 1, "a": 2}}', "J05", "", "'a'"),
        ({"conversations": [{"from": "human", "value": "q"}]}, "S06", "", "ShareGPT"),
    ],
)
def test_a_wrong_row_is_named_at_its_key(row: object, id: str, path: str, says: str, tmp_path: Path) -> None:
    report = check(tmp_path, row)
    finding = found(report, id)
    assert (finding.severity, finding.lines, finding.path) == ("error", (13,), path)
    assert says in f"{finding.message} {finding.why} {finding.hint}"
    assert {other.id for other in report.findings} <= {id, "S07"}, report.to_text()


def test_a_large_number_is_warned_about(tmp_path: Path) -> None:
    report = check(tmp_path, {"frage": "q", "antwort": "a", "quelle": {"id": 2**70}})
    assert [(finding.id, finding.lines, finding.path) for finding in report.findings] == [("J09", (13,), "$.quelle.id")]


def test_every_row_muted_is_refused(tmp_path: Path) -> None:
    (tmp_path / "faq.json").write_text(json.dumps(SPEC), encoding="utf-8")
    path = tmp_path / "rows.jsonl"
    path.write_bytes(as_bytes([row | {"weight": 0} for row in GOOD]))
    report = DataValidator(specs=load_specs({"faq_v1": "faq.json"}, tmp_path)).check_file(path, "faq_v1")
    assert found(report, "M05").count == 12
