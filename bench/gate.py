"""How fast the gate reads: rows a second of each level against named opponents, over one file of real sentences.

Each measurement is a process of its own, so that its peak memory is its own. Rounds are interleaved; the best of each counts.
"""

import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "tests" / "data" / "real"
ROUNDS = 3
ROWS = 1_000_000
SENTENCES_A_ROW = 7.7  # gives rows of about 870 bytes
EXACT_SHARE, NEAR_SHARE = 0.02, 0.04
OPPONENT_ROWS = 4_000


def measure(rows: int = ROWS) -> tuple[dict[str, Any], dict[str, Any]]:
    """(figures, opponents)."""
    with tempfile.TemporaryDirectory() as folder:
        path, small = Path(folder, "rows.jsonl"), Path(folder, "small.jsonl")
        say(f"writing {rows:,} rows")
        write_rows(path, rows)
        write_rows(small, 300)
        quick, plain = [], []
        for _ in range(ROUNDS):
            plain.append(run("plain", path))
            quick.append(run("quick", path))
        standard, templates = [], []
        for _ in range(2):
            templates.append(run("template", path))
            standard.append(run("standard", path))
        deep = run("deep", path)
        full = run("deep-with-models", path)
        command = sorted(command_s(small) for _ in range(5))
    best, rate = min(one["seconds"] for one in quick), rows / min(one["seconds"] for one in standard)
    template = max(one["rows_s"] for one in templates)
    figures = {
        "rows": rows,
        "quick_ratio": round(min(one["seconds"] for one in plain) / best, 2),
        "quick_rows_s": round(rows / best),
        "standard_s": round(rows / rate, 1),
        "standard_ratio": round(rate / template, 1),
        "deep_rows_s": round(rows / deep["seconds"]),
        "deep_full_s": round(full["seconds"], 1),
        "peak_mb": {"quick": quick[0]["peak_mb"], "standard": standard[0]["peak_mb"], "deep": deep["peak_mb"], "deep with models": full["peak_mb"]},
        "command_300_rows_s": round(command[0], 3),
        "not_run": {"standard": standard[0]["not_run"], "deep": full["not_run"]},
    }
    opponents = {
        "quick": f"`for line: json.loads(line)`, {round(rows / min(one['seconds'] for one in plain)):,} rows/s",
        "standard": f"transformers apply_chat_template with tokenisation, {round(template):,} rows/s",
    }
    return figures, opponents


def say(text: str) -> None:
    print(text, file=sys.stderr)


def run(what: str, path: Path) -> dict[str, Any]:
    """One measurement in a fresh process."""
    say(f"measuring {what}")
    found = subprocess.run([sys.executable, "-m", "bench.gate", what, str(path)], stdout=subprocess.PIPE, check=True)
    result: dict[str, Any] = json.loads(found.stdout)
    return result


def command_s(path: Path) -> float:
    """`lorad check` of a small file at QUICK, start included."""
    lorad = str(Path(sys.executable).with_name("lorad"))
    started = time.perf_counter()
    subprocess.run([lorad, "check", str(path), "--level", "quick"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


# --- the file


def sentences() -> list[str]:
    """Real sentences, from mathematics, dialogues, notes and letters."""
    found: list[str] = []
    for name in ("gsm8k_train_chat", "oasst_chat", "sgd_chat"):
        for row in rows_of(name):
            found += [part for message in row["messages"] for part in split(message["content"])]
    for name in ("beethoven_letters", "til_notes"):
        for row in rows_of(name):
            found += split(row["text"])
    # Notes hold control tokens on purpose; a row with one would be refused.
    return [sentence for sentence in found if "<|" not in sentence]


def rows_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_bytes().split(b"\n") if line]


def split(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=[.!?])\s+", text) if len(part) > 8]


def write_rows(path: Path, rows: int) -> None:
    """A file of conversations of 1 to 5 exchanges, with exact and near duplicates."""
    with open(path, "w", encoding="utf-8") as file:
        for row in conversations(rows):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def conversations(rows: int) -> Iterator[dict[str, Any]]:
    rng, known = random.Random(1), sentences()  # noqa: S311 - rows, not secrets
    kept: list[dict[str, Any]] = []
    for _ in range(rows):
        chance = rng.random()
        if kept and chance < EXACT_SHARE:
            yield rng.choice(kept)
            continue
        if kept and chance < EXACT_SHARE + NEAR_SHARE:
            near = json.loads(json.dumps(rng.choice(kept)))
            near["messages"][-1]["content"] += " " + rng.choice(known)
            yield near
            continue
        exchanges = rng.choice([1, 1, 2, 2, 3, 4, 5])
        each = max(1, round(SENTENCES_A_ROW / (2 * exchanges)))
        turns = [{"role": role, "content": " ".join(rng.choices(known, k=each))} for _ in range(exchanges) for role in ("user", "assistant")]
        row = {"messages": turns}
        if len(kept) < 5_000:
            kept.append(row)
        yield row


# --- what is measured, each in a process of its own


def plain(path: Path) -> dict[str, Any]:
    started = time.perf_counter()
    with open(path, "rb") as file:
        for line in file:
            json.loads(line)
    return {"seconds": time.perf_counter() - started}


def template(path: Path) -> dict[str, Any]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base())
    with open(path, "rb") as file:
        rows = [json.loads(next(file))["messages"] for _ in range(OPPONENT_ROWS)]
    started = time.perf_counter()
    for messages in rows:
        tokenizer.apply_chat_template(messages, tokenize=True)
    return {"rows_s": len(rows) / (time.perf_counter() - started)}


def base() -> str:
    from core.config import Config
    from store.bases import base_folder

    return str(base_folder(Config()))


def level(name: str, path: Path, processes: int, models: bool) -> dict[str, Any]:
    from core.config import Config
    from core.names import SENTENCE_MODEL
    from store.bases import models_dir
    from validation import DataValidator
    from validation.context import Surroundings
    from validation.examination import Setting

    embedder = str(models_dir(Config()) / SENTENCE_MODEL) if models else ""
    around = Surroundings(base=base(), max_length=1024, embedder=embedder) if name != "quick" else Surroundings()
    started = time.perf_counter()
    report = DataValidator(setting=Setting(around=around, processes=processes)).check_file(path, level=name)
    return {"seconds": time.perf_counter() - started, "verdict": report.verdict, "not_run": report.stats.get("checks_not_run")}


def main(what: str, path: Path) -> dict[str, Any]:
    kinds = {
        "plain": lambda: plain(path),
        "template": lambda: template(path),
        "quick": lambda: level("quick", path, 1, False),
        "standard": lambda: level("standard", path, 2, False),
        "deep": lambda: level("deep", path, 2, False),
        "deep-with-models": lambda: level("deep", path, 2, True),
    }
    found = kinds[what]()
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return found | {"peak_mb": (own.ru_maxrss + children.ru_maxrss) >> 10, "load": os.getloadavg()[0]}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
