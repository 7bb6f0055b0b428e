"""Keeps where the learner of a skill stands: level, evaluations, baselines, over restarts. The rule itself is `core.curriculum`."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from core.curriculum import Course, Evaluation, Move, learnt, once_more
from corpus.curriculum.skills import Skill
from store.curriculum import Entry, add_history, course_history, read_course, write_course
from store.paths import Home

BY_A_PERSON = "set by"
ROWS_REFUSED = "ROWS_REFUSED"


class CurriculumManager:
    """The course of one skill. Every change is durable when the method returns.

    Args: skill: with its settings, which a reload may replace (`skill`). now: when a course that is new begins.
    Raises: IntegrityError for a damaged course; OSError, and then nothing has changed.
    Side effects: writes `curriculum/<skill>.json` and its history; completes a history whose last line a crash has lost.
    """

    def __init__(self, home: Home, skill: Skill, now: datetime) -> None:
        self._home = home
        self.skill = skill
        known = read_course(home, skill.name)
        self.course = known or Course(skill=skill.name, adapter=skill.adapter, level=skill.settings.level, since=now)
        if known is None:
            return
        told = set(course_history(home, skill.name))
        add_history(home, skill.name, [entry for entry in _last(known) if entry not in told])

    def follow(self, skill: Skill, now: datetime) -> None:
        """Go on with these settings. An adapter that is new to the skill begins at the level of the config."""
        self.skill = skill
        if skill.adapter != self.course.adapter:
            move = Move(at=now, skill=skill.name, before=self.course.level, after=skill.settings.level, why=f"{skill.adapter} learns it now")
            self._keep(replace(self.course.with_level(move), adapter=skill.adapter, drawn_at=None), [move])

    def record(self, evaluation: Evaluation, levels: Sequence[int], baseline: Evaluation | None = None) -> Move | None:
        """Count an evaluation of what is live; returns the move of the level that follows. `baseline`: of the base, where it was measured."""
        before = self.course
        course = learnt(before, evaluation, self.skill.settings, levels)
        entries: list[Entry] = [evaluation]
        if baseline is not None:
            known = before.baselines.get(baseline.level)
            if known is None or not known.is_like(baseline):  # measured once, and kept
                course = replace(course, baselines={**course.baselines, baseline.level: baseline})
            entries = [baseline, evaluation] if baseline != evaluation else entries
        moved = course.moved if course.moved != before.moved else None
        self._keep(course, [*entries, moved] if moved is not None else entries)
        return moved

    def set_level(self, level: int, actor: str, now: datetime) -> Move:
        """Begin anew at a level that a person chose; what had failed is tried again at once."""
        move = Move(at=now, skill=self.skill.name, before=self.course.level, after=level, why=f"{BY_A_PERSON} {actor or 'a person'}")
        self._keep(self.course.with_level(move), [move])
        return move

    def draws(self, now: datetime) -> None:
        """Remember that rows are asked for, before they are: a crash may cost one draw and never makes two of one."""
        self._keep(replace(self.course, drawn_at=now))

    def drew(self, file: str) -> None:
        """Remember the drop that came of it. That the gate refused the one before stays known until it has taken one."""
        trouble = self.course.draw_trouble
        self._keep(replace(self.course, drawn=file, draw_trouble=trouble if trouble is not None and trouble.code == ROWS_REFUSED else None))

    def graded(self, now: datetime, *, refused: bool) -> None:
        """Remember what the gate said of the newest drop: refused ones come at longer and longer intervals."""
        file, trouble = self.course.drawn, self.course.draw_trouble
        if refused:
            message = f"the gate refused {file}: its report lies in inbox/rejected"
            self._keep(replace(self.course, drawn="", draw_trouble=once_more(trouble, now, ROWS_REFUSED, message)))
        elif trouble is not None:
            self._keep(replace(self.course, draw_trouble=None))

    def failed(self, code: str, message: str, now: datetime, *, drawing: bool) -> None:
        """Remember that an evaluation or a draw failed: the next try waits, longer each time."""
        if drawing:
            self._keep(replace(self.course, draw_trouble=once_more(self.course.draw_trouble, now, code, message)))
        else:
            self._keep(replace(self.course, trouble=once_more(self.course.trouble, now, code, message)))

    def history(self) -> list[Entry]:
        """Every evaluation and move, oldest first."""
        return course_history(self._home, self.skill.name)

    def _keep(self, course: Course, entries: Sequence[Entry] = ()) -> None:
        write_course(self._home, course)
        self.course = course
        add_history(self._home, self.skill.name, entries)


def _last(course: Course) -> list[Entry]:
    """What a crash behind the last change may have kept out of the history."""
    last: list[Entry] = [*course.baselines.values(), *course.evaluations]
    return [*last, course.moved] if course.moved is not None else last
