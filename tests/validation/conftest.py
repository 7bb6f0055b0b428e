from pathlib import Path

import pytest
from gate_cases import Check, as_bytes

from validation import DataValidator, Limits, Report


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Check bytes, or a list of rows, as a file `rows.jsonl`."""

    def run(content: bytes | list[object], schema: str = "chat_sft_v1", limits: Limits | None = None) -> Report:
        path = tmp_path / "rows.jsonl"
        path.write_bytes(content if isinstance(content, bytes) else as_bytes(content))
        return DataValidator(None, limits=limits).check_file(path, schema, name="rows.jsonl")

    return run
