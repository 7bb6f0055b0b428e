"""From a teacher to the inbox: rows are asked for, checked, marked with where they come from, and dropped like any other file.

The seeds of a draw are remembered durably before its file is renamed into the inbox. A crash between the two loses seeds
and repeats none. The last eighth of a level's seeds is held for evaluations: no draw for the inbox ever takes one of them,
also not with --force.
"""

import hashlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from core.config import Config
from core.errors import UsageError
from corpus.curriculum.client import SkillAPIClient, TeacherError
from corpus.curriculum.skills import Skill
from corpus.curriculum.teachers.port import prompt_of
from corpus.curriculum.wire import Health, LevelOffer, Question, Wish
from rendering.specs import BAD_JSON, SPECS, ChatRow, Spec
from store.inbox import Dropped, put_drop
from store.paths import Home
from store.skills import Drawn, drawing, read_drawn, write_drawn

MOST_BAD_SHARE = 0.1  # of the rows of a seed: repeats, and rows that the teacher's own checker calls wrong
PRINTS = 16  # hashes of each draw that are remembered: half of its rows drawn again are found with certainty but for 1 in 60,000
SOURCE = "skills"
HELD = 8  # of so many seeds one is held for evaluations
HELD_FROM, HELD_TO = 1 << 31, 1 << 32  # of a teacher that has as many seeds as are asked for

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be drawn. `seed` None: the first that was not drawn yet. `again`: also where seeds were drawn before."""

    count: int
    level: int
    seed: int | None = None
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Checked rows, each with its lineage in its metadata. `left_out` says how many were not taken, by reason."""

    teacher: Health
    level: int
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    left_out: dict[str, int]

    @property
    def lineage(self) -> dict[str, Any]:
        """What the sidecar says of the rows."""
        teacher = self.teacher
        return {"skill": teacher.skill, "generator": teacher.generator, "version": teacher.version, "level": self.level} | {
            "first_seed": self.seeds[0],
            "last_seed": self.seeds[-1],
        }

    def prints(self) -> tuple[str, ...]:
        """The smallest hashes of its questions: the same rows have the same ones, in whatever order they come."""
        return tuple(sorted(_print(row) for row in self.rows)[:PRINTS])


