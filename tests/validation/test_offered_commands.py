"""Commands that a report offers besides lorad's own: typed as they stand, they make a file that is accepted."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from gate_cases import GOOD, as_bytes
from stories import ANSWER, USER, dialog

from validation import DataValidator

LINES = as_bytes(GOOD)

OFFERS = {
    "a time beside each message": (as_bytes([dialog(USER | {"time": 3}, ANSWER)] * 12), "S03", "chat_sft_v1"),
    "a time beside the turns of a pair": (as_bytes([{"prompt": [USER | {"time": 3}], "chosen": "a", "rejected": "b"}] * 12), "S03", "preference_v1"),
    "rows that are lists": (as_bytes([row["messages"] for row in GOOD]), "J02", "chat_sft_v1"),
    "all rows in one object": (json.dumps({"version": 1, "data": GOOD}).encode(), "S06", "chat_sft_v1"),
    "U+2028 between rows": (LINES.replace(b"\n", "\u2028".encode()), "J03", "chat_sft_v1"),
    "NEL between rows": (LINES.replace(b"\n", "\x85".encode()), "J03", "chat_sft_v1"),
    "a JSON text sequence": (b"".join(b"\x1e" + line + b"\n" for line in LINES.splitlines()), "J01", "chat_sft_v1"),
    "a stream": (b"".join(b"data: " + line + b"\n\n" for line in LINES.splitlines()) + b"data: [DONE]\n", "J01", "chat_sft_v1"),
    "line numbers": (b"".join(b"%d: " % number + line + b"\n" for number, line in enumerate(LINES.splitlines())), "J01", "chat_sft_v1"),
    "print instead of json.dumps": (b"\n".join(repr(row).encode() for row in GOOD), "J01", "chat_sft_v1"),
    "a table": (("prompt,completion\n" + '"Hello, you",there\n' * 12).encode(), "J01", "completion_v1"),
    "a table with tabs": (b"prompt\tcompletion\n" + b"Hello\tthere\n" * 12, "J01", "completion_v1"),
    "a table with semicolons": (b"prompt;completion\n" + b"Hello;there\n" * 12, "J01", "completion_v1"),
    "a last row cut off": (LINES + b'{"messages": [', "J01", "chat_sft_v1"),
    "UTF-16 without its mark": (LINES.decode().encode("utf-16-le"), "F03", "chat_sft_v1"),
}


@pytest.mark.parametrize("title", OFFERS)
def test_the_offered_command_makes_an_accepted_file(title: str, tmp_path: Path) -> None:
    content, id, schema = OFFERS[title]
    path = tmp_path / "my rows.jsonl"
    path.write_bytes(content)
    refused = DataValidator().check_file(path, schema, name="my rows.jsonl")
    fix = next(finding.fix for finding in refused.findings if finding.id == id and finding.fix)
    if fix.startswith("jq ") and shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    assert not fix.startswith("lorad "), "those are tried elsewhere"
    subprocess.run(["bash", "-c", fix], cwd=tmp_path, check=True)
    fixed = DataValidator().check_file(tmp_path / "my rows-fixed.jsonl", schema)
    assert fixed.verdict == "accepted", fixed.to_text()
    assert fixed.rows == 12
