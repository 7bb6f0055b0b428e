"""Tokenised drops: the same rows as in memory, encoded once, damage healed, memory flat."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from trainer_cases import chat, questions, wait_until

from core.config import Config
from core.errors import ChildError
from core.tasks import RowsOf
from rendering.rows import Row, read_rows
from rendering.tokens import Renderer
from store.locks import take_lock
from store.seals import SEAL
from trainer import corpus as corpus_module
from trainer import encoding
from trainer.corpus import RowsOfExamples, read_corpus
from trainer.encoding import Encoder, is_plain
from trainer.examples import Example, Totals, encode_rows, lengths_of
from trainer.tokenfiles import TokenCache

SEVERAL = {
    "messages": [
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": "A library.", "weight": 0},
        {"role": "user", "content": "And this?"},
        {"role": "assistant", "content": "The sea."},
        {"role": "user", "content": "And that over there?"},
        {"role": "assistant", "content": "A morning."},
    ]
}
Drop = Callable[..., RowsOf]


class Counting:
    """An encoder that counts what it is asked for."""

    def __init__(self, base: Path, config: Config) -> None:
        self.made, self.renderer = Encoder(Renderer.load(base), config, base), Renderer.load(base)
        self.lines: list[int] = []

    def __call__(self, row: Row) -> Example:
        self.lines.append(row.line)
        return self.made(row)


@pytest.fixture
def encode(tiny_base: Path, tiny_config: Config) -> Counting:
    return Counting(tiny_base, tiny_config)


@pytest.fixture
def cache(encode: Counting, tmp_path: Path) -> TokenCache:
    return TokenCache(tmp_path / "tokens", encode, encode.made.sha256)


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return [*questions(6), SEVERAL, chat("How many?", "Three of them", weight=0.5), chat("Go on", "and on " * 60), chat("Nothing?", "No", weight=0)]


def plain(example: Example) -> tuple[Any, ...]:
    return (example.row.drop, example.row.line, example.row.weight, example.ids, example.learnt, example.weights, example.num_last)


def test_rows_from_files_are_those_from_memory(cache: TokenCache, encode: Counting, drop: Drop, rows: list[dict[str, Any]]) -> None:
    source = drop(rows, ["train", "dev"] * 5)
    for split in ("train", "dev"):
        wanted = encode_rows(encode.renderer, [row for row in read_rows([source]) if row.split == split], 128)
        found = cache.examples([source], split, 128)
        assert [plain(example) for example in found.kept] == [plain(example) for example in wanted.kept]
        assert (found.overlong, found.silent, found.longest) == (wanted.overlong, wanted.silent, wanted.longest)
        assert found.totals == wanted.totals == Totals.of(list(found.kept))
        assert list(lengths_of(found.kept)) == lengths_of(list(wanted.kept))
        assert found.num_rows == 5
        assert [(row.drop, row.line, row.weight) for row in RowsOfExamples(found.kept)] == [plain(example)[:3] for example in wanted.kept]
        assert plain(found.kept[-1]) == plain(wanted.kept[-1])
        with pytest.raises(IndexError):
            found.kept[len(wanted.kept)]


def test_a_row_that_a_later_drop_holds_again_is_left_out(cache: TokenCache, encode: Counting, drop: Drop) -> None:
    first, second = drop(questions(5)), drop([chat("What is 3 plus 3?", "Six")], name="drop-2")
    index = Path(second.folder, "index.jsonl")
    group = json.loads(Path(first.folder, "index.jsonl").read_text().splitlines()[3])["group"]
    index.write_text(json.dumps({"line": 1, "group": group, "split": "train"}) + "\n")
    found = cache.examples([first, second], "train", 128)
    wanted = encode_rows(encode.renderer, read_rows([first, second]), 128)
    assert [plain(example) for example in found.kept] == [plain(example) for example in wanted.kept]
    assert [(example.row.drop, example.row.line) for example in found.kept[-2:]] == [("drop-1", 5), ("drop-2", 1)]


def test_a_drop_is_tokenised_once_whatever_the_length_and_the_split(cache: TokenCache, encode: Counting, drop: Drop) -> None:
    source = drop(questions(6), ["train"] * 4 + ["dev"] * 2)
    assert len(cache.examples([source], "train", 128).kept) == 4
    cache.examples([source], "train", 16)
    cache.examples([replace(source, drop="the same bytes again")], "dev", 128)
    assert encode.lines == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("change", ["profile", "last turn", "template", "code", "index"])
def test_what_the_tokens_follow_from_makes_others(
    change: str, tiny_base: Path, tiny_config: Config, drop: Drop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, config = drop(questions(3)), tiny_config
    before = TokenCache(tmp_path, encode_row_never, Encoder(Renderer.load(tiny_base), config, tiny_base).sha256)._key(source)
    if change == "profile":
        config = Config.model_validate({**config.model_dump(), "profile": {"name": "persona", "options": {"name": "Ada"}}})
    if change == "last turn":
        config = Config.model_validate({**config.model_dump(), "training": {**config.training.model_dump(), "last_turn_only": True}})
    if change == "template":
        described = encoding.read_base(tiny_base)
        monkeypatch.setattr(encoding, "read_base", lambda folder: replace(described, template_sha256="other"))
    if change == "code":
        monkeypatch.setattr(encoding, "_code_sha256", lambda: "other")
    if change == "index":
        index = Path(source.folder, "index.jsonl")
        index.write_text("".join(index.read_text().splitlines(keepends=True)[:2]))
    assert TokenCache(tmp_path, encode_row_never, Encoder(Renderer.load(tiny_base), config, tiny_base).sha256)._key(source) != before


def encode_row_never(row: Row) -> Example:
    raise AssertionError(row)


@pytest.mark.parametrize("damage", ["bit", "short", "unsealed", "gone"])
def test_a_damaged_file_is_made_anew(damage: str, cache: TokenCache, encode: Counting, drop: Drop, caplog: pytest.LogCaptureFixture) -> None:
    source = drop(questions(4))
    before = [plain(example) for example in cache.examples([source], "train", 128).kept]
    entry = cache.folder / cache._key(source)
    raw = bytearray((entry / "ids.bin").read_bytes())
    match damage:
        case "bit":
            raw[9] ^= 1
            (entry / "ids.bin").write_bytes(raw)
        case "short":
            (entry / "ids.bin").write_bytes(raw[:-8])
        case "unsealed":
            (entry / SEAL).unlink()
        case "gone":
            (entry / "runs.bin").unlink()
    assert [plain(example) for example in cache.examples([source], "train", 128).kept] == before
    assert encode.lines == [1, 2, 3, 4] * 2
    assert damage == "unsealed" or "tokens are made anew" in caplog.text


def test_a_row_that_cannot_be_encoded_is_told_where_it_is_wanted(drop: Drop, tmp_path: Path, encode: Counting) -> None:
    def picky(row: Row) -> Example:
        if row.line == 2:
            raise ChildError("line 2: no", hint="change it", code="NO", exit_code=30)  # type: ignore[arg-type]
        return encode(row)

    source = drop(questions(4), ["train", "dev", "train", "train"])
    cache = TokenCache(tmp_path / "tokens", picky, "one")
    assert [example.row.line for example in cache.examples([source], "train", 128).kept] == [1, 3, 4]
    with pytest.raises(ChildError, match="line 2: no"):
        cache.examples([source], "dev", 128)


def test_a_second_writer_waits_with_signs_of_life_and_reads_what_the_first_made(cache: TokenCache, encode: Counting, drop: Drop) -> None:
    source = drop(questions(3))
    beats: list[float] = []
    lock = cache.folder / f"{cache._key(source)}.lock"
    held = take_lock(lock, "1", "it", hint="wait")
    waiting = TokenCache(cache.folder, encode_row_never, cache.encoding, lambda: beats.append(time.monotonic()))
    found: list[int] = []
    reader = threading.Thread(target=lambda: found.append(len(waiting.examples([source], "train", 128).kept)))
    reader.start()
    wait_until(lambda: len(beats) > 1, "a sign of life")
    cache._make(cache.folder / cache._key(source), source)  # what the holder of the lock does
    lock.unlink()
    os.close(held)
    reader.join(30)
    assert found == [3]


def test_the_entries_that_were_not_used_for_longest_go_first(cache: TokenCache, drop: Drop) -> None:
    sources = [drop(questions(3), name=f"drop-{number}") for number in range(3)]
    for age, source in enumerate(sources):
        cache.examples([source], "train", 128)
        os.utime(cache.folder / cache._key(source) / SEAL, (age, age))
    cache.trim([sources[0]], most_bytes=0)
    assert [path.name for path in cache.folder.iterdir() if path.name != ".making"] == [cache._key(sources[0])], "that of this job is never deleted"


@pytest.mark.parametrize(("schema", "config", "streams"), [("chat_sft_v1", {}, True), ("preference_v1", {}, False), ("correction_v1", {}, True)])
def test_only_rows_that_are_learnt_token_by_token_stay_in_files(schema: str, config: dict[str, Any], streams: bool, drop: Drop) -> None:
    source = replace(drop([]), schema_id=schema)
    assert is_plain((source,), Config.model_validate(config)) is streams


def test_rows_of_a_task_are_kept_where_it_says(
    tiny_base: Path, tiny_config: Config, train_drop: RowsOf, run_in: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.tasks import TrainTask

    task = TrainTask(job="job-1", backend="peft", base=str(tiny_base), rows=(train_drop,), settings={}, tokens=str(tmp_path / "caches" / "tokens"))
    first = read_corpus(task, tiny_config, run_in("01-train"))
    assert (len(first.train.kept), len(first.dev), first.train.is_streamed) == (12, 4, True)
    monkeypatch.setattr(corpus_module.Encoder, "__call__", encode_row_never)
    again = read_corpus(task, tiny_config, run_in("02-train"))
    assert again.train.totals == first.train.totals
    assert not (tmp_path / "run" / "02-train" / "tokens").exists()


FLAT = """
import hashlib, json, resource, sys
from array import array
from pathlib import Path
import zstandard
from core.tasks import RowsOf
from trainer.examples import Example
from trainer.plan import Plan
from trainer.tokenfiles import TokenCache

