"""Rows of a skill for the loop: a mix of levels for the inbox, and unseen ones to evaluate on. The chores of `daemon.curriculum`."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import zstandard

from core.config import Config
from core.curriculum import mix
from core.errors import UsageError
from core.weaknesses import Failed
from corpus.curriculum.client import SkillAPIClient, TeacherError
from corpus.curriculum.drawing import Batch, Order, answer_of, draw_held, draw_next, drop_batch, lines_of, refuse_known
from corpus.curriculum.skills import Skill, skill_of
from corpus.curriculum.teachers.port import prompt_of
from corpus.curriculum.wire import Question
from rendering.rows import INDEX, ROWS
from store.bases import base_folder
from store.config import ConfigLoader
from store.inbox import Dropped
from store.paths import Home
from store.seals import is_sealed
from store.skills import drawing, read_drawn, write_drawn
from store.weaknesses import write_failed

MADE_BY = "curriculum"
QUESTIONS = "questions.jsonl"
ROOM = 1.5  # for an answer that says it in other words: so many times the tokens of the longest right one
MOST_NEW_TOKENS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class DataManager:
    """Asks the teacher of one skill for what its curriculum wants. Holds no state of its own.

    Raises: TeacherError for a teacher that fails; UsageError SKILL_EXHAUSTED, SKILL_LEVEL; LockHeldError while others draw;
    OSError on a full disk. Reads the network; waits.
    """

    home: Home
    config: Config
    skill: Skill

    @property
    def client(self) -> SkillAPIClient:
        """The teacher."""
        return SkillAPIClient(url=self.skill.settings.url)

    def drop_mix(self, level: int, count: int, share: float, now: datetime) -> tuple[tuple[Batch, ...], Dropped]:
        """Draw `count` rows, `share` of them of `level` and the others of the levels below it, and drop them as one file.

        A level below whose rows are all drawn is left out. The seeds are remembered durably before the file is made.
        """
        client = self.client
        batches = list[Batch]()
        with drawing(self.home, self.skill.name):
            drawn = read_drawn(self.home, self.skill.name)
            for one, rows in mix(count, share, level, [offer.level for offer in client.levels()]).items():
                try:
                    batch, drawn = draw_next(client, self.skill, Order(count=rows, level=one), drawn, now)
                except UsageError as error:
                    if one == level or error.code != "SKILL_EXHAUSTED":
                        raise
                    continue
                batches.append(batch)
            write_drawn(self.home, self.skill.name, drawn)
            return tuple(batches), drop_batch(self.home, self.config, self.skill, _joined(batches), _lineage(batches))

    def set_exam(self, folder: Path, level: int, turn: int) -> dict[str, Any]:
        """Write unseen rows of a level into the new `folder`, as a trainer child reads rows; `turn` counts the evaluations of the level.

        Returns plain values: what the rows are, and how long an answer to them may be.
        """
        client = self.client
        batch = draw_held(client, self.skill.name, Order(count=self.config.auto_generate.evaluate_rows, level=level), turn)
        refuse_known(client, batch, read_drawn(self.home, self.skill.name))
        raw = lines_of(batch.rows)
        folder.mkdir(parents=True)
        (folder / QUESTIONS).write_bytes(raw)
        (folder / ROWS).write_bytes(zstandard.ZstdCompressor().compress(raw))
        index = [{"line": line, "group": f"{line:06d}", "split": "gate"} for line in range(1, len(batch.rows) + 1)]
        (folder / INDEX).write_text("".join(json.dumps(row) + "\n" for row in index))
        return {
            "rows": len(batch.rows),
            "sha256": hashlib.sha256(raw).hexdigest(),
            "schema_id": batch.teacher.schema_id,
            "generator": batch.teacher.generator,
            "version": batch.teacher.version,
            "first_seed": batch.seeds[0],
            "last_seed": batch.seeds[-1],
            "levels": [offer.level for offer in client.levels()],
            "max_new_tokens": self._room(batch),
        }

    def mark(self, folder: Path, answers: Path) -> int:
        """How many of the answers to the rows of `folder` the teacher's checker calls right. Raises as `marked` does."""
        return sum(right for _, _, right in self.marked(folder, answers))

    def marked(self, folder: Path, answers: Path) -> list[tuple[dict[str, Any], str, bool]]:
        """Each row of `folder`, what was answered, and whether the teacher's checker calls that right.

        Raises TeacherError also for a checker that calls no answer at all a right one.
        """
        rows = [json.loads(line) for line in (folder / QUESTIONS).read_text(encoding="utf-8").splitlines()]
        said = {int(line["line"]): str(line["answer"]) for line in _scored(answers)}
        client = self.client
        nothing, *results = client.check([Question(rows[0], ""), *(Question(row, said.get(line, "")) for line, row in enumerate(rows, 1))])
        if nothing.right:
            what = f"the teacher at {client.url} calls an empty answer right"
            raise TeacherError(what, code="TEACHER_ROWS", hint="nothing was counted; see docs/howto/own-skill.md")
        return [(row, said.get(line, ""), result.right) for line, (row, result) in enumerate(zip(rows, results, strict=True), 1)]

    def _room(self, batch: Batch) -> int:
        """Tokens that an answer may have; by the base's own tokenizer, else by its letters, of which a token has one at least."""
        answers = [answer_of(row) for row in batch.rows]
        base = base_folder(self.config)
        longest = max(len(answer) for answer in answers)
        if is_sealed(base):
            from rendering.tokens import Renderer

            tokenizer = Renderer.load(base).tokenizer
            longest = max(len(tokenizer.encode(answer).ids) for answer in answers)
        return min(MOST_NEW_TOKENS, int(longest * ROOM) + 16)


