"""No bytes crash the gate, and none are refused without a reason."""

import json
import tempfile
from pathlib import Path

from gate_cases import GOOD, as_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rendering.specs import BAD_JSON, SPECS
from validation import DataValidator, Limits, Report

VALIDATOR = DataValidator(limits=Limits(max_row_bytes=4000))
QUIET = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

KEYS = [
    *("messages", "role", "content", "weight", "name", "metadata", "id", "prompt", "completion", "text", "from", "value", "conversations"),
    *("tools", "tool_calls", "tool_call_id", "function", "arguments", "type", "images", "image", "chosen", "rejected", "label", "parallel_tool_calls"),
    *("instruction", "input", "output", "model_output", "correction", "signal"),
]
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["user", "assistant", "system", "tool", "text", "function", "{}", "[]", "<|im_end|>"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS) | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def check(content: bytes, schema: str) -> Report:
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        file.write(content)
        file.flush()
        return VALIDATOR.check_file(Path(file.name), schema)


def is_sound(report: Report) -> None:
    assert (report.verdict == "refused") == any(finding.severity == "error" for finding in report.findings)
    assert json.loads(report.to_json())["verdict"] == report.verdict
    for text in (report.to_text(), report.to_markdown()):
        assert all(letter.isprintable() or letter == "\n" for letter in text)
    for finding in report.findings:
        assert finding.hint
        assert finding.why or finding.id == "S01"
        assert finding.count >= 1
        assert len(finding.lines) <= 5


@given(content=st.binary(max_size=300), schema=st.sampled_from(sorted(SPECS)))
@QUIET
def test_any_bytes(content: bytes, schema: str) -> None:
    is_sound(check(content, schema))


@given(row=values, schema=st.sampled_from(sorted(SPECS)))
@QUIET
def test_any_json_and_a_row_that_the_spec_does_not_take_is_always_refused(row: object, schema: str) -> None:
    line = json.dumps(row).encode()
    report = check(as_bytes([line, *GOOD]), schema)
    is_sound(report)
    try:
        SPECS[schema].decode(line)
    except BAD_JSON:
        assert any(1 in finding.lines for finding in report.findings if finding.severity == "error"), report.to_text()


@given(data=st.data())
@QUIET
def test_any_good_file_with_a_few_bytes_changed(data: st.DataObject) -> None:
    content = bytearray(as_bytes(GOOD[:3]))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    is_sound(check(bytes(content), "chat_sft_v1"))


def test_rows_made_to_be_slow_are_not(tmp_path: Path) -> None:
    """A quadratic check would need hours for these, so that this test would not end."""
    rows = [
        b'{"a": "' + b'\\"' * 1_000_000,  # an endless string of escaped quotes
        b"{" + b",".join(b'"%d":1' % number for number in range(200_000)) + b',"7":1}',  # one duplicate among many keys
        b'{"messages": [], "' + b"k" * 2_000_000 + b'": 1}',  # a key to compare with
        b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "' + b" " * 2_000_000 + b'"}]}',
        b"," * 2_000_000,
        b"[" * 2_000_000,
        b'{"messages": [' + b'{"role": "user", "content": "q"}, ' * 40_000 + b'{"role": "assistant", "content": "a"}]}',
        b'{"messages": [' + b'{"role": "usr", "contnt": "q", "x": 1}, ' * 40_000 + b"{}]}",
        b'{"messages": "[' + b"{'a': " * 9000 + b"1" + b"}" * 9000 + b']"}',  # a literal that Python's parser gives up on
        b'{"messages": [], "tools": [' + b'{"name": "f"}, ' * 80_000 + b'{"name": "g"}]}',
        b'{"text": "### Response:' + b"\\n" * 500_000 + b'"}',
        b'{"text": "Human: ' + b"Assistant:\\n" * 100_000 + b'"}',
        b'{"text": "[INST] ' + b"[/INST] " * 100_000 + b'"}',
    ]
    calls = {"tool_calls": [{"id": str(number), "type": "function", "function": {"name": "f"}} for number in range(20_000)]}
    results = [{"role": "tool", "content": "x", "tool_call_id": str(number)} for number in range(19_000)]
    rows.append(json.dumps({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", **calls}, *results]}).encode())
    path = tmp_path / "rows.jsonl"
    path.write_bytes(as_bytes(list(rows)))
    is_sound(DataValidator().check_file(path))
