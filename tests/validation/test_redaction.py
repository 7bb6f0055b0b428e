"""Redacted texts keep all but the secrets and personal data, which become marks; and they are clean to the checks."""

import json
import random
import string

import msgspec
import pytest
from gate_cases import GOOD, Check, chat

from validation.redaction import redact, redact_value

_CHANCE = random.Random(5)  # noqa: S311 - invented keys must not be secret
GITHUB = "ghp_" + "".join(_CHANCE.choice(string.ascii_letters + string.digits) for _ in range(36))
SECRET = "".join(_CHANCE.choice(string.ascii_letters + string.digits) for _ in range(40))

TEXTS = {
    f"token {GITHUB}.": ("token [REDACTED:github-token].", ["github-token"]),
    f"{GITHUB}{chr(10)}{GITHUB}": ("[REDACTED:github-token]\n[REDACTED:github-token]", ["github-token", "github-token"]),
    "mail a.keller@web.de or call 415-495-6500!": ("mail [EMAIL] or call [PHONE]!", ["EMAIL", "PHONE"]),
    "postgres://app:Kx83kfQz1@db.acme.io/x": ("postgres://app:[REDACTED:url-password]@db.acme.io/x", ["url-password"]),
    f"aws_secret_access_key = {SECRET}": ("aws_secret_access_key = [REDACTED:aws-secret]", ["aws-secret"]),
    "card 4539 1488 0343 6467, SSN 536-90-4399": ("card [CARD], SSN [SSN]", ["CARD", "SSN"]),
    "über 👩‍🚀 a.keller@web.de ‏שלום\u2028": ("über 👩‍🚀 [EMAIL] ‏שלום\u2028", ["EMAIL"]),
}


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_each_value_becomes_a_mark_of_its_kind(text: str) -> None:
    assert redact(text) == TEXTS[text]
    assert redact(redact(text)[0]) == (redact(text)[0], [])


@pytest.mark.parametrize(
    "text", ["", "nothing here", "jane@example.com, 555-0123, AKIAIOSFODNN7EXAMPLE", '{"n": 1.50, "id": 12345678901234567890123}', "[1, 2", "\ud83d"]
)
def test_clean_texts_stay_as_they_are(text: str) -> None:
    assert redact(text) == (text, [])


def test_json_inside_a_text_keeps_how_it_is_written() -> None:
    text = f'{{ "n": 1.50,  "id": 12345678901234567890123, "to": ["a.keller@web.de", "é\\u00e9"], "t": "\\u0067hp_{GITHUB[4:]}" }}'
    told, kinds = redact(text)
    assert told == '{ "n": 1.50,  "id": 12345678901234567890123, "to": ["[EMAIL]", "é\\u00e9"], "t": "[REDACTED:github-token]" }'
    assert kinds == ["EMAIL", "github-token"]


def test_keys_tell_what_a_value_is() -> None:
    assert redact(SECRET) == (SECRET, [])
    assert redact(SECRET, "aws_secret_access_key") == ("[REDACTED:aws-secret]", ["aws-secret"])
    told, kinds = redact_value({"aws_secret_access_key": SECRET, "n": 3, "more": [None, True, {"phone": "0304433221"}], "content": "q"})
    assert told == {"aws_secret_access_key": "[REDACTED:aws-secret]", "n": 3, "more": [None, True, {"phone": "[PHONE]"}], "content": "q"}
    assert kinds == ["aws-secret", "PHONE"]


def test_a_redacted_file_is_clean(check: Check) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": json.dumps({"aws_secret_access_key": SECRET, "to": "a.keller@web.de"})}}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    turns = [
        {"role": "user", "content": "my card is 4539 1488 0343 6467"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": GITHUB},
        {"role": "assistant", "content": "Call +1 415-495-6500 or write to a.keller@web.de"},
    ]
    rows: list[object] = [
        {"messages": turns, "tools": [tool], "metadata": {"phone": "0304433221", "key": SECRET, "aws_secret_key": SECRET}},
        chat(answer="from 93.184.216.34 by 536-90-4399"),
    ]
    assert {finding.id for finding in check([*GOOD, *rows], level="deep").findings} >= {"D07", "D08"}
    redacted = [msgspec.json.encode(redact_value(row)[0]) for row in rows]
    assert not {finding.id for finding in check([*GOOD, *redacted], level="deep").findings} & {"D07", "D08"}
