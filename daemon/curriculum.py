"""Lets skills be learnt by themselves: evaluates what is live, moves levels, draws rows while little waits to train.

The rule and what is to be done next are `core.curriculum`; where each learner stands is kept by `CurriculumManager`. Whatever
asks a teacher is a chore, so that one that hangs holds up no tick.
"""

import logging
from collections.abc import Callable, Iterator
from datetime import datetime

from core.commands import Answer, Command
from core.config import Config
from core.curriculum import Choice, Does, Evaluation, Move, SkillSeen, choose, wants_baseline
from core.errors import LoradError
from core.facts import Facts, live_release
from core.measures import Measure
from core.queue import usable_slots, why_all_wait
from core.records import JobState, Ranking
from core.trends import Counted, Tally
from corpus.curriculum.progression import ROWS_REFUSED, CurriculumManager
from corpus.curriculum.skills import Skill, known_skills, skill_of
from daemon import clock
from daemon.children import Children
from daemon.examination import Examination, Outcome, Paper
from daemon.index import Index
from daemon.worker import BackgroundWorker, Chore, ChoreDone
from store.commands import put_answer
from store.journal import write_entry
from store.performance import remember_samples

log = logging.getLogger(__name__)

DRAW = "draw"


class Curriculum:
    """All skills of one home. `turn` once a tick, after the tick's steps.

    `tell` is called with (now, action, fields). Raises: OSError, and the next tick goes on. Side effects: writes below
    `curriculum/`, the series of adapters; starts chores and, one at a time, a scoring child.
    """

    def __init__(self, index: Index, instance: str, worker: BackgroundWorker, children: Children, tell: Callable[..., None]) -> None:
        self._index, self._worker, self._children, self._tell = index, worker, children, tell
        self._examination = Examination(index, instance, worker, children, self._on_exam)
        self._managers: dict[str, CurriculumManager] = {}
        self._followed: Config | None = None
        self._skills: dict[str, Skill] = {}
        self._drawing = ""  # skill
        self._is_stale = False  # rows lie in the inbox that the facts of this tick have not seen
        self._broken: set[str] = set()
        self.is_stopped: Callable[[str], bool] = lambda adapter: False
        """Whether a person stopped the loop of an adapter."""
        self.choices: dict[str, Choice] = {}
        """What was decided for each skill last, and why."""
        worker.hear(DRAW, self._on_drawn)

    def turn(self, facts: Facts, now: datetime) -> None:
        """Go on with what is under way, and begin what is due."""
        if facts.config.auto_generate.enabled:
            self._follow(facts.config, now)
        elif not self._examination.skill:
            return
        examined = self._managers.get(self._examination.skill)
        self._examination.turn(self._slot(facts), now, wants_baseline=self._baseline_wanted(examined), stopping=facts.stopping)
        if self._is_stale or facts.stopping:
            self._is_stale = False
            return
        for skill in self._skills.values():
            manager = self._managers.get(skill.name)
            if manager is not None:
                self._do(manager, facts, now)

    def set_level(self, command: Command, now: datetime) -> None:
        """Carry out `lorad curriculum set`, and answer. Repeated, it changes nothing more."""
        try:
            skill = skill_of(self._index.config, command.details.get("skill", ""))
            manager = self._managers.get(skill.name) or CurriculumManager(self._index.home, skill, now)
        except LoradError as error:
            put_answer(self._index.home, Answer(command=command.id, ok=False, message=error.what, hint=error.hint, code=error.code))
            return
        self._managers[skill.name] = manager
        level, course = int(command.details["level"]), manager.course
        if course.moved is None or course.moved.at != command.made_at:
            move = manager.set_level(level, command.actor, command.made_at)
            self._tell_move(move, skill.adapter, now)
        put_answer(self._index.home, Answer(command=command.id, ok=True, message=f"{skill.name} goes on at level {level}", made=str(level)))

    def measures(self) -> Iterator[Measure]:
        """Level, accuracy and baseline of each skill that is learnt, for metrics.prom."""
        for name in self._skills.keys() & self._managers.keys():
            course, labels = self._managers[name].course, (("skill", name),)
            yield Measure("skill_level", course.level, labels)
            if course.evaluations:
                yield Measure("skill_accuracy", course.evaluations[-1].accuracy, labels)
            if course.level in course.baselines:
                yield Measure("skill_baseline", course.baselines[course.level].accuracy, labels)

    # ---------------------------------------------------------------- what is seen

    def _follow(self, config: Config, now: datetime) -> None:
        """Take over the skills of a new config: those that it names, or where it names none, those that ship."""
        if config is self._followed:
            return
        known = known_skills(config)
        self._skills = {name: skill for name, skill in known.items() if not config.skills or name in config.skills}
        for name, skill in self._skills.items():
            try:
                skill_of(config, name)
                if name in self._managers:
                    self._managers[name].follow(skill, now)
                else:
                    self._managers[name] = CurriculumManager(self._index.home, skill, now)
            except LoradError as error:
                if name not in self._broken:
                    log.error("the skill %s is left alone: %s", name, error.what, extra={"action": "curriculum_broken"})
                self._broken.add(name)
        self._followed = config

    def _slot(self, facts: Facts) -> int | None:
        """A slot for an evaluation: one that is free and that no job could want."""
        if facts.views.queued or why_all_wait(facts):
            return None
        wanted = sum(isinstance(job.facts, Ranking) and job.facts.child is None for job in facts.views.active.values())
        free = [slot for slot in usable_slots(facts) if slot in self._children.free_slots()] if facts.free_slots else []
        return free[-1] if len(free) > wanted else None

    def _seen(self, manager: CurriculumManager, facts: Facts) -> SkillSeen:
        adapter = manager.skill.adapter
        release = live_release(adapter, facts) or ""
        mine = [job.state for job in facts.views.active.values() if job.card.adapter == adapter and job.state is not JobState.HELD]
        return SkillSeen(
            release=release,
            practised_at=None if mine else facts.views.served.get(adapter),
            waiting=len(facts.views.queued) + len(facts.drops) + facts.num_entries + mine.count(JobState.RANKING),
            stopped=self._why_stopped(adapter, release, facts),
            may_examine=not self._examination.skill and self._slot(facts) is not None,
            is_examining=self._examination.skill == manager.skill.name,
            is_drawing=self._drawing == manager.skill.name,
        )

    def _why_stopped(self, adapter: str, release: str, facts: Facts) -> str:
        if self.is_stopped(adapter):
            return f"a person has stopped {adapter}: `lorad continuous start` lets it go on"
        if release and release not in self._index.releases:
            return f"the release {release[:12]} that is live is not on this box"
        if facts.base_sha256 is None:
            return "there is no base model"
        return facts.paused or facts.disk.low or facts.disk.short

    # ---------------------------------------------------------------- what is done

    def _do(self, manager: CurriculumManager, facts: Facts, now: datetime) -> None:
        skill, course = manager.skill, manager.course
        seen = self._seen(manager, facts)
        choice = self.choices[skill.name] = choose(course, skill.settings, facts.config.auto_generate, seen, now)
        if choice.does is Does.EXAMINE:
            version = facts.releases.get(seen.release, 0)
            turn = course.num_exams.get(course.level, 0)
            self._examination.begin(Paper(skill=skill.name, level=course.level, turn=turn, release=seen.release, version=version), now)
        elif choice.does is Does.DRAW and not self._drawing:
            if self._was_refused(manager, now):
                return
            manager.draws(now)  # durable before rows are asked for
            spec = {"skill": skill.name, "level": course.level, "now": now.isoformat()}
            if self._worker.submit(Chore(kind=DRAW, key=f"{DRAW}-{skill.name}", spec=spec)):
                self._drawing = skill.name

    def _was_refused(self, manager: CurriculumManager, now: datetime) -> bool:
        """Whether the gate has refused the newest drop: then the next one comes later."""
        skill, file = manager.skill, manager.course.drawn
        if not file:
            return False
        refused = any(self._index.home.rejected.glob(f"*/{file}"))
        manager.graded(now, refused=refused)
        if refused:
            self._tell(now, "curriculum.failed", skill=skill.name, adapter=skill.adapter, code=ROWS_REFUSED, file=file)
        return refused

    def _on_drawn(self, done: ChoreDone) -> None:
        now, manager = clock.now(), self._managers.get(self._drawing)
        self._drawing, self._is_stale = "", True
        if manager is None:
            return
        name, adapter = manager.skill.name, manager.skill.adapter
        if not done.ok:
            code = str(done.result.get("code", "")) or "CHORE_FAILED"
            manager.failed(code, done.message, now, drawing=True)
            self._tell(now, "curriculum.failed", skill=name, adapter=adapter, code=code, message=done.message)
            return
        manager.drew(str(done.result["file"]))
        rows = {"rows": done.result["rows"], "level": manager.course.level, "file": done.result["file"]}
        self._tell(now, "curriculum.drawn", skill=name, adapter=adapter, **rows)

    # ---------------------------------------------------------------- what came of an evaluation

    def _baseline_wanted(self, manager: CurriculumManager | None) -> Callable[[str, str], bool]:
        base = self._index.base_sha256 or ""
        return lambda generator, version: manager is not None and wants_baseline(manager.course, base, generator, version)

    def _on_exam(self, outcome: Outcome) -> None:
        now, manager = clock.now(), self._managers.get(outcome.paper.skill)
        if manager is None:
            return
        name, adapter = manager.skill.name, manager.skill.adapter
        if outcome.evaluation is None:
            if outcome.code:
                manager.failed(outcome.code, outcome.message, now, drawing=False)
                self._tell(now, "curriculum.failed", skill=name, adapter=adapter, code=outcome.code, message=outcome.message)
            return
        one = outcome.evaluation
        moved = manager.record(one, outcome.levels, outcome.baseline)
        told = {"level": one.level, "release": one.release or "base", "right": one.right, "rows": one.rows}
        self._tell(now, "curriculum.evaluated", skill=name, adapter=adapter, **told)
        if moved is not None:
            self._tell_move(moved, adapter, now)
        if one.release and not one.made_up:
            remember_samples(self._index.home, adapter, [_tally(one, now)])

    def _tell_move(self, move: Move, adapter: str, now: datetime) -> None:
        fields = {"skill": move.skill, "adapter": adapter, "before": move.before, "after": move.after, "reason": move.why}
        write_entry(self._index.home.journal, now, "curriculum.moved", **fields)
        self._tell(now, "curriculum.moved", **fields)


def _tally(one: Evaluation, now: datetime) -> Tally:
    """What of an evaluation stands in the adapter's series: a release that answers fewer right than the one before it is seen to be worse."""
    return Tally(
        since=one.at,
        until=max(now, one.at),
        release=one.release,
        version=one.version,
        measure=f"wrong answers, {one.skill} level {one.level}",
        counted=Counted.SHARE,
        hits=one.rows - one.right,
        out_of=one.rows,
    )
