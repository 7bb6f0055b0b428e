"""Rows as tokens with the positions that are learnt: the only form in which rows reach a model. No tensors."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from core.errors import ChildError, LoradError
from core.exits import ChildExit
from rendering.rows import Row
from rendering.tokens import Encoding, Renderer


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


@dataclass(slots=True, kw_only=True)
class Examples:
    """The rows that a model can read, and how many it cannot."""

    kept: list[Example] = field(default_factory=list)
    overlong: int = 0
    longest: int = 0
    silent: int = 0
    """Rows without a token to learn, or of weight 0."""

    @property
    def num_rows(self) -> int:
        """All rows that were read, also those left out."""
        return len(self.kept) + self.overlong + self.silent

    @property
    def supervised_share(self) -> float:
        """Learnt tokens among all tokens."""
        total = sum(len(example.ids) for example in self.kept)
        return sum(len(example.learnt) for example in self.kept) / total if total else 0.0


def encode_row(renderer: Renderer, row: Row) -> Example:
    """One row as tokens, for supervised training.

    Raises ChildError BAD_DATA where the base's template cannot express it, and for a row that is learnt in another way:
    as a conversation it would teach the better half of a pair at best, and the worse one of an answer that was marked bad.
    """
    if row.objective != "sft":
        raise ChildError(
            f"line {row.line} of drop {row.drop!r} is a row of {row.schema_id} (objective {row.objective}); this backend trains sft only",
            hint="write its good answers as rows of chat_sft_v1 or completion_v1 and drop those",
            code="OBJECTIVE_UNTRAINED",
            exit_code=ChildExit.BAD_DATA,
        )
    try:
        encoding = renderer.encode(row.messages, row.tools)
    except LoradError as error:
        raise ChildError(f"line {row.line} of drop {row.drop!r}: {error.what}", hint=error.hint, code=error.code, exit_code=ChildExit.BAD_DATA) from None
    return example_of(row, encoding)


def example_of(row: Row, encoding: Encoding) -> Example:
    """The example of an encoding. The first token of all has no context to be predicted from."""
    learnt = array("i", (index for index, learns in enumerate(encoding.supervised) if learns and index))
    weights = array("f", [row.weight]) * len(learnt)
    return Example(row=row, ids=array("i", encoding.ids), learnt=learnt, weights=weights, num_last=sum(index >= encoding.last_turn for index in learnt))


def encode_rows(renderer: Renderer, rows: Sequence[Row], max_length: int, beat: Callable[[], None] = lambda: None) -> Examples:
    """Rows in order, without those over `max_length` tokens and those that teach nothing; both are counted. `beat` is called for each."""
    found = Examples()
    for row in rows:
        beat()
        example = encode_row(renderer, row)
        found.longest = max(found.longest, len(example.ids))
        if len(example.ids) > max_length:
            found.overlong += 1
        elif not example.learnt or not row.weight:
            found.silent += 1
        else:
            found.kept.append(example)
    return found


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
            hint="give assistant turns some content and a weight above 0",
            code="NOTHING_TO_LEARN",
            exit_code=ChildExit.BAD_DATA,
        )
