"""Which steps of a decision are carried out together. Pure."""

from collections.abc import Iterator, Sequence

from core.steps import AcceptDrop, GateDrop, MakeJob, Step, TakeDrop

TOGETHER = (TakeDrop, GateDrop, AcceptDrop, MakeJob)  # kinds of which several in a row are carried out at once
MOST_TOGETHER = 64


def in_runs(steps: Sequence[Step]) -> Iterator[tuple[Step, ...]]:
    """The steps in order, those that are carried out together as one run."""
    run: list[Step] = []
    for step in steps:
        if run and (type(step) is not type(run[0]) or not isinstance(step, TOGETHER) or len(run) >= MOST_TOGETHER):
            yield tuple(run)
            run = []
        run.append(step)
    if run:
        yield tuple(run)
