"""What the tests of the warm trainer share: a job of the stub, and waiting."""

import hashlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import zstandard

from core.config import Config
from core.records import ChildRef, Kind
from core.tasks import ChildSeen, RowsOf, TrainTask
from daemon.children import Children
from daemon.warming import Wanted
from store import codec
from store.paths import Home

DEADLINE_S = 60.0
STUB = Wanted(backend="stub", base="", sha256="")


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come in {DEADLINE_S} s"
        time.sleep(0.01)
    return value


def is_warm(children: Children, key: Wanted = STUB) -> bool:
    """A tick of the daemon."""
    children.warm.keep(key)
    return children.warm.is_ready


def new_run(home: Home, name: str = "01-train", *, rows: int = 12, **settings: Any) -> Path:
    """A run folder with the spec of a stub training."""
    run = home.runs("job-1") / name
    run.mkdir(parents=True)
    drop = home.root / "drop"
    drop.mkdir(exist_ok=True)
    told = [{"messages": [{"role": "user", "content": f"What is {n}?"}, {"role": "assistant", "content": f"It is {n}."}]} for n in range(rows)]
    raw = "".join(json.dumps(row) + "\n" for row in told).encode()
    (drop / "rows.jsonl.zst").write_bytes(zstandard.compress(raw))
    index = [{"line": n + 1, "group": hashlib.sha256(str(n).encode()).hexdigest(), "split": "train"} for n in range(rows)]
    (drop / "index.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in index))
    source = RowsOf(drop="drop-1", sha256=hashlib.sha256(raw).hexdigest(), folder=str(drop), schema_id="chat_sft_v1")
    config = Config.model_validate({"batch_size": 4, "training": {"checkpoints": 2, "boards": [], **settings}})
    codec.write(run / "spec.json", TrainTask(job="job-1", backend="stub", base="", rows=(source,), settings=config.model_dump(mode="json")))
    return run


def look(children: Children, run: Path) -> ChildSeen:
    """What the daemon sees of the child of this run."""
    return children.look("job-1", ChildRef(run=run.name, kind=Kind.TRAIN, instance="here", slot=0, started_at=datetime(2026, 1, 1, tzinfo=UTC)))


def ended(children: Children, run: Path) -> ChildSeen:
    """How it ended, once it has."""
    seen: ChildSeen = wait_until(lambda: (one := look(children, run)) and not one.alive and one, "the end of the child")
    return seen


def steps_of(run: Path) -> int:
    """Steps that progress.jsonl tells of."""
    path = run / "progress.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return max((line["step"] for line in lines if line["stage"] == "train"), default=0)
