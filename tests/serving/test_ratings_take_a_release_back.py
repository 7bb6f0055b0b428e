"""What users say of a new release reaches the guard over it; one of them alone cannot take it back."""

from collections.abc import Iterator

import pytest
from inference_box import START, World
from watched_box import BadEngine, release_with, until, watch, watched

from core.signals import Origin, Signal, SignalKind
from serving.activation import Agent
from serving.ratings import MOST_OF_A_USER, Ratings
from serving.witness import Count, Witness


@pytest.fixture
def agent(world: World) -> Iterator[Agent]:
    engine = BadEngine()
    made = Agent(world.ground(engine))
    made.start()
    yield made
    engine.close()


def rating(release: str, number: int, kind: str = "mistake", user: str = "", **changes: object) -> Signal:
    told = {"persona": "default", "domain": "main", "input": (), "at": START, "release": release, "response": f"answer {number}", "user": user}
    return Signal(id=f"id {number} {kind}", kind=SignalKind(kind), **(told | changes))  # type: ignore[arg-type]


def gave(ratings: Ratings, count: int = 400) -> Ratings:
    """The answers of the tests were given."""
    for number in range(count):
        ratings.gave(f"answer {number}")
    return ratings


def test_a_release_that_users_dislike_is_rolled_back_and_the_reason_says_so(world: World, agent: Agent) -> None:
    ratings = gave(Ratings(agent.engine.rate, agent.library.ids))
    first = release_with(world, None, 1, watch=watch(max_negative_share=0.2))
    agent.tick()
    for number in range(40):
        ratings.hear(rating(first, number, "mistake" if number % 10 == 0 else "positive", f"user {number}"))
    second = release_with(world, first, 2, watch=watch(max_negative_share=0.2))
    agent.tick()
    assert world.live() == second
    for number in range(40, 80):
        ratings.hear(rating(second, number, "correction" if number % 5 else "positive", f"user {number}"))
    until(agent, lambda: world.live() == first)
    line = world.ledger[-1]
    assert (line.event, line.previous) == ("rolled_back", second)
    assert "32 of 40 ratings are negative, of the release before 4 of 40" in line.reason


def test_one_user_who_presses_the_button_again_and_again_takes_nothing_back(world: World, agent: Agent) -> None:
    ratings = gave(Ratings(agent.engine.rate, agent.library.ids))
    first = release_with(world, None, 1, watch=watch())
    agent.tick()
    second = release_with(world, first, 2, watch=watch())
    agent.tick()
    for number in range(40):
        ratings.hear(rating(first, number, "positive", f"user {number}"))
    for number in range(40, 140):
        ratings.hear(rating(second, number, user="one user"))
    for _ in range(100):
        ratings.hear(rating(second, 200))
    for number in range(300, 325):
        ratings.hear(rating(second, number, "positive", f"user {number}"))
    assert agent.engine.counted(second) == Count(answers=agent.engine.counted(second).answers, rated=MOST_OF_A_USER + 1 + 25, negative=MOST_OF_A_USER + 1)
    world.clock.seconds += 61
    until(agent, lambda: (state := watched(world)) is not None and state.phase == "passed")
    assert world.live() == second


def test_only_what_people_said_themselves_of_known_releases_counts() -> None:
    witness = Witness(BadEngine())
    ratings = gave(Ratings(witness.rate, lambda: ()))
    ratings.hear(rating("base", 1, "positive"))
    ratings.hear(rating("base", 1, "mistake"))  # of the same answer: the first holds
    for number, changes in enumerate(
        ({"is_proposal": True}, {"origin": Origin.AUTOMATED}, {"origin": Origin.AI}, {"release": ""}, {"release": "0123456789ab"}, {"kind": SignalKind.IMPORT}),
        2,
    ):
        signal = rating("base", number)
        ratings.hear(Signal(**({name: getattr(signal, name) for name in Signal.__slots__} | changes)))
    assert witness.counted(None) == Count(rated=1)
    assert witness.counted("0123456789ab") == Count(), "nobody fills the counts with names that they made up"


def test_ratings_of_answers_that_nobody_was_given_count_for_nothing() -> None:
    witness = Witness(BadEngine())
    ratings = gave(Ratings(witness.rate, lambda: ()), 3)
    for number in range(100):
        ratings.hear(rating("base", number))
    ratings.hear(rating("base", 500, response=""))
    assert witness.counted(None) == Count(rated=3, negative=3)