def held_seeds(offer: LevelOffer) -> range:
    """The seeds of a level whose rows nobody trains on; none where it has a single one."""
    if not offer.seeds:
        return range(HELD_FROM, HELD_TO)
    return range(offer.seeds - (offer.seeds // HELD or int(offer.seeds > 1)), offer.seeds)


def draw(client: SkillAPIClient, skill: str, order: Order, first_seed: int) -> Batch:
    """`order.count` checked rows from `first_seed` on, over as many seeds as that takes; none of those that are held.

    Raises TeacherError for a teacher of another skill, that lies about the level, repeats itself, or denies its own rows;
    UsageError for a level or seeds that it has not. Reads the network; waits.
    """
    offer = _offer(client, skill, order.level)
    end = held_seeds(offer).start
    batch = _collected(client, skill, offer, order.count, range(first_seed, end))
    if len(batch.rows) < order.count:
        raise UsageError(
            f"level {order.level} of {skill} has {end:,} seeds to train on; the rows of all of them are drawn",
            hint="raise the level, or begin again with --force --seed 0",
            code="SKILL_EXHAUSTED",
        )
    return batch


def draw_held(client: SkillAPIClient, skill: str, order: Order, turn: int) -> Batch:
    """Up to `order.count` checked rows that nobody trains on. Each `turn` takes the next held seeds, and the first ones again after the last.

    Raises as `draw` does; UsageError SKILL_EXHAUSTED for a level of a single seed.
    """
    offer = _offer(client, skill, order.level)
    held = held_seeds(offer)
    each = min(-(-order.count // offer.per_seed), len(held))
    if not each:
        what = f"level {order.level} of {skill} has a single seed: there are no rows to evaluate on that nobody trains on"
        raise UsageError(what, hint="let the teacher have at least two seeds", code="SKILL_EXHAUSTED")
    return _collected(client, skill, offer, order.count, [held[(turn * each + place) % len(held)] for place in range(each)])


def _collected(client: SkillAPIClient, skill: str, offer: LevelOffer, count: int, seeds: Iterable[int]) -> Batch:
    """Checked rows of these seeds in order, until there are `count`; fewer where the seeds end."""
    teacher = client.health()
    if teacher.skill != skill:
        _refuse(client, f"teaches {teacher.skill!r}, not {skill!r}", code="TEACHER_REPLY")
    spec = SPECS.get(teacher.schema_id)
    if spec is None or spec.row is not ChatRow:
        _refuse(client, f"makes rows of {teacher.schema_id!r}; rows of a skill are of chat_sft_v1 or syllo_v1", code="TEACHER_REPLY")
    rows, seen, left_out, used = list[Row](), set[str](), {"repeated": 0, "wrong": 0}, list[int]()
    for seed in seeds:
        if len(rows) >= count:
            break
        wish = Wish(offer.level, min(offer.per_seed, count - len(rows)), seed)
        fresh = _fresh(client, spec, client.generate(wish), wish)
        bad = {"repeated": len(fresh) - len(new := {_print(row): row for row in fresh if _print(row) not in seen})}
        right = _right(client, list(new.values()), offer.level)
        bad["wrong"] = len(new) - len(right)
        if sum(bad.values()) > MOST_BAD_SHARE * len(fresh):
            _refuse(client, f"sends {bad['repeated']} rows again and {bad['wrong']} that its own checker calls wrong, of {len(fresh)}")
        seen |= set(new)
        left_out = {why: left_out[why] + count for why, count in bad.items()}
        rows += [_marked(row, teacher, wish) for row in right]
        used.append(seed)
    return Batch(teacher=teacher, level=offer.level, seeds=tuple(used), rows=tuple(rows), left_out=left_out)


def draw_into_inbox(home: Home, config: Config, skill: Skill, order: Order, now: datetime) -> tuple[Batch, Dropped]:
    """Draw rows, and put them into the inbox of the skill's adapter.

    Raises as `draw` does; UsageError (SEEDS_DRAWN) where seeds were drawn before and that was not asked for; LockHeldError
    while others draw; OSError on a full disk. Writes `curriculum/drawn/<skill>.json`, then the sidecar, then the file.
    """
    client = SkillAPIClient(url=skill.settings.url)
    with drawing(home, skill.name):
        drawn = read_drawn(home, skill.name)
        batch, drawn = draw_next(client, skill, order, drawn, now)
        write_drawn(home, skill.name, drawn)
        return batch, drop_batch(home, config, skill, batch, batch.lineage, again=order.again)


def draw_next(client: SkillAPIClient, skill: Skill, order: Order, drawn: Drawn, now: datetime) -> tuple[Batch, Drawn]:
    """Rows that follow on those that were drawn, and what is drawn then. Raises as `draw_into_inbox` does."""
    before = drawn.level(order.level)
    first = before.next_seed if order.seed is None else order.seed
    if first < before.next_seed and not order.again:
        hint = f"leave --seed out: the next is {before.next_seed}; or say --force to train on the rows once more"
        raise UsageError(f"seed {first} of level {order.level} of {skill.name} was drawn before", hint=hint, code="SEEDS_DRAWN")
    batch = draw(client, skill.name, order, first)
    prints = batch.prints()
    if not order.again:
        refuse_known(client, batch, drawn)
    after = replace(before, next_seed=max(before.next_seed, batch.seeds[-1] + 1), rows=before.rows + len(batch.rows), at=now)
    return batch, drawn.plus(order.level, after, prints)


def refuse_known(client: SkillAPIClient, batch: Batch, drawn: Drawn) -> None:
    """Raises TeacherError where most of the rows came for other seeds before."""
    prints = batch.prints()
    if 2 * len(set(prints) & set(drawn.prints)) > len(prints):
        _refuse(client, f"sends rows for seed {batch.seeds[0]} that it has sent for an earlier one")


def drop_batch(home: Home, config: Config, skill: Skill, batch: Batch, lineage: Mapping[str, Any], *, again: bool = False) -> Dropped:
    """Put the rows into the inbox of the skill's adapter, under a sidecar with this lineage. Raises OSError on a full disk."""
    sidecar: dict[str, Any] = {"schema_id": batch.teacher.schema_id, "lineage": dict(lineage)}
    if not config.validation.sources or SOURCE in config.validation.sources:  # a source that the config does not know is refused
        sidecar["source"] = SOURCE
    if again:
        sidecar["again"] = True
    with tempfile.TemporaryDirectory(prefix="lorad-skill-") as folder:
        file = Path(folder, f"{skill.name}-level-{batch.level}-seed-{batch.seeds[0]}.jsonl")
        file.write_bytes(lines_of(batch.rows))
        return put_drop(home, file, skill.adapter, sidecar)


def lines_of(rows: Iterable[Row]) -> bytes:
    """Rows as JSON Lines."""
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


def _offer(client: SkillAPIClient, skill: str, level: int) -> LevelOffer:
    offers = {each.level: each for each in client.levels()}
    if level not in offers:
        raise UsageError(f"the teacher of {skill} has no level {level}", hint=f"its levels: {', '.join(map(str, offers))}", code="SKILL_LEVEL")
    return offers[level]


def _fresh(client: SkillAPIClient, spec: Spec, rows: list[Row], wish: Wish) -> list[Row]:
    """The rows, all of the schema and of the level."""
    for row in rows:
        with suppress(*BAD_JSON):
            found = spec.decode(msgspec.json.encode(row))
            level = found.metadata.get("level")
            if level is not None and level != wish.level:
                _refuse(client, f"was asked for level {wish.level} and sends a row of level {level!r}")
            if prompt_of(row) and answer_of(row):
                continue
        _refuse(client, f"sends what is no row of {spec.id} with a question and an answer")
    return rows


def _right(client: SkillAPIClient, rows: Sequence[Row], level: int) -> list[Row]:
    """Those whose answers the teacher's checker calls right."""
    results = client.check([Question(row, answer_of(row)) for row in rows])
    for result in results:
        if result.level not in (level, 0):
            _refuse(client, f"was asked for level {level} and sends a row that its own checker puts at level {result.level}")
    return [row for row, result in zip(rows, results, strict=True) if result.right and result.level == level]


def answer_of(row: Row) -> str:
    """The right answer that a row brings; empty where its last message is none."""
    last = row["messages"][-1]
    content = last.get("content")
    return content if last.get("role") == "assistant" and isinstance(content, str) else ""


def _marked(row: Row, teacher: Health, wish: Wish) -> Row:
    made = {"skill": teacher.skill, "level": wish.level, "generator": teacher.generator, "version": teacher.version, "seed": wish.seed}
    return {**row, "metadata": {**row.get("metadata", {}), **made}}


def _print(row: Row) -> str:
    return hashlib.blake2b(prompt_of(row).encode(errors="surrogatepass"), digest_size=8).hexdigest()


def _refuse(client: SkillAPIClient, what: str, *, code: str = "TEACHER_ROWS") -> NoReturn:
    raise TeacherError(f"the teacher at {client.url} {what}", code=code, hint="nothing was dropped; see docs/howto/own-skill.md")
