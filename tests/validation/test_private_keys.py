"""Private keys as PEM blocks: short ones count, examples that show none do not."""

import pytest
from gate_cases import GOOD, Check, chat, found

KIND = "RSA PRIVATE" + " KEY"  # in two parts, so that no scanner takes this file for a leak


def block(body: str, line: str = "\n") -> str:
    """A PEM block."""
    return f"-----BEGIN {KIND}-----{line}{body}{line}-----END {KIND}-----"


@pytest.mark.parametrize("line", ["\n", "\\n", "\r\n"])
@pytest.mark.parametrize("body", ["MIIEpAIBAAKCAQEA7bq1", "MIIEpAIBAAKCAQEA7bq1Zk2Lx9Qw3eRt5Yu8"])
def test_a_short_key_is_a_key(check: Check, body: str, line: str) -> None:
    finding = found(check([*GOOD, chat("Deploy it", f"Use this key:\n{block(body, line)}\n[then restart]")], level="deep"), "D07")
    assert (finding.severity, finding.lines, finding.path) == ("error", (13,), "$.messages[1].content")
    assert body not in str(finding)


@pytest.mark.parametrize(
    "body",
    [
        "...",
        "<your key>",
        "[base64]",
        "MIIEpAIBAAKCAQEA",
        "MIIEpAIBAAKCAQEA...",
        "MIIEpAIBAAKCAQEA7bq1Zk2Lx9Qw3eRt5Yu8...",
        "MIIEpAIBAAKCAQEA7bq1\n…",
        "YOURKEYHERE" * 3,
        "x" * 64,
    ],
)
def test_a_key_that_is_only_talked_about_is_none(check: Check, body: str) -> None:
    report = check([*GOOD, chat("What does a key look like?", f"It looks so:\n{block(body)}")], level="deep")
    assert "D07" not in {finding.id for finding in report.findings}
