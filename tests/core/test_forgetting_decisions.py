"""Orders to forget, decided: what they hold up, what they approve, what they take for the measure."""

from dataclasses import replace
from datetime import timedelta

from world import START, World

from core.commands import CommandKind
from core.facts import Facts, TargetSeen, incumbent_of
from core.forgets import Forget, ForgetSeen, Part, Stage, Traces
from core.forgetting import closed_adapters, decide_forgets
from core.lifecycle import Event
from core.reconcile import decide
from core.records import Held, Job, JobState, Ranking, Releasing
from core.requests import decide_requests
from core.steps import Move, RecordForget, Reply, SetWish, StartChild, WorkForget
from core.wire import Active, Desired, Observed, Wish

PART = Part(drop="drop-0", adapter="a/main", sha256="0" * 64, forgotten=1, left=9)
ORDER = Forget(id="forget-1", at=START, actor="ann", stage=Stage.FOUND, parts=(PART,))


def facts_of(world: World, order: Forget, *, targets: tuple[TargetSeen, ...] = (), **seen: object) -> Facts:
    known = ForgetSeen(order=order, **seen)  # type: ignore[arg-type]
    return replace(world.facts(), forgets=(known,), **({"targets": targets} if targets else {}))  # type: ignore[arg-type]


def target(live: str | None, wish: Wish | None = None, purged: tuple[str, ...] = (), purge: tuple[str, ...] = ()) -> TargetSeen:
    desired = Desired(fence=1, aliases={"a/main": wish} if wish else {}, fences={}, made_at=START, purge=purge)
    active = Active(box="b", sequence=1, fence_seen=1, at=START, purged=purged)
    return TargetSeen(name="t", desired=desired, observed=Observed(target="t", at=START, reachable=True, active=active), live={"a/main": live})


def held(world: World, incumbent: str | None) -> Job:
    job = world.jobs[world.queue()]
    ranking = Ranking(since=START, candidates=(), incumbent=incumbent, best="step_1", verdict="05-rank")
    made = replace(job, state=JobState.HELD, facts=Held(since=START, reason="too few", ranking=ranking))
    world.jobs[job.id] = made
    return made


def test_a_queued_job_on_the_rows_is_cancelled_and_none_of_its_adapter_starts() -> None:
    world = World()
    job = world.queue()
    other = world.queue("b/main")
    facts = facts_of(world, ORDER)
    assert closed_adapters(facts) == {"a/main"}
    steps = decide(facts, START).steps
    assert [(step.job, step.event) for step in steps if isinstance(step, Move)] == [(job, Event.CANCEL)]
    world.jobs[job] = replace(world.jobs[job], card=replace(world.jobs[job].card, rows_of=None))  # one that trains on other rows waits too
    started = [step.job for step in decide(facts_of(world, replace(ORDER, waits="until x")), START).steps if isinstance(step, StartChild)]
    assert job not in started
    assert started in ([other], [])


def test_the_drops_are_replaced_only_once_nothing_trains_on_them_and_the_chore_is_done() -> None:
    world = World()
    assert list(decide_forgets(facts_of(world, ORDER), START)) == [WorkForget(order="forget-1", does="rebuild")]
    assert list(decide_forgets(facts_of(world, ORDER, busy=True), START)) == []
    assert list(decide_forgets(facts_of(world, ORDER, made={}), START)) == [WorkForget(order="forget-1", does="replace")]
    assert list(decide_forgets(replace(facts_of(world, ORDER, made={}), stopping=True), START)) == []


def test_a_chore_that_failed_is_told_and_tried_again_after_a_rest() -> None:
    world = World()
    resting = {"trouble": "disk full", "rest_until": START + timedelta(seconds=30)}
    (told,) = decide_forgets(facts_of(world, ORDER, **resting), START)
    assert isinstance(told, RecordForget)
    assert "disk full" in told.order.waits
    again = list(decide_forgets(facts_of(world, told.order, **resting), START + timedelta(seconds=30)))
    assert again == [WorkForget(order="forget-1", does="rebuild")]


def test_what_has_to_go_is_no_measure_for_what_comes() -> None:
    seen = {"touched": frozenset({"old"}), "fallback": {"a/main": "older"}}
    facts = facts_of(World(), ORDER, targets=(target("old"),), **seen)
    assert incumbent_of("a/main", facts) == "older"
    assert incumbent_of("a/main", facts_of(World(), ORDER, targets=(target("new"),), **seen)) == "new"


