"""What `lorad plan` finds out about a file: its rows, tokens and groups, and those of earlier drops that it would train with."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.setting import Target
from core.config import Config
from core.errors import LoradError
from core.splits import RowKey, group_rows

if TYPE_CHECKING:
    from core.estimate import Wanted
    from core.records import Drop, Job
    from rendering.rows import Row
    from rendering.specs import Message, Tools
    from store.paths import Home

AT_ONCE = 2_000  # rows that are counted together
Read = tuple[Sequence["Message"], "Tools", float]


@dataclass(slots=True)
class FileRows:
    """The rows of the file, one entry of each list a row. `unread`: lines that are no rows."""

    keys: list[RowKey] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    learnt: list[int] = field(default_factory=list)
    unread: int = 0

    def is_kept(self, place: int, max_length: int) -> bool:
        """Whether a model can read the row and learns from it."""
        return self.tokens[place] <= max_length and self.learnt[place] > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """The accepted drops of the adapter. `splits`: group -> split, of all; the counts are of the train rows that this file does not replace."""

    drops: int = 0
    splits: Mapping[str, str] = field(default_factory=dict)
    rows: int = 0
    tokens: int = 0
    learnt: int = 0
    dev_tokens: int = 0  # of dev and gate rows
    longest: int = 0  # tokens of the longest train row
    same: str = ""  # the newest that has the very bytes of the file
    note: str = ""


class Counter:
    """Counts tokens as the base's tokenizer and template do, or guesses where there is no base."""

    def __init__(self, base: str, *, is_stub: bool = False) -> None:
        self.note = ""
        self._counts: Any = None
        if not base:
            why = "the stub backend has no tokenizer" if is_stub else "no base model is here (`lorad models pull` fetches it)"
            self.note = f"{why}: tokens are guessed from bytes, which may be off by half"
            return
        from rendering.counting import ConversationCounter
        from rendering.folders import renderer_of

        self._counts = ConversationCounter(renderer_of(Path(base))).counts

    def counts(self, rows: Sequence[Read]) -> list[tuple[int, int]]:
        """(tokens, learnt tokens) of each row; a row of weight 0 teaches nothing."""
        if self._counts is None:
            from rendering.counting import guess_tokens

            found = [guess_tokens(messages) for messages, _, _ in rows]
        else:
            found = self._counts([messages for messages, _, _ in rows], [tools for _, tools, _ in rows])
        return [(tokens, learnt if weight else 0) for (tokens, learnt), (_, _, weight) in zip(found, rows, strict=True)]


def read_file(target: Target, counter: Counter) -> FileRows:
    """Every row of the file. What the gate would say of it is not looked at: lines that are no rows are counted. Raises LoradError."""
    found = FileRows()
    waiting: list[Read] = []
    for read in _rows_of(target, found):
        waiting.append(read)
        if len(waiting) >= AT_ONCE:
            _count(found, counter, waiting)
    _count(found, counter, waiting)
    return found


def _count(found: FileRows, counter: Counter, waiting: list[Read]) -> None:
    for tokens, learnt in counter.counts(waiting):
        found.tokens.append(tokens)
        found.learnt.append(learnt)
    waiting.clear()


def _rows_of(target: Target, found: FileRows) -> Iterator[Read]:
    from rendering.rows import BOM, row_key
    from rendering.specs import BAD_JSON

    spec = target.spec
    with open(target.file, "rb") as file:
        for number, line in enumerate(file):
            raw = (line.removeprefix(BOM) if number == 0 else line).strip()
            if not raw:
                continue
            try:
                row = spec.decode(raw)
                messages = spec.messages(row)
                key = row_key(spec, row, messages)
            except (*BAD_JSON, LoradError, LookupError, ValueError, RecursionError):
                found.unread += 1
                continue
            found.keys.append(key)
            yield messages, spec.tools(row), row.weight


# ---------------------------------------------------------------- what was accepted before


