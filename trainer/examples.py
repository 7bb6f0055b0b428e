"""Rows as tokens with the positions that are learnt: the only form in which rows reach a model. No tensors."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol, cast

from core.errors import ChildError, LoradError
from core.exits import ChildExit
from rendering.rows import Row
from rendering.tokens import Encoding, Renderer
from trainer.identity import names_sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One row. `learnt` are the positions in `ids` whose token is predicted; the last `num_last` are of the last turn.

    `weights` has the length of `learnt`: the weight of each predicted token in the loss, row's and message's multiplied.
    """

    row: Row
    ids: "array[int]"  # array.array takes no subscript at run time
    learnt: "array[int]"
    weights: "array[float]"
    num_last: int
    second: "Example | None" = None
    """The conversation that the row is compared with: the worse one of a pair; of a judged answer, the same answer under another prompt."""

    @property
    def sequences(self) -> "tuple[Example, ...]":
        """The conversations that one forward pass needs together: both of a pair, else the row's own."""
        return (self, self.second) if self.second is not None and self.row.rejected is not None else (self,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What is known of rows as a whole. `names_sha256` is over the drop and line of each, in order."""

    tokens: int
    learnt: int
    longest: int
    names_sha256: str

    @classmethod
    def of(cls, rows: Sequence[Example]) -> "Totals":
        """The totals of rows that lie in memory."""
        lengths = [len(example.ids) for example in rows]
        return cls(
            tokens=sum(lengths),
            learnt=sum(len(example.learnt) for example in rows),
            longest=max(lengths, default=0),
            names_sha256=names_sha256((example.row.drop, example.row.line) for example in rows),
        )


class Streamed(Protocol):
    """Rows that lie in files (`trainer.tokenfiles.TokenRows`) and know their lengths and totals without being read."""

    lengths: Sequence[int]
    totals: Totals


@dataclass(kw_only=True)
class Examples:
    """The rows that a model can read, and how many it cannot."""

    kept: Sequence[Example] = field(default_factory=list)
    overlong: int = 0
    longest: int = 0
    silent: int = 0
    """Rows without a token to learn, or of weight 0, and pairs whose two answers are the same tokens."""

    @property
    def num_rows(self) -> int:
        """All rows that were read, also those left out."""
        return len(self.kept) + self.overlong + self.silent

    @property
    def is_streamed(self) -> bool:
        """Whether the rows lie in files, all of them learnt token by token, rather than in memory."""
        return not isinstance(self.kept, list)

    @cached_property
    def totals(self) -> Totals:
        """Counted once: `kept` must not change afterwards."""
        return Totals.of(self.kept) if isinstance(self.kept, list) else cast(Streamed, self.kept).totals

    @property
    def supervised_share(self) -> float:
        """Learnt tokens among all tokens."""
        return self.totals.learnt / self.totals.tokens if self.totals.tokens else 0.0


def lengths_of(rows: Sequence[Example]) -> Sequence[int]:
    """Tokens of each row; of rows in files, without reading them."""
    return [len(example.ids) for example in rows] if isinstance(rows, list) else cast(Streamed, rows).lengths


def encode_row(renderer: Renderer, row: Row) -> Example:
    """One row as tokens, as `trainer.objectives.learnt_as` says that it is learnt; a pair has its worse conversation in `second`.

    Raises ChildError BAD_DATA where the base's template cannot express it, and for rows that no backend trains (pictures).
    """
    if row.objective == "vision":
        raise ChildError(
            f"line {row.line} of drop {row.drop!r} is a row of {row.schema_id} (objective {row.objective}), which no backend trains",
            hint="drop what can be said without pictures as rows of chat_sft_v1",
            code="OBJECTIVE_UNTRAINED",
            exit_code=ChildExit.BAD_DATA,
        )
    example = _encode(renderer, row)
    if row.objective in ("dpo", "orpo") and row.rejected is not None:
        return replace(example, second=_encode(renderer, replace(row, messages=row.rejected)))
    return example


def _encode(renderer: Renderer, row: Row) -> Example:
    try:
        encoding = renderer.encode(row.messages, row.tools)
    except LoradError as error:
        raise ChildError(f"line {row.line} of drop {row.drop!r}: {error.what}", hint=error.hint, code=error.code, exit_code=ChildExit.BAD_DATA) from None
    return example_of(row, encoding)


def example_of(row: Row, encoding: Encoding) -> Example:
    """The example of an encoding. The first token of all has no context to be predicted from."""
    learnt = array("i", (index for index, learns in enumerate(encoding.supervised) if learns and index))
    weights = array("f", (row.weight * encoding.weights[index] for index in learnt))
    return Example(row=row, ids=array("i", encoding.ids), learnt=learnt, weights=weights, num_last=sum(index >= encoding.last_turn for index in learnt))


def encode_rows(renderer: Renderer, rows: Sequence[Row], max_length: int, beat: Callable[[], None] = lambda: None) -> Examples:
    """Rows in order, without those over `max_length` tokens and those that teach nothing; both are counted. `beat` is called for each."""
    found, kept = Examples(), list[Example]()
    for row in rows:
        beat()
        example = encode_row(renderer, row)
        longest = max(len(sequence.ids) for sequence in example.sequences)
        found.longest = max(found.longest, longest)
        if longest > max_length:
            found.overlong += 1
        elif not row.weight or not all(sequence.learnt for sequence in example.sequences) or _is_same(example):
            found.silent += 1
        else:
            kept.append(example)
    found.kept = kept
    return found


def _is_same(example: Example) -> bool:
    """Whether a pair's two conversations came out as the same tokens: a template may cut away what told them apart."""
    return len(example.sequences) == 2 and example.sequences[0].ids == example.sequences[1].ids


def require_trainable(found: Examples, max_length: int, max_overlong_share: float) -> None:
    """Raises ChildError BAD_DATA where there is nothing to train on, or too much would be left out."""
    if not found.num_rows:
        raise ChildError("the drops of this job hold no row of the train split", hint="drop more rows", code="NO_TRAIN_ROWS", exit_code=ChildExit.BAD_DATA)
    share = found.overlong / found.num_rows
    if share > max_overlong_share:
        raise ChildError(
            f"{found.overlong} of {found.num_rows} train rows ({share:.1%}) are longer than max_length {max_length} (the longest has {found.longest} tokens);"
            f" at most {max_overlong_share:.1%} may be left out",
            hint="raise max_length, split the long rows, or raise training.max_overlong_share",
            code="TOO_MANY_OVERLONG",
            exit_code=ChildExit.BAD_DATA,
        )
    if not found.kept:
        raise ChildError(
            f"none of {found.num_rows} train rows has a token to learn",
            hint="give assistant turns some content and a weight above 0, and pairs two answers that differ once they are rendered",
            code="NOTHING_TO_LEARN",
            exit_code=ChildExit.BAD_DATA,
        )