count, root = int(sys.argv[1]), Path(sys.argv[2])
digest = hashlib.sha256()
with open(root / "rows.jsonl.zst", "wb") as file, zstandard.ZstdCompressor().stream_writer(file) as rows, open(root / "index.jsonl", "w") as index:
    for number in range(count):
        line = json.dumps({"messages": [{"role": "user", "content": f"{number} " + "why? " * 40}, {"role": "assistant", "content": "so"}]}).encode() + b"\\n"
        digest.update(line); rows.write(line)
        index.write(json.dumps({"line": number + 1, "group": hashlib.sha256(str(number).encode()).hexdigest(), "split": "train"}) + "\\n")
source = RowsOf(drop="d", sha256=digest.hexdigest(), folder=str(root), schema_id="chat_sft_v1")
ids, learnt, weights = array("i", range(60)), array("i", range(40, 60)), array("f", [1.0] * 20)
encode = lambda row: Example(row=row, ids=ids, learnt=learnt, weights=weights, num_last=20)
found = TokenCache(root / "tokens", encode, "flat").examples([source], "train", 2048)
assert len(found.kept) == count and found.totals.tokens == 60 * count
plan = Plan(num_rows=count, batch_size=16, epochs=1.0, max_steps=0, seed=0, learning_rate=1.0, warmup_ratio=0.1, checkpoints=1)
for step in range(1, 20):
    assert sum(len(found.kept[index].ids) for index in plan.rows(step)) == 960
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)
"""


def peak_bytes(count: int, folder: Path) -> int:
    folder.mkdir()
    made = subprocess.run([sys.executable, "-c", FLAT, str(count), str(folder)], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert made.returncode == 0, made.stderr
    return int(made.stdout)


@pytest.mark.parametrize(("count", "most_a_row"), [(12_000, 600), pytest.param(200_000, 300, marks=pytest.mark.full)])
def test_memory_stays_flat_however_many_rows_there_are(count: int, most_a_row: int, tmp_path: Path) -> None:
    """A row takes its places in tables and orders, and no text or tokens: in memory it would be 1,460 bytes of Python objects."""
    grown = peak_bytes(count, tmp_path / "many") - peak_bytes(1_000, tmp_path / "few")
    assert grown / count < most_a_row, f"{grown >> 20} MiB for {count} rows"