def earlier_of(place: "tuple[Home, str]", keys: Sequence[RowKey], sha256: str, counter: Counter, max_length: int) -> Earlier:
    """What the accepted drops of an adapter (`place`: home, its name) add to a training on the file with these keys and bytes.

    Damaged drops are left out, and said so.
    """
    home, adapter = place
    from core.records import Accepted
    from store.drops import read_drops

    if not (home.root / "drops").is_dir():
        return Earlier()
    drops = sorted((drop for drop in read_drops(home) if drop.claim.adapter == adapter and isinstance(drop.facts, Accepted)), key=lambda drop: drop.id)
    same = [drop.id for drop in drops if isinstance(drop.facts, Accepted) and drop.facts.sha256 == sha256]
    splits, note = _splits_of(home, drops)
    replaced = set(group_rows(keys, splits))
    rows, note = _trained_with(home, drops, note)
    counts = {"rows": 0, "tokens": 0, "learnt": 0, "dev_tokens": 0, "longest": 0}
    for start in range(0, len(rows), AT_ONCE):
        some = [row for row in rows[start : start + AT_ONCE] if row.group not in replaced]
        for row, (tokens, learnt) in zip(some, counter.counts([(row.messages, row.tools, row.weight) for row in some]), strict=True):
            if tokens > max_length or not learnt:
                continue
            if row.split == "train":
                counts["rows"], counts["tokens"], counts["learnt"] = counts["rows"] + 1, counts["tokens"] + tokens, counts["learnt"] + learnt
                counts["longest"] = max(counts["longest"], tokens)
            else:
                counts["dev_tokens"] += tokens
    return Earlier(drops=len(drops), splits=splits, note=note, same=same[-1] if same else "", **counts)


def _splits_of(home: "Home", drops: Sequence["Drop"]) -> tuple[dict[str, str], str]:
    from rendering.rows import INDEX, read_index
    from store.drops import rows_folder

    splits: dict[str, str] = {}
    note = ""
    for drop in drops:
        try:
            splits |= {row.group: row.split for row in read_index(rows_folder(home, drop.id) / INDEX)}
        except LoradError as error:
            note = error.what
    return splits, note


def _trained_with(home: "Home", drops: Sequence["Drop"], note: str) -> tuple[list["Row"], str]:
    """The rows of the drops that a new job trains on: not those that were set aside."""
    from core.records import Accepted
    from core.tasks import RowsOf
    from rendering.rows import read_rows
    from store.drops import rows_folder

    sources = []
    for drop in drops:
        facts = drop.facts
        assert isinstance(facts, Accepted)
        if facts.set_aside is None:
            sources.append(RowsOf(drop=drop.id, sha256=facts.sha256, folder=str(rows_folder(home, drop.id)), schema_id=facts.schema_id))
    try:
        return read_rows(sources), note
    except LoradError as error:
        return [], f"earlier rows are not counted: {error.what}"


# ---------------------------------------------------------------- the machine and the queue


def wanted_of(config: Config, backend: str, tokens: int, weights: int, base_sha256: str) -> "Wanted":
    """The training as far as its time depends on this machine."""
    import os

    from core.estimate import Wanted
    from store.engines import cpu_has_bf16

    cores = config.training.threads or max(1, (os.cpu_count() or 1) // config.slots)
    device = "stub" if backend == "stub" else device_here()
    return Wanted(backend=backend, base_sha256=base_sha256, device=device, tokens=tokens, weights=weights, cores=cores, has_bf16=cpu_has_bf16())


def device_here() -> str:
    """cpu, or the name of the first GPU."""
    from daemon.devices import sensors_here

    cards = sensors_here().gpus()
    return cards[0].name.partition(" ")[2] if cards else "cpu"


def queued_jobs(home: "Home") -> list["Job"]:
    """The jobs in the queue, from their folders; those whose records are not whole are left out."""
    from core.records import JobState
    from store.jobs import read_job

    folder = home.root / "jobs" / JobState.QUEUED
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            found.append(read_job(path, JobState.QUEUED))
        except (LoradError, OSError):
            continue
    return found