def _joined(batches: list[Batch]) -> Batch:
    """All rows under the seeds of the first batch, which is that of the level itself."""
    first = batches[0]
    rows = tuple(row for batch in batches for row in batch.rows)
    return Batch(teacher=first.teacher, level=first.level, seeds=first.seeds, rows=rows, left_out=first.left_out)


def _lineage(batches: list[Batch]) -> dict[str, Any]:
    draws = [{"level": batch.level, "first_seed": batch.seeds[0], "last_seed": batch.seeds[-1], "rows": len(batch.rows)} for batch in batches]
    return {"made_by": MADE_BY, **batches[0].lineage, "draws": draws}


def _scored(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file of scores or answers behind its header."""
    with open(path, encoding="utf-8") as file:
        next(file)
        for line in file:
            yield json.loads(line)


# ---------------------------------------------------------------- chores


def _manager(home: Home, spec: Mapping[str, Any]) -> DataManager:
    """By the config that the daemon goes by."""
    config = ConfigLoader(home.config_in_force).load().config
    return DataManager(home=home, config=config, skill=skill_of(config, str(spec["skill"])))


def chore_draw(home: Home, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Drop a mix of rows: {`file`, `rows`}. Repeated, it draws the next ones: the daemon counts a draw before it asks for it."""
    manager = _manager(home, spec)
    auto = manager.config.auto_generate
    batches, dropped = manager.drop_mix(int(spec["level"]), auto.count, auto.share, datetime.fromisoformat(spec["now"]))
    rows = sum(len(batch.rows) for batch in batches)
    return {"file": dropped.path.name, "rows": rows, "levels": {str(batch.level): len(batch.rows) for batch in batches}}


def chore_exam(home: Home, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Write the rows of an evaluation into the folder of the spec; returns what `DataManager.set_exam` says."""
    return _manager(home, spec).set_exam(Path(spec["folder"]), int(spec["level"]), int(spec["turn"]))


def chore_marks(home: Home, spec: Mapping[str, Any]) -> dict[str, Any]:
    """What came of an evaluation, by model: {model: {`right`, `loss`}}, loss in nats per token of the right answers.

    What the first model, which is live, got wrong is kept for those who look for its weaknesses.
    """
    manager, run = _manager(home, spec), Path(spec["run"])
    found: dict[str, Any] = {}
    for model in spec["models"]:
        losses = list(_scored(run / spec["scores"][f"gate/{model}"]))
        tokens = sum(int(line["tokens"]) for line in losses)
        loss = sum(float(line["loss"]) for line in losses) / tokens if tokens else None
        marked = manager.marked(Path(spec["folder"]), run / spec["scores"][f"answers/gate/{model}"])
        found[model] = {"right": sum(right for _, _, right in marked), "loss": loss}
        if model == spec["models"][0]:
            wrong = tuple((prompt_of(row), answer_of(row), said) for row, said, right in marked if not right)
            write_failed(home, Failed(skill=manager.skill.name, level=int(marked[0][0]["metadata"]["level"]), rows=wrong))
    return found
