"""A person's rating of a held job: it is kept, and the job is judged again with it; nothing is scored again."""

from dataclasses import replace

import pytest
from world import World

from core import steps as f
from core.commands import Command, CommandKind
from core.ratings import RATING, Rating, details_of, key_of
from core.records import Held, JobState, Ranking, VerdictWord


class RatedWorld(World):
    """Keeps ratings too."""

    def _apply(self, one: f.Step) -> None:
        if isinstance(one, f.KeepRating):
            self.kept = one.rating
        else:
            super()._apply(one)

    def held(self) -> str:
        """A job that its verdict holds."""
        job = self.queue()
        for _ in range(60):
            self.settle()
            if self.state(job) is JobState.HELD:
                return job
            for owner, _run in self.working():
                self.finish(owner, word=VerdictWord.HOLD)
        raise AssertionError(self.jobs[job])

    def rate(self, job: str, **changes: object) -> None:
        """Send a rating of the job's candidate, with changes."""
        facts = self.jobs[job].facts
        best = facts.ranking.best if isinstance(facts, Held) else "step_1-a"
        rating = Rating(job=job, candidate=best or "", incumbent="base", better=9, worse=1, ties=2, pairs_sha256="a" * 64, seed=0, at=self.now)
        self.tell(job, {**details_of(rating), **{name: str(value) for name, value in changes.items()}})

    def tell(self, job: str, details: dict[str, str]) -> None:
        self.ask(CommandKind.RATE, job=job, actor="ann")
        self.commands[-1] = replace(self.commands[-1], details=details)


def test_a_rated_job_is_judged_again_with_the_rating_and_nothing_is_scored_again() -> None:
    world = RatedWorld()
    job = world.held()
    facts = world.jobs[job].facts
    assert isinstance(facts, Held)
    looks, scored = facts.ranking.looks, len([start for start in world.starts if start.startswith("score")])
    world.rate(job)
    world.settle()
    assert world.answers[-1].answer.ok
    assert (world.kept.better, world.kept.by) == (9, "ann")
    ranking = world.jobs[job].facts
    assert isinstance(ranking, Ranking)
    assert ranking.scores[key_of(ranking.best or "")] == RATING
    assert world.starts[-1] == "rank verdict"
    assert ranking.looks == looks, "a rating is no look at the gate split"
    assert len([start for start in world.starts if start.startswith("score")]) == scored
    world.finish(job, word=VerdictWord.PROMOTE)
    assert world.run_to_end(job) is JobState.RELEASED


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"candidate": "step_000004-other"}, "INCUMBENT_CHANGED"),
        ({"incumbent": "9a" * 32}, "INCUMBENT_CHANGED"),
        ({"better": "-3"}, "RATING_WRONG"),
        ({"pairs_sha256": "../../x"}, "RATING_WRONG"),
    ],
)
def test_a_rating_of_something_else_changes_nothing(changes: dict[str, object], code: str) -> None:
    world = RatedWorld()
    job = world.held()
    before = world.jobs[job]
    world.rate(job, **changes)
    world.settle()
    assert world.answers[-1].answer.code == code
    assert world.answers[-1].answer.hint
    assert world.jobs[job] == before


def test_only_a_held_job_can_be_rated() -> None:
    world = RatedWorld()
    job = world.queue()
    world.rate(job)
    world.tick()
    assert world.answers[-1].answer.code == "ILLEGAL_TRANSITION"
    world.rate(job)
    world.commands = [Command(id="c9", kind=CommandKind.RATE, job="job-nobody", made_at=world.now, expires_at=world.now.replace(year=2030))]
    world.tick()
    assert world.answers[-1].answer.code == "JOB_UNKNOWN"


def test_a_rating_that_was_taken_before_a_crash_is_only_answered() -> None:
    world = RatedWorld()
    job = world.held()
    world.rate(job)
    (command,) = world.commands
    world.tick()
    rated = world.jobs[job].facts
    world.commands = [command]  # the daemon was killed before it had answered
    world.tick()
    assert world.answers[-1].answer.ok
    assert isinstance(rated, Ranking)
    assert world.starts[-1] == "rank verdict"
