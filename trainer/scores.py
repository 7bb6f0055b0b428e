"""Score files: per-example losses of one model on one split, and the same under another row's context. No tensors."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rendering.rows import Row
from store.durable import replace_file
from trainer.run import RunFolder

SCORES = "scores"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """First line of every score file: what made the numbers, so that only like is compared with like."""

    model: str
    split: str
    backend: str
    base_sha256: str
    max_length: int
    dtype: str
    made_up: bool = False

    def line(self) -> str:
        """The header as the first line of the file, without its end."""
        return json.dumps(
            {
                "header": True,
                "model": self.model,
                "split": self.split,
                "backend": self.backend,
                "base_sha256": self.base_sha256,
                "settings": {"max_length": self.max_length, "dtype": self.dtype},
                "made_up": self.made_up,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Loss of one row: the sum of -log p over its learnt tokens, in nats; `last_` is of the last assistant turn alone."""

    loss: float
    tokens: int
    last_loss: float
    last_tokens: int


def _place(row: Row) -> dict[str, object]:
    return {"drop": row.drop, "line": row.line, "group": row.group}


def write_scores(run: RunFolder, header: Header, scored: Iterable[tuple[Row, Score]]) -> None:
    """Write `scores/<split>-<model>.jsonl` in the order given, and name it in the run's note."""
    lines = [json.dumps(_place(row) | {"loss": score.loss, "tokens": score.tokens}) for row, score in scored]
    _write(run, header, f"{header.split}-{header.model}", f"{header.split}/{header.model}", lines)


def write_shift(run: RunFolder, header: Header, shifted: Iterable[tuple[Row, Score, float]]) -> None:
    """Write `scores/shift-<split>-<model>.jsonl`: each row's last turn under its own and under another row's context."""
    lines = [
        json.dumps(_place(row) | {"loss_own": own.last_loss, "loss_shifted": loss_shifted, "tokens": own.last_tokens}) for row, own, loss_shifted in shifted
    ]
    _write(run, header, f"shift-{header.split}-{header.model}", f"shift/{header.model}", lines)


def _write(run: RunFolder, header: Header, name: str, key: str, lines: Sequence[str]) -> None:
    path = Path(SCORES, f"{name}.jsonl")
    (run.root / SCORES).mkdir(exist_ok=True)
    replace_file(run.root / path, "\n".join([header.line(), *lines]) + "\n")
    run.scores[key] = str(path)


def shift_rows(rows: Sequence[Row]) -> list[tuple[int, Row]]:
    """For each row its index and the row's last turn under the context of the next row of another group.

    "Next" is in order of groups, cyclic. Rows of a single group have no other context: then there are none.
    """
    if len({row.group for row in rows}) < 2:
        return []
    order = sorted(range(len(rows)), key=lambda index: (rows[index].group, rows[index].drop, rows[index].line))
    found = []
    for place, index in enumerate(order):
        row = rows[index]
        others = (rows[order[(place + step) % len(order)]] for step in range(1, len(order)))
        other = next(other for other in others if other.group != row.group)
        turn = row.messages[_last_turn(row)]
        # The other row's tools belong to its context.
        found.append((index, replace(row, messages=[*other.messages[: _last_turn(other)], turn], tools=other.tools)))
    return found


def _last_turn(row: Row) -> int:
    """Index of the last assistant turn; the gate accepts no row without one."""
    return max(index for index, message in enumerate(row.messages) if message.role == "assistant")
