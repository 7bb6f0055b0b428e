"""The line in front of the engine: who comes first, who is told what, who is refused."""

import asyncio
import threading

import pytest

from serving.line import BACKGROUND_SHARE, Line, LineFull


class Seconds:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_who_comes_first_is_served_first_and_everybody_knows_their_position() -> None:
    line = Line(streams=2, waiting=8)
    first, second, third, fourth = (line.join() for _ in range(4))
    assert [one.position for one in (first, second, third, fourth)] == [0, 0, 1, 2]
    assert (line.num_running, line.num_waiting) == (2, 2)
    second.leave()
    assert [one.position for one in (third, fourth)] == [0, 1]
    fourth.leave()  # gave up while it waited
    first.leave()
    third.leave()
    assert (line.num_running, line.num_waiting) == (0, 0)


def test_one_more_than_may_wait_is_refused_with_the_time_when_it_is_better() -> None:
    clock = Seconds()
    line = Line(streams=1, waiting=1, monotonic=clock)
    for _ in range(30):  # turns of ten seconds
        with line.join():
            clock.now += 10
    line.join()
    line.join()
    with pytest.raises(LineFull) as refused:
        line.join()
    assert refused.value.code == "QUEUE_FULL"
    assert refused.value.retry_after_s == 20  # one before it, and its own


def test_nobody_may_wait_where_the_queue_is_none_and_a_free_stream_is_still_given() -> None:
    line = Line(streams=1, waiting=0)
    ticket = line.join()
    with pytest.raises(LineFull):
        line.join()
    ticket.leave()
    assert line.join().position == 0


def test_a_place_is_given_back_once_however_often_it_is_left() -> None:
    line = Line(streams=1, waiting=8)
    ticket, waits, last = line.join(), line.join(), line.join()
    ticket.leave()
    ticket.leave()
    assert (waits.position, last.position, line.num_running) == (0, 1, 1)


def test_background_work_goes_behind_all_is_never_refused_and_never_starves() -> None:
    line = Line(streams=1, waiting=1000)
    at_work = line.join()
    rehearsal = line.join(background=True)
    people = [line.join() for _ in range(100)]
    assert rehearsal.position == 101
    turns = 0
    while rehearsal.position:
        at_work.leave()
        turns += 1
        at_work = people[turns - 1]
    assert turns == BACKGROUND_SHARE
    full = Line(streams=1, waiting=0)
    full.join()
    assert full.join(background=True).position == 1


def test_who_waits_is_told_each_new_position_whatever_thread_moves_the_line() -> None:
    line = Line(streams=1, waiting=8)
    *before, last = (line.join() for _ in range(4))

    async def story() -> list[int]:
        told = []
        async for position in last.positions():
            told.append(position)
            if before:
                await asyncio.to_thread(before.pop(0).leave)
        return told

    assert asyncio.run(story()) == [3, 2, 1, 0]


def test_whoever_waits_in_a_thread_is_woken_and_may_give_up() -> None:
    line = Line(streams=1, waiting=8)
    first, second = line.join(), line.join()
    assert not second.wait(0.01)
    threading.Timer(0.01, first.leave).start()
    assert second.wait(10)


def test_a_wait_that_is_cancelled_leaves_its_place_to_the_next() -> None:
    line = Line(streams=1, waiting=8)
    first, second, third = (line.join() for _ in range(3))

    async def give_up() -> None:
        with second:
            waiting = asyncio.create_task(second.turn())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(give_up())
    assert third.position == 1
    first.leave()
    assert third.position == 0
