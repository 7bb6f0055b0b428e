"""Each stage of one drop's way as a context: within it, lorad stands still in that stage, seen on disk.

Each starts the processes, drops `CONTENT`, and waits for the stage. What keeps lorad there ends with the context, so that
a test kills inside it and then lets the rest of the way happen.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from circle import Circle, chat_rows, read_lines
from processes import pause

CONTENT = chat_rows()
MANY_STEPS = {"epochs": 15, "checkpoints": 15}  # under three seconds of stub training, a checkpoint every 0.2 s

Stage = Callable[[Circle], AbstractContextManager[None]]


@contextmanager
def settling(circle: Circle) -> Iterator[None]:
    """Claimed, while the gate is busy with another file, one at level deep, beside which it takes no other."""
    circle.brake("gate")
    circle.start_both()
    circle.drop(b"not JSON\n", "before.jsonl", sidecar={"level": "deep"})
    circle.wait(circle.in_gate, "the other file is in the gate")
    circle.drop(CONTENT)
    circle.wait(lambda: [folder for folder in circle.drops("settling") if (folder / "original").exists()], "the drop is settling")
    yield
    circle.let_go("gate")


@contextmanager
def held(circle: Circle, *, kind: str, state: str) -> Iterator[None]:
    """A child of this kind does nothing yet; the job is in `state`."""
    circle.brake(kind)
    circle.start_both()
    circle.drop(CONTENT)
    circle.wait_held(kind)
    circle.wait_state(state)
    yield
    circle.let_go(kind)


@contextmanager
def gating(circle: Circle) -> Iterator[None]:
    """The gate has the drop and has not answered."""
    circle.brake("gate")
    circle.start_both()
    circle.drop(CONTENT)
    circle.wait(circle.in_gate, "the drop is in the gate")
    yield
    circle.let_go("gate")


@contextmanager
def queued(circle: Circle) -> Iterator[None]:
    """The slot is taken."""
    circle.start_both()
    with circle.slot_taken():
        circle.drop(CONTENT)
        circle.wait_state("queued")
        yield


@contextmanager
def training(circle: Circle) -> Iterator[None]:
    """The trainer is at work and has sealed a resume point."""
    circle.configure(training=MANY_STEPS)
    circle.start_both()
    circle.drop(CONTENT)
    job = circle.wait_state("training")
    circle.wait(lambda: circle.resume_point(job), "a resume point is sealed")
    yield


@contextmanager
def wished(circle: Circle) -> Iterator[None]:
    """The wish is written; the link has not sent anything."""
    circle.brake("link")
    circle.start_both()
    circle.drop(CONTENT)
    job = circle.wait_state("releasing")
    circle.wait(lambda: circle.facts(job).get("fences"), "the wish has its fence")
    yield
    circle.let_go("link")


@contextmanager
def pushed(circle: Circle) -> Iterator[None]:
    """The wish lies on the box, which has not looked at it."""
    circle.start_both()
    circle.drop(CONTENT)
    circle.wait_state("releasing")
    circle.serving.pause()
    circle.wait(lambda: (circle.box / "in" / "desired.json").exists(), "the wish lies on the box")
    yield
    if circle.serving.lives():
        circle.serving.go_on()


@contextmanager
def live_unheard(circle: Circle) -> Iterator[None]:
    """Live on the box; the daemon does not know it yet."""
    with pushed(circle):
        for link in circle.children("deploy", "link"):
            pause(link)
        circle.serving.go_on()
        circle.wait(circle.went_live, "the release is live")
        assert list(circle.jobs().values()) == ["releasing"]
        assert read_lines(circle.home / "live.jsonl") == []
        yield


STAGES: dict[str, Stage] = {
    "settling": settling,
    "gating": gating,
    "queued": queued,
    "training, not begun": partial(held, kind="train", state="training"),
    "training, resume point sealed": training,
    "ranking, scores on dev": partial(held, kind="score-dev", state="ranking"),
    "ranking, order": partial(held, kind="rank-order", state="ranking"),
    "ranking, scores on gate": partial(held, kind="score-gate", state="ranking"),
    "ranking, verdict": partial(held, kind="rank-verdict", state="ranking"),
    "releasing, pack": partial(held, kind="pack", state="releasing"),
    "releasing, wished": wished,
    "releasing, pushed": pushed,
    "releasing, live but unheard": live_unheard,
}
