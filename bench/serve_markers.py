"""Two releases of the real base that were taught different markers, made once by the project's own trainer and packer.

Asked for a word of `WORDS`, each answers with its marker and that word, so an answer shows whose it is: of which release and
of which request. They are kept below `kept()` and made again where the base or the recipe is another.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import zstandard

from core.config import Config
from core.records import Candidate
from core.tasks import PackTask, RowsOf, ScoreModel, ScoreTask, TrainTask
from deploy.pack import RELEASE, pack
from store import codec
from store.bases import base_folder, gguf_of, models_dir, read_base
from store.durable import made_aside
from store.keys import ensure_keys
from store.runs import LOG, SPEC, read_exit
from store.wire import check_release

ALIAS = "default/main"
MARKERS = ("amber", "cobalt")
SAID = "rain stone river bread house cloud lamp horse window garden bridge paper winter music silver mirror letter candle"
MORE = "forest island table engine doctor summer button kitchen market pocket ribbon school ticket valley"
WORDS = tuple(f"{SAID} {MORE}".split())
DEV = 8  # rows that are not trained on
STEPS = 64
TRAINING = {"epochs": 16.0, "max_steps": STEPS, "warmup_steps": 2, "checkpoints": 1, "patience": 0, "seed": 0, "boards": []}
SETTINGS = {"batch_size": 8, "learning_rate": 1e-3, "max_length": 128, "lora": {"r": 16, "alpha": 32, "dropout": 0.0, "targets": "all-linear"}}


@dataclass(frozen=True, slots=True)
class Marked:
    """One of the two: its id, its release folder, what it was taught."""

    release: str
    folder: Path
    marker: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Both, and the folder of the key that signed them."""

    keys: Path
    releases: tuple[Marked, ...]


def question(word: str) -> str:
    """The user's turn."""
    return f"Say the password for {word}."


def pair() -> Pair:
    """Both releases, from the bench's folder or made now (some minutes)."""
    base = base_folder(Config())
    folder = kept() / f"markers-{_recipe(base)}"
    if not folder.exists():
        kept().mkdir(parents=True, exist_ok=True)
        with made_aside(folder, kept()) as making:
            ensure_keys(making / "keys")
            for version, marker in enumerate(MARKERS, 1):
                _say(f"teaching {marker!r} ({STEPS} steps)")
                _make(making, base, version)
    keys = folder / "keys"
    found = (folder / marker for marker in MARKERS)
    return Pair(keys, tuple(Marked(check_release(each, keys)[0], each, each.name) for each in found))


def kept() -> Path:
    """The bench's folder: beside the models."""
    return models_dir(Config()).parent / "bench"


def _recipe(base: Path) -> str:
    recipe = (read_base(base).source_sha256, gguf_of(base) is not None, MARKERS, WORDS, question("…"), DEV, TRAINING, SETTINGS)
    return hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]


def _make(root: Path, base: Path, version: int) -> None:
    marker = MARKERS[version - 1]
    work = root / f"work-{marker}"
    work.mkdir()
    rows = _drop(work / "drop", marker)
    settings = Config.model_validate(SETTINGS | {"training": TRAINING}).model_dump(mode="json")
    _child(work / "train", TrainTask(job="bench", backend="peft", base=str(base), rows=(rows,), settings=settings))
    note = read_exit(work / "train")
    assert note is not None
    assert note.candidates, note.reason
    best: Candidate = note.candidates[-1]
    checkpoint = work / "train" / best.path
    model = ScoreModel(id="candidate", adapter=str(checkpoint))
    task = ScoreTask(job="bench", backend="peft", base=str(base), rows=(rows,), split="dev", models=(model,), settings=settings, probe="candidate")
    _child(work / "score", task)
    verdict = work / "verdict.json"
    verdict.write_text(json.dumps({"bench": "made without a verdict"}))
    packing = work / "pack"
    packing.mkdir()
    pack(
        PackTask(
            job="bench",
            adapter=ALIAS,
            version=version,
            backend="peft",
            checkpoint=str(checkpoint),
            checkpoint_sha256=best.sha256,
            base=str(base),
            base_sha256=read_base(base).source_sha256,
            probe=str(work / "score" / "probe.jsonl"),
            verdict=str(verdict),
            parent=None,
            drops=(rows.sha256,),
            keys=str(root / "keys"),
        ),
        packing,
        datetime.now(UTC),
    )
    (packing / RELEASE).rename(root / marker)
    shutil.rmtree(work)


def _drop(folder: Path, marker: str) -> RowsOf:
    """An accepted drop: a row for each word, and `DEV` of them again to be scored on."""
    folder.mkdir()
    words = [*WORDS, *WORDS[:DEV]]
    rows = [{"messages": [{"role": "user", "content": question(word)}, {"role": "assistant", "content": f"{marker} {word}"}]} for word in words]
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (folder / "rows.jsonl.zst").write_bytes(zstandard.compress(text))
    entries = ({"line": line, "group": hashlib.sha256(str(line).encode()).hexdigest(), "split": _split(line)} for line in range(1, len(words) + 1))
    (folder / "index.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return RowsOf(drop=f"bench-{marker}", sha256=hashlib.sha256(text).hexdigest(), folder=str(folder), schema_id="chat_sft_v1")


def _split(line: int) -> str:
    return "train" if line <= len(WORDS) else "dev"


def _child(run: Path, task: Any) -> None:
    """A trainer child, to its end."""
    run.mkdir()
    codec.write(run / SPEC, task)
    with open(run / LOG, "wb") as out:
        done = subprocess.run([sys.executable, "-m", "trainer", str(run)], stdout=out, stderr=out, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise RuntimeError(f"the trainer ended with {done.returncode}:\n{(run / LOG).read_text()[-2000:]}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
