"""How far a learner of a skill has come, when its level moves, and what is to be done about it now. Pure.

An *evaluation* is what the live release made of rows that nobody trains on. The rule looks at the newest ones at the present
level: where the accuracy of `up_evaluations` of them together reaches `up_share` the level moves up, where that of
`down_evaluations` is below `down_share` it moves down. A move begins a new count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

from core.learning import AutoGenerateConfig, SkillConfig

BACKOFF_FIRST = timedelta(minutes=1)  # after what failed; doubled each time
BACKOFF_LONGEST = timedelta(days=1)
JUMP = timedelta(seconds=30)  # a time that lies further ahead is that of a clock that was wrong; one of the same tick may lie a little ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How many of so many unseen rows of a level a model has answered right. An empty `release` is the base."""

    id: str
    at: datetime
    skill: str
    level: int
    release: str = ""
    version: int = 0
    rows: int
    right: int
    loss: float | None = None  # of the right answers, nats per token
    first_seed: int
    last_seed: int
    generator: str
    generator_version: str
    base_sha256: str
    made_up: bool = False  # by the stub
    is_baseline: bool = False  # of the base beside a release, to compare with: no rule counts it
    kind: Literal["evaluation"] = "evaluation"

    @property
    def accuracy(self) -> float:
        """Share of the rows that were answered right."""
        return self.right / self.rows

    def is_like(self, other: "Evaluation") -> bool:
        """Whether both were asked by the same teacher on the same base: only these may be counted together."""
        mine = (self.level, self.generator, self.generator_version, self.base_sha256)
        return mine == (other.level, other.generator, other.generator_version, other.base_sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """That the level changed, by the rule or by a person."""

    at: datetime
    skill: str
    before: int
    after: int
    why: str
    kind: Literal["move"] = "move"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why the last evaluation or draw came to nothing; `count` times in a row."""

    at: datetime
    code: str
    message: str
    count: int = 1

    @property
    def until(self) -> datetime:
        """When it is tried again."""
        growth = int(2 ** min(self.count - 1, 20))
        return self.at + min(BACKOFF_FIRST * growth, BACKOFF_LONGEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """`curriculum/<skill>.json`: where the learner of a skill stands. The daemon writes it."""

    skill: str
    adapter: str
    level: int
    since: datetime  # at this level
    evaluations: tuple[Evaluation, ...] = ()  # at this level since then, as many as the rule may look at, oldest first
    baselines: Mapping[int, Evaluation] = field(default_factory=dict)  # level -> what the base itself makes of it
    num_exams: Mapping[int, int] = field(default_factory=dict)  # level -> evaluations so far: which of the held rows come next
    levels: tuple[int, ...] = ()  # of the teacher, once it was asked
    moved: Move | None = None
    drawn_at: datetime | None = None  # when rows were last asked for
    drawn: str = ""  # name of the file that came of it
    trouble: Trouble | None = None
    draw_trouble: Trouble | None = None

    def with_level(self, move: Move) -> "Course":
        """The same, begun anew at the level that the move leads to."""
        return replace(self, level=move.after, since=move.at, evaluations=(), moved=move, trouble=None, draw_trouble=None)


# ---------------------------------------------------------------- the rule


def judged(evaluations: Sequence[Evaluation], rule: SkillConfig, levels: Sequence[int]) -> tuple[int, str] | None:
    """The level that these evaluations lead to, with the reason in words; None where it stays.

    Args: evaluations: all of one level, oldest first. levels: those of the teacher; there is no move beyond them.
    """
    if not evaluations:
        return None
    level = evaluations[-1].level
    higher, lower = min((one for one in levels if one > level), default=None), max((one for one in levels if one < level), default=None)
    up, down = _share(evaluations, rule.up_evaluations), _share(evaluations, rule.down_evaluations)
    if higher is not None and up is not None and up >= rule.up_share:
        return higher, f"{up:.0%} right over {rule.up_evaluations} evaluations, {rule.up_share:.0%} are wanted"
    if lower is not None and down is not None and down < rule.down_share:
        return lower, f"{down:.0%} right over {rule.down_evaluations} evaluations, below {rule.down_share:.0%}"
    return None


def is_mastered(course: Course, rule: SkillConfig) -> bool:
    """Whether the highest level is reached and fulfilled: there is nothing left to learn."""
    share = _share(course.evaluations, rule.up_evaluations)
    return bool(course.levels) and course.level >= max(course.levels) and share is not None and share >= rule.up_share


def _share(evaluations: Sequence[Evaluation], count: int) -> float | None:
    """Accuracy of the newest `count` together; None where there are fewer."""
    newest = evaluations[-count:]
    return sum(one.right for one in newest) / sum(one.rows for one in newest) if len(newest) == count else None


def learnt(course: Course, evaluation: Evaluation, rule: SkillConfig, levels: Sequence[int]) -> Course:
    """The course after an evaluation of what is live; its `moved` is new where the level moved.

    One of another level than the course's, begun before a person moved it, changes nothing but the count.
    """
    num_exams = {**course.num_exams, evaluation.level: course.num_exams.get(evaluation.level, 0) + 1}
    course = replace(course, num_exams=num_exams, levels=tuple(levels), trouble=None)
    if evaluation.level != course.level:
        return course
    kept = tuple(one for one in course.evaluations if one.is_like(evaluation))
    kept = (*kept, evaluation)[-max(rule.up_evaluations, rule.down_evaluations) :]
    move = judged(kept, rule, levels)
    if move is None:
        return replace(course, evaluations=kept)
    level, why = move
    moved = Move(at=evaluation.at, skill=course.skill, before=course.level, after=level, why=why)
    return course.with_level(moved)


def wants_baseline(course: Course, base_sha256: str, generator: str, version: str) -> bool:
    """Whether the base is still to be measured at the present level: once for each base and version of the teacher."""
    known = course.baselines.get(course.level)
    return known is None or (known.base_sha256, known.generator, known.generator_version) != (base_sha256, generator, version)


# ---------------------------------------------------------------- what to do now


class Does(StrEnum):
    """What is done for a skill next."""

    EXAMINE = "examine"
    DRAW = "draw"
    WAIT = "wait"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One of these, and why."""

    does: Does
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SkillSeen:
    """What concerns a skill now."""

    release: str = ""  # that is live; empty: the base
    practised_at: datetime | None = None  # when a job of the adapter was last at work; None: never, or one still is
    waiting: int = 0  # jobs that wait to train, drops on their way, and jobs of the adapter that are being ranked
    stopped: str = ""  # why nothing at all is done, in words
    may_examine: bool = False  # a slot is free and nobody waits for it
    is_examining: bool = False
    is_drawing: bool = False


def choose(course: Course, rule: SkillConfig, auto: AutoGenerateConfig, seen: SkillSeen, now: datetime) -> Choice:
    """What is to be done for a skill now. The level is found out before rows of it are drawn.

    An evaluation that is due holds up the next draw, so that the queue drains and a slot becomes free for it; one that failed does not.
    """
    if not auto.enabled:
        return Choice(does=Does.WAIT, why="auto_generate.enabled is false")
    if seen.stopped:
        return Choice(does=Does.WAIT, why=seen.stopped)
    if seen.is_examining or seen.is_drawing:
        return Choice(does=Does.WAIT, why="an evaluation is under way" if seen.is_examining else "rows are being drawn")
    due = _exam_due(course, rule, auto, seen, now)
    if due and _is_over(course.trouble, now):
        return Choice(does=Does.EXAMINE, why=due) if seen.may_examine else Choice(does=Does.WAIT, why=f"an evaluation waits for a free slot: {due}")
    return _may_draw(course, rule, auto, seen, now)


def _exam_due(course: Course, rule: SkillConfig, auto: AutoGenerateConfig, seen: SkillSeen, now: datetime) -> str:
    """Why an evaluation is due, in words; empty: none is.

    What failed is not asked again before it was practised: a level that has just begun would be lost before its first training ends.
    """
    if not course.evaluations:
        return f"nothing is known at level {course.level}"
    last = course.evaluations[-1]
    if last.release != seen.release:
        return "another release is live"
    if len(course.evaluations) < rule.up_evaluations and last.accuracy >= rule.up_share:
        return "what was right is to be confirmed on other rows"
    has_practised = seen.practised_at is not None and seen.practised_at > last.at
    if has_practised and not is_mastered(course, rule) and _has_passed(last.at, auto.cooldown_s, now):
        return "a training has ended since the last evaluation"
    return ""


def _may_draw(course: Course, rule: SkillConfig, auto: AutoGenerateConfig, seen: SkillSeen, now: datetime) -> Choice:
    if is_mastered(course, rule):
        return Choice(does=Does.WAIT, why=f"level {course.level}, the highest, is mastered")
    if seen.waiting >= auto.threshold:
        return Choice(does=Does.WAIT, why=f"{seen.waiting} jobs wait, rows are made below {auto.threshold} (auto_generate.threshold)")
    if course.drawn_at is not None and not _has_passed(course.drawn_at, auto.cooldown_s, now):
        return Choice(does=Does.WAIT, why=f"cooldown until {course.drawn_at + timedelta(seconds=auto.cooldown_s):%Y-%m-%d %H:%M:%S}Z")
    if course.draw_trouble is not None and not _is_over(course.draw_trouble, now):
        return Choice(does=Does.WAIT, why=f"{course.draw_trouble.message}; tried again at {course.draw_trouble.until:%Y-%m-%d %H:%M:%S}Z")
    return Choice(does=Does.DRAW, why=f"{seen.waiting} jobs wait, below {auto.threshold}")


def _has_passed(since: datetime, seconds: float, now: datetime) -> bool:
    """Whether so long ago; a time to come holds up nothing."""
    return since - now > JUMP or now - since >= timedelta(seconds=seconds)


def _is_over(trouble: Trouble | None, now: datetime) -> bool:
    return trouble is None or trouble.at - now > JUMP or now >= trouble.until


def once_more(before: Trouble | None, now: datetime, code: str, message: str) -> Trouble:
    """The trouble of a failure that follows `before`."""
    return Trouble(at=now, code=code, message=message, count=before.count + 1 if before is not None else 1)


# ---------------------------------------------------------------- the mix


def mix(count: int, share: float, level: int, levels: Sequence[int]) -> dict[int, int]:
    """How many rows of each level make `count`: `share` of them of `level`, the others evenly of those below it, against forgetting.

    The nearer one comes first where they do not divide evenly; there is always a row of `level` itself.
    """
    below = sorted((one for one in levels if one < level), reverse=True)
    others = min(count - 1, round(count * (1 - share))) if below else 0
    each, more = divmod(others, len(below)) if below else (0, 0)
    parts = {one: each + (place < more) for place, one in enumerate(below)}
    return {level: count - others} | {one: rows for one, rows in parts.items() if rows}
