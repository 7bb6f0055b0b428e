"""What a training says of rows that it cannot go on with: which they are, and what to do. Never their text."""

from collections.abc import Sequence

from core.errors import ChildError
from core.exits import ChildExit
from trainer.examples import Example

NAMED_ROWS = 8


def not_finite(what: str, examples: Sequence[Example], num_kept: int) -> ChildError:
    """The error for a loss or a gradient of these rows that is no number. Args: num_kept: checkpoints from before it."""
    return ChildError(
        f"{what} is not a finite number; its rows: {named(examples)}",
        hint=f"look at these rows; if they are sound, lower learning_rate ({num_kept} checkpoints from before it are kept)",
        code="LOSS_NOT_FINITE",
        exit_code=ChildExit.BAD_DATA,
    )


def too_large(step: int, examples: Sequence[Example]) -> ChildError:
    """The error for a step that runs out of memory with one row at a time."""
    longest = max(examples, key=lambda example: len(example.ids))
    return ChildError(
        f"step {step} runs out of memory with one row at a time; the longest has {len(longest.ids)} tokens ({named([longest])})",
        hint="lower max_length, use a smaller base, or free memory",
        code="OUT_OF_MEMORY",
        exit_code=ChildExit.OUT_OF_MEMORY,
    )


def named(examples: Sequence[Example]) -> str:
    """Rows by line and drop; of many the first few, and how many more."""
    names = [f"line {example.row.line} of drop {example.row.drop!r}" for example in examples]
    return ", ".join(names[:NAMED_ROWS]) + (f" and {len(names) - NAMED_ROWS} more" if len(names) > NAMED_ROWS else "")
