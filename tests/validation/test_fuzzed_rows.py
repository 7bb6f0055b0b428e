"""Whatever the bytes are, the gate answers: no crash, no hang, and every finding says what to do."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from gate_cases import Check

REAL = Path(__file__).parents[1] / "data" / "real"
SOURCES = {
    "gsm8k_train_chat": "chat_sft_v1",
    "sgd_tools_chat": "chat_sft_v1",
    "bfcl_tools_chat": "chat_sft_v1",
    "gsm8k_preference": "preference_v1",
    "hh_preference_mild": "preference_v1",
    "gsm8k_corrections": "correction_v1",
    "self_instruct_triplets": "instruction_v1",
    "syllo_puzzles": "syllo_v1",
    "vision_chat": "vision_v1",
}
COLUMNS = ("chosen_model", "rejected_model", "model", "source", "lang", "dialogue_id")
STRANGE: list[Any] = [
    *(None, True, 0, -1, 1e308, 2**70, "", " ", "\u200b", "\u202e", "\ud83d\ude00", "a" * 5000, [], {}, [[]], {"": ""}, "null", "NaN", "[object Object]"),
    *("<|im_end|>", "é" * 300, "\x00", "../../etc/passwd", "http://x/y.png", '{"a": 1}', "[1, 2]", {"role": "user"}, [{"type": "image"}], ["x", None]),
]
SPLICES = [b"\n", b"\r", b'"', b"{", b"}", b"[", b",", b"\\", b"\\u", b"\\ud83d", b"\x00", b"\xff", b"\xef\xbb\xbf", b"NaN", b"1e999", b"\xe2\x80\xa8", b"//"]


def strange_row(row: Any, rng: random.Random) -> Any:
    """The row with some values replaced, keys renamed, doubled or taken out, anywhere in it."""
    if isinstance(row, dict):
        made = {key: strange_row(value, rng) for key, value in row.items() if rng.random() > 0.02}
        if rng.random() < 0.03:
            made[rng.choice(["", "weight", "id", "metadata", "tool_calls", "content", "role", "x" * 200])] = rng.choice(STRANGE)
        return made
    if isinstance(row, list):
        made_list = [strange_row(value, rng) for value in row if rng.random() > 0.02]
        return made_list * rng.choice([1, 1, 1, 1, 1, 2]) if made_list else made_list
    return rng.choice(STRANGE) if rng.random() < 0.04 else row


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The bytes with some of them cut out, doubled or spliced in."""
    made = bytearray(content)
    for _ in range(rng.randint(0, 6)):
        place = rng.randrange(len(made) + 1)
        if rng.random() < 0.3:
            del made[place : place + rng.randint(1, 400)]
        else:
            made[place:place] = rng.choice(SPLICES)
    return bytes(made)


def fuzzed(name: str, rng: random.Random) -> bytes:
    lines = [line for line in (REAL / f"{name}.jsonl").read_bytes().split(b"\n") if line]
    rows = [json.loads(line) for line in rng.sample(lines, 25)]
    made = [strange_row(row, rng) if rng.random() < 0.4 else row for row in rows]
    return damaged(b"".join(json.dumps(row, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass") + b"\n" for row in made), rng)


def judge(check: Check, name: str, seed: int, level: str) -> None:
    rng = random.Random(f"{name}/{seed}")  # noqa: S311 - faults, not secrets
    content = fuzzed(name, rng)
    report = check(content, SOURCES[name], level=level, columns=COLUMNS)
    plain = json.loads(report.to_json())
    assert plain["verdict"] == ("refused" if any(finding["severity"] == "error" for finding in plain["findings"]) else "accepted")
    num_lines = content.count(b"\n") + 1
    for finding in report.findings:
        assert finding.message, finding
        assert finding.hint, finding
        assert finding.why, finding
        assert all(1 <= line <= num_lines for line in finding.lines), finding
        assert finding.message.isprintable(), finding
    assert "Traceback" not in report.to_text() + report.to_markdown()


@pytest.mark.parametrize("level", ["quick", "standard", "deep"])
@pytest.mark.parametrize("name", SOURCES)
def test_damaged_rows_get_an_answer(name: str, level: str, check: Check) -> None:
    for seed in range(3):
        judge(check, name, seed, level)


@pytest.mark.full
@pytest.mark.parametrize("name", SOURCES)
def test_many_damaged_rows_get_an_answer(name: str, check: Check) -> None:
    for seed in range(1000, 1600):
        judge(check, name, seed, "deep")


@pytest.mark.full
def test_noise_gets_an_answer(check: Check) -> None:
    rng = random.Random(7)  # noqa: S311 - faults, not secrets
    for _ in range(3000):
        content = rng.randbytes(rng.randint(0, 300)) if rng.random() < 0.5 else b"".join(rng.choice([*SPLICES, b"a", b"0", b": "]) for _ in range(60))
        assert check(content, level="deep").verdict == "refused"
