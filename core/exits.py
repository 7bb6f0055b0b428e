"""Exit codes of child processes: a protocol between the daemon and its children."""

from enum import IntEnum


class ChildExit(IntEnum):
    """What a child says by its exit status; `exit.json` says the same with the details and wins."""

    DONE = 0  # the result is whole in the run folder
    BAD_SPEC = 10  # the spec cannot be carried out; do not retry
    OUT_OF_MEMORY = 20  # retry with a smaller micro-batch
    BAD_DATA = 30  # the rows cannot be trained on; do not retry
    STOPPED = 40  # stopped on request; resume from the newest sealed checkpoint
