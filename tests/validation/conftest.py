from pathlib import Path

import pytest
from gate_cases import Check, as_bytes

from validation import DataValidator, Limits, Report
from validation.context import Surroundings
from validation.examination import Setting


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Check bytes, or a list of rows, as a file `rows.jsonl`."""

    def run(
        content: bytes | list[object],
        schema: str = "chat_sft_v1",
        limits: Limits | None = None,
        *,
        level: str = "quick",
        around: Surroundings | None = None,
        columns: tuple[str, ...] = (),
    ) -> Report:
        path = tmp_path / "rows.jsonl"
        path.write_bytes(content if isinstance(content, bytes) else as_bytes(content))
        setting = Setting(limits=limits or Limits(), around=around or Surroundings())
        return DataValidator(None, setting=setting).check_file(path, schema, level, name="rows.jsonl", columns=columns)

    return run
