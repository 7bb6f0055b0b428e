"""A training from an adapter repeats a few of the rows that it has learnt."""

from rendering.rows import Row, Split
from rendering.specs import Message
from trainer.replay import with_replay


def row(drop: str, line: int, split: Split = "train") -> Row:
    return Row(drop=drop, line=line, group=f"{drop}/{line}", split=split, schema_id="chat_sft_v1", messages=[Message("user", "?")], weight=1.0)


ROWS = [row("old", line) for line in range(1000)] + [row("old", 2000, "dev")] + [row("new", line) for line in range(190)] + [row("new", 500, "dev")]


def test_five_of_a_hundred_rows_are_repeats_and_every_new_row_is_there() -> None:
    kept = with_replay(ROWS, {"old"}, 0.05, seed=0)
    assert sum(found.drop == "old" and found.split == "train" for found in kept) == 10  # of 200
    assert sum(found.drop == "new" and found.split == "train" for found in kept) == 190


def test_rows_that_judge_are_never_thinned_and_the_order_stays() -> None:
    kept = with_replay(ROWS, {"old"}, 0.05, seed=0)
    assert [found for found in kept if found.split == "dev"] == [found for found in ROWS if found.split == "dev"]
    assert kept == [found for found in ROWS if found in kept]


def test_the_choice_follows_from_the_seed_alone() -> None:
    assert with_replay(ROWS, {"old"}, 0.05, seed=1) == with_replay(list(ROWS), {"old"}, 0.05, seed=1)
    assert with_replay(ROWS, {"old"}, 0.05, seed=1) != with_replay(ROWS, {"old"}, 0.05, seed=2)


def test_no_replay_and_all_of_it() -> None:
    assert {found.drop for found in with_replay(ROWS, {"old"}, 0.0, seed=0) if found.split == "train"} == {"new"}
    assert with_replay(ROWS, {"old"}, 1.0, seed=0) == ROWS
    assert with_replay(ROWS, (), 0.05, seed=0) == ROWS