def test_a_held_retraining_is_approved_and_one_that_was_judged_by_another_incumbent_is_judged_again() -> None:
    world = World()
    job = held(world, None)
    order = replace(ORDER, stage=Stage.QUEUED, retraining={"a/main": job.id})
    facts = facts_of(world, order, targets=(target("old"),), touched=frozenset({"old"}))
    moves = [step for step in decide_forgets(facts, START) if isinstance(step, Move)]
    assert [move.event for move in moves] == [Event.APPROVE]
    assert isinstance(moves[0].facts, Releasing)
    assert moves[0].facts.ranking.approved_by == "forget-1"
    facts = facts_of(world, order, targets=(target("old"),), touched=frozenset({"old"}), fallback={"a/main": "older"})
    assert [step.event for step in decide_forgets(facts, START) if isinstance(step, Move)] == [Event.INCUMBENT_CHANGED]


def test_nothing_is_removed_while_a_release_that_learnt_from_it_is_live_anywhere() -> None:
    order = replace(ORDER, stage=Stage.LIVE, releases=("old",))
    (back,) = decide_forgets(facts_of(World(), order, targets=(target("old"),), touched=frozenset({"old"})), START)
    assert isinstance(back, RecordForget)
    assert back.order.stage is Stage.QUEUED
    steps = list(decide_forgets(facts_of(World(), order, targets=(target(None),), touched=frozenset({"old"})), START))
    assert steps == [WorkForget(order="forget-1", does="bury")]


def test_it_is_done_only_when_every_target_has_confirmed_and_a_last_search_was_clean() -> None:
    order = replace(ORDER, stage=Stage.PURGED, releases=("old",), waits="until t confirms that the releases are removed there")
    assert list(decide_forgets(facts_of(World(), order, targets=(target(None),), traces=Traces()), START)) == []
    gone = (target(None, purged=("old",)),)
    assert list(decide_forgets(facts_of(World(), order, targets=gone), START)) == [WorkForget(order="forget-1", does="search")]
    (back,) = decide_forgets(facts_of(World(), order, targets=gone, traces=Traces(parts=(replace(PART, drop="drop-7"),))), START)
    assert isinstance(back, RecordForget)
    assert (back.order.stage, len(back.order.parts)) == (Stage.FOUND, 2)
    (done,) = decide_forgets(facts_of(World(), order, targets=gone, traces=Traces()), START)
    assert isinstance(done, RecordForget)
    assert (done.order.stage, done.order.rows) == (Stage.DONE, ())


def test_at_once_every_target_falls_back_once() -> None:
    order = replace(ORDER, stage=Stage.QUEUED, at_once=True)
    known = {"touched": frozenset({"old"}), "fallback": {"a/main": "older"}}
    steps = list(decide_forgets(facts_of(World(), order, targets=(target("old"),), **known), START))
    assert [step.wish for step in steps if isinstance(step, SetWish)] == [Wish(release="older", replaces="old", allow=True)]
    wished = target("old", wish=Wish(release="older", replaces="old", allow=True))
    assert not [step for step in decide_forgets(facts_of(World(), order, targets=(wished,), **known), START) if isinstance(step, SetWish)]


def test_nobody_rolls_back_to_what_is_being_forgotten() -> None:
    world = World()
    world.ask(CommandKind.ROLLBACK, adapter="a/main", from_release="new", to_release="old")
    facts = facts_of(world, ORDER, targets=(target("new"),), touched=frozenset({"old"}))
    facts = replace(facts, releases={"old": 1, "new": 2}, commands=tuple(world.commands))
    (reply,) = decide_requests(facts, START)
    assert isinstance(reply, Reply)
    assert (reply.answer.ok, reply.answer.code) == (False, "FORGOTTEN")


def test_an_order_that_nobody_gave_cannot_be_hurried() -> None:
    world = World()
    world.ask(CommandKind.FORGET)
    command = replace(world.commands[0], details={"now": "forget-9"})
    (reply,) = decide_requests(replace(world.facts(), commands=(command,)), START)
    assert isinstance(reply, Reply)
    assert reply.answer.code == "FORGET_UNKNOWN"
