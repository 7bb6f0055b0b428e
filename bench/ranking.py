"""What verdicts are worth: A/A comparisons, planted regressions and gains, small evidence; and how long ranking takes.

A/A. Adapters of the real base are trained alike but for their seed (`bench.alike`) and scored once on all held-out rows. A
comparison draws two of them, which of both is called the incumbent at random, and GATE of this drop's and as many of the earlier drop's
held-out conversations; the verdict is that of `ranking.verdict` on score files of these rows. None should be promoted.

Planted: score files of such a pair on the same rows, with values of a suite or answers to 200 questions that are made up so that the
candidate is 5 points worse, or 10 points better, than the incumbent. Small: twenty items in all, the candidate far better.
"""

import hashlib
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from bench.alike import EARLIER, THIS, Seeds, train_alike

SEEDS, COMPARISONS, PLANTED = 5, 200, 100
GATE = 60  # conversations of each drop in one comparison
ITEMS = 200
RIGHT = 0.8  # share of the questions that the incumbent answers rightly: with the gain it is above the floor
DIFFERENT = 0.2  # share of the answers that two adapters give differently
FLOORS = {"aa_false_promotions": 0.05, "regressions_refused": 1.0, "gains_promoted": 0.8, "small_held": 1.0, "rank5_s": 90.0}
PARTS = ("statistics", "rank5")


