"""What the daemon asks of a child (`spec.json`) and what the child answers (`exit.json`).

Paths in a spec are absolute. A child writes only inside its own run folder, and tokenised drops into `tokens`; `exit.json` is
written last.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from core.records import Candidate, ChildRef, VerdictWord


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsOf:
    """The rows of one accepted drop: the folder holds `rows.jsonl.zst` and `index.jsonl`."""

    drop: str
    sha256: str
    folder: str
    schema_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainTask:
    """Train an adapter from the base on the train split of `rows`; later drops supersede rows of a known group."""

    job: str
    backend: str  # unsloth, peft, mlx or stub
    base: str  # folder of the sealed base; empty for the stub
    rows: tuple[RowsOf, ...]
    settings: Mapping[str, object]  # the frozen config, nested (core.config.Config as JSON)
    checkpoint: str | None = None  # folder of a sealed resume point
    resume_by_hand: bool = False  # a person asked to go on: a resume point of another training is an error, and not left alone
    micro_batch: int | None = None  # set by the memory ladder: most rows of a forward pass; its tokens shrink alike
    origins: Mapping[str, str] = field(default_factory=dict)  # dotted key -> where its value comes from; default: nobody set it
    this_drop: str = ""  # the drop that made the job
    start: str | None = None  # folder of the adapter that the training goes on from; None: a new one
    learnt: tuple[str, ...] = ()  # drops that `start` has learnt from: of their rows only training.replay_share is repeated
    start_reason: str = ""  # why it starts there, in one sentence
    tokens: str = ""  # folder where tokenised drops are kept for later jobs; empty: below the run folder
    kind: Literal["train"] = "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreModel:
    """A model to score: the base when `adapter` is None."""

    id: str  # base, a Candidate.id, or a release id
    adapter: str | None  # folder with adapter_config.json and adapter_model.safetensors


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteOf:
    """A regression suite to score: a file of `rendering.suites`, or a task of lm-evaluation-harness."""

    name: str
    path: str  # empty: lm-evaluation-harness knows it by its name
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreTask:
    """Per-example completion loss of each model on one split, one file `scores/<split>-<model>.jsonl` a model.

    With `answers`, greedy answers to that many rows of the split too: `samples/answers-<split>-<model>.jsonl`, key
    `answers/<split>/<model>`. With `suites`, the value of each item: `scores/suite-<name>-<model>.jsonl`, key `suite/<name>/<model>`.
    """

    job: str
    backend: str
    base: str
    rows: tuple[RowsOf, ...]
    split: Literal["dev", "gate"]
    models: tuple[ScoreModel, ...]
    settings: Mapping[str, object]
    probe: str | None = None  # model id: also write probe.jsonl for it
    shift: str | None = None  # model id: also write scores/shift-<split>-<model>.jsonl (this drop's rows under another row's prompt)
    this_drop: str = ""
    micro_batch: int | None = None  # as in TrainTask
    noise: str | None = None  # model id: score it once more and write scores/noise-<split>-<model>.jsonl
    answers: int = 0  # rows of the split to answer; 0: none
    suites: tuple[SuiteOf, ...] = ()
    cache: str = ""  # folder of suite results by content; empty: below the run folder
    kind: Literal["score"] = "score"


@dataclass(frozen=True, slots=True, kw_only=True)
class RankTask:
    """Order the candidates (`purpose` order) or give the verdict on the best (`purpose` verdict)."""

    job: str
    purpose: Literal["order", "verdict"]
    backend: str
    this_drop: str
    candidates: tuple[Candidate, ...]
    incumbent: str  # model id: base or a release id
    scores: Mapping[str, str]  # "<split>/<model>", "shift/<model>", "answers/<split>/<model>", "suite/<name>/<model>" -> absolute path
    settings: Mapping[str, object]
    best: str | None = None
    looks: int = 0
    rows: tuple[RowsOf, ...] = ()
    checkpoint: str = ""  # verdict: folder of the sealed checkpoint of `best`
    probe: str | None = None  # verdict: what it answered to the fixed prompts when it was scored
    cache: str = ""  # folder of a judge's votes, by content; empty: none are kept
    kind: Literal["rank"] = "rank"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackTask:
    """Make the immutable release folder of a checkpoint."""

    job: str
    adapter: str
    version: int
    backend: str
    checkpoint: str
    checkpoint_sha256: str
    base: str
    base_sha256: str
    probe: str | None
    verdict: str  # path of verdict.json
    parent: str | None  # release id that it replaces
    drops: tuple[str, ...]  # SHA-256 of the drops it learned from
    keys: str  # folder of the signing key
    origin: str = ""  # imported: `verdict` is empty, there is none
    encryption_key: str = ""  # file of the key that the weights are encrypted with; empty: they are not
    kind: Literal["pack"] = "pack"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedTask:
    """Sentence embeddings of `texts.jsonl` in the run folder (one JSON text a line), written as `embeddings.npy`.

    Asked for by the gate, not by a job: the folder is a temporary one.
    """

    model: str  # folder of the sealed sentence model
    max_tokens: int = 128  # of a text; the rest is not looked at
    threads: int = 1
    kind: Literal["embed"] = "embed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportTask:
    """Write one release, or an adapter folder, in another form. Asked for by the command line or by packing."""

    form: str  # peft, merged, gguf, merged-gguf, mlx, onnx, torch-export, torchscript
    adapter: str  # folder with adapter_config.json and adapter_model.safetensors
    base: str  # folder of the sealed base
    out: str  # folder to write; made aside and renamed in
    settings: Mapping[str, object] = field(default_factory=dict)
    kind: Literal["export"] = "export"


Task = TrainTask | ScoreTask | RankTask | PackTask


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitNote:
    """`exit.json`. A whole one beats the exit status. The optional fields belong to the kind of the task."""

    code: int
    ended_at: datetime
    reason: str = ""
    hint: str = ""
    error: str = ""  # stable code of the error
    steps: int = 0  # train: optimizer steps done
    total_steps: int = 0
    rows: int = 0  # train: rows of the train split
    longest: int = 0  # train: tokens of the longest of them
    tokens: int = 0  # train: tokens of the steps of this run, repeats counted
    seconds: float = 0.0  # train: of those steps alone
    device: str = ""  # train: cpu, or the name of the GPU
    memory_mb: int = 0  # train: most that the child held there
    candidates: tuple[Candidate, ...] = ()  # train: kept checkpoints, paths relative to the run folder
    checkpoint: str | None = None  # train: newest resume point, relative to the run folder
    scores: Mapping[str, str] = field(default_factory=dict)  # score: "<split>/<model>" -> path relative to the run folder
    best: str | None = None  # rank: Candidate.id
    word: VerdictWord | None = None  # rank: the verdict
    release: str | None = None  # pack: manifest hash; the folder is release/


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSeen:
    """What the daemon observes of a child: whether it lives, its signs of life, how it ended, and its whole `exit.json`.

    What only the daemon that started it can know (signs, exit status, signal) is empty for a child of an earlier one.
    """

    ref: ChildRef
    alive: bool
    note: ExitNote | None = None
    silent_s: float = 0.0  # alive: since its last sign of life (monotonic)
    patience: tuple[float, float] | None = None  # hang_s and hang_factor as its job froze them; None: its spec has none
    median_step_s: float | None = None  # alive: of its last steps; None before the first
    step: int = 0  # the last one that it told of
    steps: int = 0  # of all; 0: it has not told
    micro_batch: int = 0  # most rows of a forward pass, as it told; 0: it has not
    status: int | None = None  # ended: its exit status, where it ended by itself
    signal: int = 0  # ended: the signal that ended it
    killed: bool = False  # ended: this daemon sent KILL
    hung: str = ""  # ended: the silence for which this daemon ended it, in words
    stack: tuple[str, ...] = ()  # hung: where it stood, innermost first
    parent_lost: bool = False  # ended: with the warm trainer that had forked it
    memory_kill: bool = False  # ended: the kernel counted a kill for want of memory while it ran
    checkpoint: str | None = None  # newest sealed resume point of the job, relative to runs/<job>/
    candidates: tuple[Candidate, ...] = ()  # sealed checkpoints of all the job's training runs
