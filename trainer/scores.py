"""Score files: per-example losses of one model on one split, the same under another row's context, and its answers. No tensors."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rendering.answers import question_of
from rendering.rows import Row
from store.durable import replace_file
from trainer.run import RunFolder

SCORES = "scores"
SAMPLES = "samples"
FORCED, GREEDY = "forced", "greedy"  # how tokens come about: the row's own, or the likeliest


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """First line of every score file: what made the numbers, so that only like is compared with like.

    `template`, `engine` and `rules` are hashes: of the chat template, of the libraries and the device, of the profile's rules.
    """

    model: str
    split: str
    backend: str
    base_sha256: str
    max_length: int
    dtype: str
    made_up: bool = False
    template: str = ""
    engine: str = ""
    rules: str = ""
    decoding: str = FORCED
    seed: int = 0
    max_new_tokens: int = 0  # of a generated answer
    more: Mapping[str, object] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, object]:
        """The conditions, equal in all files that are compared."""
        forced = {"max_length": self.max_length, "dtype": self.dtype, "template": self.template, "engine": self.engine, "decoding": self.decoding}
        return forced | {"seed": self.seed} | ({"rules": self.rules, "max_new_tokens": self.max_new_tokens} if self.decoding == GREEDY else {})

    def line(self) -> str:
        """The header as the first line of the file, without its end."""
        return json.dumps(
            {
                "header": True,
                "model": self.model,
                "split": self.split,
                "backend": self.backend,
                "base_sha256": self.base_sha256,
                "settings": self.settings,
                "made_up": self.made_up,
                **self.more,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model wrote. `text` is what counts of it by the profile's rules; `tokens` are those that were made, the end included."""

    text: str
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Loss of one row: the sum of -log p over its learnt tokens, in nats; `last_` is of the last assistant turn alone.

    `correct`: how many of the tokens the model holds the likeliest; of a pair, of the better answer's.
    """

    loss: float
    tokens: int
    correct: int
    last_loss: float
    last_tokens: int
    right: float | None = None  # of a pair or judged answer: whether it is told apart (1, a tie 0.5, else 0)
    chosen: float | None = None  # of a pair or a good answer: the sum of -log p of the better answer, in nats


def _place(row: Row) -> dict[str, object]:
    return {"drop": row.drop, "line": row.line, "group": row.group}


def write_scores(run: RunFolder, header: Header, scored: Iterable[tuple[Row, Score]]) -> None:
    """Write `scores/<split>-<model>.jsonl` in the order given, and name it in the run's note."""
    _write(run, header, f"{header.split}-{header.model}", f"{header.split}/{header.model}", [_line(row, score) for row, score in scored])


def write_noise(run: RunFolder, header: Header, scored: Iterable[tuple[Row, Score]]) -> None:
    """Write `scores/noise-<split>-<model>.jsonl`, the same rows scored once more: what a model differs from itself."""
    _write(run, header, f"noise-{header.split}-{header.model}", f"noise-{header.split}/{header.model}", [_line(row, score) for row, score in scored])


def _line(row: Row, score: Score) -> str:
    told = {name: value for name, value in (("right", score.right), ("chosen", score.chosen)) if value is not None}
    return json.dumps(_place(row) | {"loss": score.loss, "tokens": score.tokens, "correct": score.correct} | told)


def write_shift(run: RunFolder, header: Header, shifted: Iterable[tuple[Row, Score, float]]) -> None:
    """Write `scores/shift-<split>-<model>.jsonl`: each row's last turn under its own and under another row's context."""
    lines = [
        json.dumps(_place(row) | {"loss_own": own.last_loss, "loss_shifted": loss_shifted, "tokens": own.last_tokens}) for row, own, loss_shifted in shifted
    ]
    _write(run, header, f"shift-{header.split}-{header.model}", f"shift/{header.model}", lines)


def write_answers(run: RunFolder, header: Header, answered: Iterable[tuple[Row, Answer]]) -> None:
    """Write `samples/answers-<split>-<model>.jsonl` in the order given, and name it in the run's note under `answers/<split>/<model>`."""
    own = replace(header, split=f"answers/{header.split}")
    lines = [json.dumps(_place(row) | {"answer": one.text, "tokens": one.tokens, "seconds": one.seconds}, ensure_ascii=False) for row, one in answered]
    path = Path(SAMPLES, f"answers-{header.split}-{header.model}.jsonl")
    (run.root / SAMPLES).mkdir(exist_ok=True)
    replace_file(run.root / path, "\n".join([own.line(), *lines]) + "\n")
    run.scores[f"{own.split}/{header.model}"] = str(path)


def rows_to_answer(rows: Sequence[Row], count: int) -> list[Row]:
    """The first `count` rows by the hash of their groups that have an answer to compare with."""
    asked = [row for row in rows if question_of(row) is not None]
    return sorted(asked, key=lambda row: (row.group, row.drop, row.line))[:count]


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