def measure(parts: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """(figures, opponents). `parts`: by comma, of PARTS; empty: all."""
    wanted = parts.split(",") if parts else PARTS
    figures: dict[str, Any] = {}
    if "statistics" in wanted:
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            seeds = train_alike(Path(folder), SEEDS)
            say(f"{SEEDS} adapters after {time.monotonic() - began:.0f} s")
            figures |= judged(Desk(Path(folder), seeds))
    if "rank5" in wanted:
        from bench.rank5 import rank5_s

        figures["rank5_s"] = round(rank5_s(), 1)
    return figures | {"floors": FLOORS}, {}


def judged(desk: "Desk") -> dict[str, Any]:
    """The four figures of the statistics, as shares, with the words that were given."""
    rng = np.random.default_rng(0)
    alike = Counter(desk.alike(rng) for _ in range(COMPARISONS))
    say(f"A/A: {dict(alike)}")
    worse = Counter(desk.with_suites(rng, points=-5) for _ in range(PLANTED))
    gains = Counter(desk.with_answers(rng, points=10) for _ in range(PLANTED))
    small = Counter(desk.small(rng) for _ in range(PLANTED))
    return {
        "aa_false_promotions": alike["promote"] / COMPARISONS,
        "aa_words": dict(alike),
        "regressions_refused": worse["refuse"] / PLANTED,
        "regressions_words": dict(worse),
        "gains_promoted": gains["promote"] / PLANTED,
        "gains_words": dict(gains),
        "small_held": small["hold"] / PLANTED,
    }


class Desk:
    """Lays out score files for one verdict after another."""

    def __init__(self, root: Path, seeds: Seeds) -> None:
        self.root, self.seeds = root / "desk", seeds
        self.root.mkdir()
        self.files = {key: Path(path).read_text().splitlines() for key, path in seeds.scores.items()}
        self.lines = {key: [json.loads(line) for line in lines[1:]] for key, lines in self.files.items()}
        self.num_laid = 0

    def alike(self, rng: np.random.Generator) -> str:
        """The word on two adapters that differ by their seed alone."""
        return self._word(self._pair(rng), rows=self._rows(rng, GATE))

    def with_suites(self, rng: np.random.Generator, points: float) -> str:
        """The word on a candidate that is better on this drop, with one suite of six in which it answers `points` of a hundred differently."""
        suites = {f"suite-{n}": (values := (rng.random(ITEMS) < 0.6).astype(float), values.copy()) for n in range(6)}
        values = suites["suite-0"][1]
        values[rng.permutation(np.flatnonzero(values if points < 0 else 1 - values))[: round(abs(points) * ITEMS / 100)]] = float(points > 0)
        return self._word(self._pair(rng), rows=self._rows(rng, GATE), gain=0.3, suites=suites)

    def with_answers(self, rng: np.random.Generator, points: float) -> str:
        """The word on a candidate that answers ITEMS questions of a drop better by `points` of a hundred on average, a fifth of them differently.

        Questions and answers are sums; the losses of the rows are those of two adapters trained alike, so that they prove nothing.
        """
        before, after = self._pair(rng)
        lost, won = DIFFERENT / 2 - points / 200, DIFFERENT / 2 + points / 200  # of all questions
        right = rng.random(ITEMS) < RIGHT
        then = np.where(right, rng.random(ITEMS) >= lost / RIGHT, rng.random(ITEMS) < won / (1 - RIGHT))
        own = self.lines[f"gate/{before}"]
        drawn = rng.integers(0, len(own), ITEMS)
        folder = self._folder()
        rows = sums(folder, ITEMS)
        scores = {}
        for model, answers in ((before, right), (after, then)):
            for key in (f"gate/{model}", *([f"shift/{after}"] if model == after else [])):
                lines = [self.lines[key][index % len(self.lines[key])] | {"drop": THIS, "line": n + 1, "group": f"g{n}"} for n, index in enumerate(drawn)]
                scores[key] = self._write(folder, key, lines)
            head = json.loads(self.files[f"gate/{model}"][0]) | {"split": "answers/gate"}
            said = [{"drop": THIS, "line": n + 1, "group": f"g{n}", "answer": str(2 * n if right else "no idea")} for n, right in enumerate(answers)]
            path = folder / f"answers-{model}.jsonl"
            path.write_text("".join(json.dumps(line) + "\n" for line in [head, *said]))
            scores[f"answers/gate/{model}"] = str(path)
        return self._judge((before, after), scores, rows=rows, settings={"ranking": {"metric": "exact_match"}})

    def small(self, rng: np.random.Generator) -> str:
        """The word on twenty rows in all, the candidate far better on each."""
        return self._word(self._pair(rng), rows=self._rows(rng, 10), gain=1.5)

    def _pair(self, rng: np.random.Generator) -> tuple[str, str]:
        one, other = rng.permutation(len(self.seeds.candidates))[:2]
        return self.seeds.candidates[one].id, self.seeds.candidates[other].id

    def _rows(self, rng: np.random.Generator, count: int) -> set[tuple[str, int]]:
        """`count` held-out rows of each drop: each is a conversation of its own."""
        any_model = self.lines[f"gate/{self.seeds.candidates[0].id}"]
        places = {drop: [(row["drop"], row["line"]) for row in any_model if row["drop"] == drop] for drop in (EARLIER, THIS)}
        return {own[index] for own in places.values() for index in rng.permutation(len(own))[:count]}

    def _word(self, pair: tuple[str, str], rows: set[tuple[str, int]], gain: float = 0.0, suites: Any = None) -> str:
        """The word on score files of some of the rows, the candidate's loss lower by `gain` a token than it is."""
        before, after = pair
        folder, scores = self._folder(), dict[str, str]()
        for key in (f"gate/{before}", f"gate/{after}", f"shift/{after}"):
            own = [row for row in self.lines[key] if (row["drop"], row["line"]) in rows]
            if gain and key == f"gate/{after}":
                own = [row | {"loss": max(0.0, row["loss"] - gain * row["tokens"])} for row in own]
            scores[key] = self._write(folder, key, own)
        for name, values in (suites or {}).items():
            scores |= {f"suite/{name}/{model}": lay_suite(folder, name, model, own) for model, own in zip((before, after), values, strict=True)}
        return self._judge((before, after), scores, rows=self.seeds.rows, settings={})

    def _judge(self, pair: tuple[str, str], scores: dict[str, str], rows: tuple[Any, ...], settings: dict[str, Any]) -> str:
        from core.tasks import RankTask
        from ranking.__main__ import rules_of
        from ranking.scores import EvidenceError
        from ranking.verdict import judge

        before, after = pair
        task = RankTask(
            job=f"bench-{self.num_laid}",
            purpose="verdict",
            backend=self.seeds.backend,
            this_drop=THIS,
            candidates=tuple(one for one in self.seeds.candidates if one.id == after),
            incumbent=before,
            scores=scores,
            settings=settings,
            best=after,
            looks=1,
            rows=rows,
            checkpoint=self.seeds.folders[after],
            probe=self.seeds.probes[after],
        )
        try:
            return judge(task, replace(rules_of(settings), seed=self.num_laid)).word.value
        except EvidenceError as error:
            return f"no evidence: {error}"

    def _folder(self) -> Path:
        self.num_laid += 1
        folder = self.root / str(self.num_laid)
        folder.mkdir()
        return folder

    def _write(self, folder: Path, key: str, rows: list[dict[str, Any]]) -> str:
        path = folder / f"{key.replace('/', '-')}.jsonl"
        path.write_text("".join(f"{line}\n" for line in [self.files[key][0], *map(json.dumps, rows)]))
        return str(path)


def sums(folder: Path, count: int) -> tuple[Any, ...]:
    """A drop of questions that have one right answer each."""
    from core.tasks import RowsOf

    turns = [[{"role": "user", "content": f"What is {n} and {n}?"}, {"role": "assistant", "content": str(2 * n)}] for n in range(count)]
    raw = "".join(json.dumps({"messages": one}) + "\n" for one in turns).encode()
    (folder / "rows.jsonl.zst").write_bytes(zstandard.compress(raw))
    (folder / "index.jsonl").write_text("".join(json.dumps({"line": n + 1, "group": f"g{n}", "split": "gate"}) + "\n" for n in range(count)))
    (folder / "report.json").write_text(json.dumps({"findings": []}))
    return (RowsOf(drop=THIS, sha256=hashlib.sha256(raw).hexdigest(), folder=str(folder), schema_id="chat_sft_v1"),)


def lay_suite(folder: Path, name: str, model: str, values: Any) -> str:
    """The results of a suite of written answers under one model."""
    suite = {"name": name, "sha256": "0" * 64, "items": len(values), "generated": True}
    head = {"header": True, "model": model, "backend": "peft", "base_sha256": "", "settings": {}, "made_up": False, "suite": suite}
    path = folder / f"suite-{name}-{model}.jsonl"
    rows = [{"item": str(index), "group": str(index), "value": float(value)} for index, value in enumerate(values)]
    path.write_text("".join(json.dumps(line) + "\n" for line in [head, *rows]))
    return str(path)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
