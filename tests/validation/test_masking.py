"""A report is read by others than the file: whatever looks like a secret is not in it, at any level, in any format."""

import json
from typing import Any

import pytest
from gate_cases import Check, chat, pair, turns

from validation.findings import shown
from validation.masking import masked, without_secrets

# Made up, and put together here so that no scanner takes this file for a leak.
SECRETS = {
    "a GitHub token": "ghp" + "_Zq8Wv3RtY6uP1sD4fG7hJ9kL2xC5vB0nM3aQ",
    "a token without digits": "hf" + "_FhGUtwlpYtXVEnZzvqZzoygGxpOQaBoWOm",
    "an access key": "AKIA" + "Q3EGRXKD7L2MZT5W",
    "a password": "password=" + "Tr0ub4dor&3xKq9",
    "a password in an address": "postgres://app:" + "s3cr3tPw@db.internal/app",
    "a card": "4539 1488 " + "0343 6467",
    "a private key": "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEpAIBAAKCAQEA7bq1",
}
PARTS = [text.split("=")[-1].split(":")[-1].split("@")[0].split("\n")[-1] for text in SECRETS.values()]


def rows_with(secret: str) -> list[object]:
    """The secret in every place that a finding might quote."""
    good: list[object] = [chat(f"question {number}", f"answer {number}") for number in range(20)]
    bad: list[Any] = [
        secret.encode().replace(b"\n", b" "),
        turns((secret, "a"), ("assistant", "b")),
        {**chat(), secret: 1},
        {"messages": secret},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": {"text": secret}}]},
        chat("q", "a", weight=secret),
        chat("q", "a", id=[secret]),
        chat("q", "a", metadata=secret),
        chat("q", f"{secret} \ufffd"),
        chat("q", f"{secret} " * 60),
        {
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": secret, "arguments": secret}}]},
            ]
        },
    ]
    return good + bad


@pytest.mark.parametrize("level", ["quick", "standard", "deep"])
@pytest.mark.parametrize("name", SECRETS)
def test_no_report_holds_the_secret(name: str, level: str, check: Check) -> None:
    secret = SECRETS[name]
    report = check(rows_with(secret), level=level)
    assert report.verdict == "refused"
    told = report.to_text() + report.to_markdown() + report.to_json() + json.dumps(report.to_plain(), ensure_ascii=False)
    for part in (secret, PARTS[list(SECRETS).index(name)]):
        assert part not in told


def test_equal_answers_are_not_quoted_with_their_secret(check: Check) -> None:
    secret = SECRETS["a GitHub token"]
    rows = [{"prompt": f"p {number}", "chosen": f"c {number}", "rejected": f"r {number}"} for number in range(12)]
    report = check([*rows, {"prompt": "p", "chosen": secret, "rejected": secret}], "preference_v1")
    assert report.findings[0].id == "P01"
    assert secret not in report.to_json()


@pytest.mark.parametrize(
    "text",
    [
        "an ordinary sentence, however long it may be",
        "Donaudampfschifffahrtsgesellschaft",
        "12345678901234567890123",
        "2026-01-06 12:30",
        "a/b/c.jsonl",
        "the token is here",
    ],
)
def test_ordinary_texts_stay(text: str) -> None:
    assert masked(text) == text


def test_a_value_is_masked_before_it_is_cut() -> None:
    assert SECRETS["a GitHub token"][:12] not in shown("x" * 70 + " " + SECRETS["a GitHub token"])


def test_long_names_stay_in_hints() -> None:
    assert without_secrets("lorad check /data/evaluation_set_of_2026_v2.jsonl") == "lorad check /data/evaluation_set_of_2026_v2.jsonl"


def test_rows_without_secrets_are_quoted(check: Check) -> None:
    report = check([*[pair(f"p {n}", f"c {n}") for n in range(12)], {"prompt": "p", "completion": 42}], "completion_v1")
    assert "42" in report.findings[0].message
