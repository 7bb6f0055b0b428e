"""Results of suites: the file of each model, and the cache by content. No tensors.

A file is a header, as score files have, and one line an item: {"item", "group", "value"}. The cache holds whole results
alone, under a hash of everything that they hang on; it holds no text.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from core.errors import ChildError, LoradError
from core.exits import ChildExit
from core.tasks import ScoreModel, ScoreTask, SuiteOf
from rendering.suites import HARNESS, Suite, file_name, read_suite
from store.durable import replace_file
from store.seals import hash_file
from trainer.run import RunFolder
from trainer.scores import SCORES, Header
from trainer.stopping import RULE, Outcome

MOST_KEPT = 2000  # results in the cache, some 10 KB each


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """What a model made of one item, 0 to 1."""

    item: str
    group: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The values of one model on one suite. `num_items` is how many the suite has; more than `values` where it stopped early."""

    suite: SuiteOf
    values: tuple[Value, ...]
    num_items: int
    generated: bool
    against: str = ""
    outcome: Outcome = ""

    @property
    def is_whole(self) -> bool:
        """Whether every item was asked."""
        return len(self.values) == self.num_items

    @property
    def mean(self) -> float:
        """Of the values that there are."""
        return sum(value.value for value in self.values) / len(self.values) if self.values else 0.0


def write_suite(run: RunFolder, header: Header, result: Result) -> None:
    """Write `scores/suite-<name>-<model>.jsonl`, and name it in the run's note under `suite/<name>/<model>`.

    The header has more than that of a score file: `suite` {name, sha256, items, generated}, and `stopping` {rule, against,
    outcome, items} where a generated one was compared with a reference as it went.
    """
    suite = result.suite
    more: dict[str, object] = {"suite": {"name": suite.name, "sha256": suite.sha256, "items": result.num_items, "generated": result.generated}}
    if result.against:
        more["stopping"] = {"rule": RULE, "against": result.against, "outcome": result.outcome, "items": len(result.values)}
    own = replace(header, split=f"suite/{suite.name}", more=more)
    lines = [json.dumps({"item": one.item, "group": one.group, "value": one.value}) for one in result.values]
    path = Path(SCORES, file_name(suite.name, header.model))
    (run.root / SCORES).mkdir(exist_ok=True)
    replace_file(run.root / path, "\n".join([own.line(), *lines]) + "\n")
    run.scores[f"suite/{suite.name}/{header.model}"] = str(path)


def is_harness(suite: SuiteOf) -> bool:
    """Whether lm-evaluation-harness scores it."""
    return suite.name.startswith(HARNESS)


def suite_of(suite: SuiteOf) -> Suite:
    """The suite of a task, as it was when the task was written. Raises ChildError BAD_SPEC."""
    try:
        found = read_suite(Path(suite.path), suite.name)
    except LoradError as error:
        raise ChildError(error.what, hint=error.hint, code=error.code, exit_code=ChildExit.BAD_SPEC) from None
    if found.sha256 != suite.sha256:
        raise ChildError(
            f"the suite {suite.name!r} was changed while the job was ranked", hint="`lorad jobs retry ID`", code="SUITE_CHANGED", exit_code=ChildExit.BAD_SPEC
        )
    return found


@dataclass(frozen=True, slots=True)
class ResultCache:
    """Whole results by (model hash, suite hash, settings). A damaged one is as good as none."""

    folder: Path

    @classmethod
    def of(cls, task: ScoreTask, run: RunFolder) -> "ResultCache":
        """Where the task says; else below the run folder, where only this run sees it."""
        return cls(Path(task.cache) if task.cache else run.root / "suites")

    def get(self, key: str, suite: SuiteOf) -> Result | None:
        """The result under this key."""
        try:
            kept = json.loads((self.folder / f"{key}.json").read_bytes())
            values = tuple(Value(item=str(item), group=str(group), value=float(value)) for item, group, value in kept["values"])
            result = Result(suite=suite, values=values, num_items=len(values), generated=bool(kept["generated"]))
            return result if values and kept["sha256"] == _sha256_of(values) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, result: Result) -> None:
        """Keep a whole result; the oldest go where there are too many."""
        assert result.is_whole, "a result that stopped early hangs on its reference"
        self.folder.mkdir(parents=True, exist_ok=True)
        plain = [[one.item, one.group, one.value] for one in result.values]
        kept = {"suite": result.suite.name, "generated": result.generated, "sha256": _sha256_of(result.values), "values": plain}
        replace_file(self.folder / f"{key}.json", json.dumps(kept), durable=False)
        for path in list(_oldest_first(self.folder))[:-MOST_KEPT]:
            path.unlink(missing_ok=True)


def _sha256_of(values: tuple[Value, ...]) -> str:
    return hashlib.sha256(json.dumps([[one.item, one.group, one.value] for one in values]).encode()).hexdigest()


def _oldest_first(folder: Path) -> Iterator[Path]:
    found = []
    for path in folder.glob("*.json"):
        with suppress(OSError):  # another child removed it
            found.append((path.stat().st_mtime, path))
    return (path for _, path in sorted(found))


def model_sha256(model: ScoreModel, base_sha256: str) -> str:
    """Over the base and the adapter's files: what a model's answers hang on. Raises OSError."""
    parts = [base_sha256]
    if model.adapter is not None:
        parts += [hash_file(path) for path in sorted(Path(model.adapter).glob("adapter_*"))]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def key_of(model_hash: str, suite: SuiteOf, settings: Mapping[str, object]) -> str:
    """The name of a result in the cache."""
    return hashlib.sha256(json.dumps([model_hash, suite.name, suite.sha256, settings], sort_keys=True).encode()).hexdigest()
