"""Splits: drawn once, never changed, and never leaking a held-out conversation."""

from hypothesis import given
from hypothesis import strategies as st

from core.splits import HELD_OUT_MOST, RowKey, draw_splits, group_rows, held_out_groups

hashes = st.lists(st.integers(0, 10**6).map(lambda n: f"{n:064x}"), unique=True, max_size=300)


@given(hashes, hashes)
def test_a_recorded_split_is_reused_and_new_groups_never_take_more_than_their_share(old: list[str], new: list[str]) -> None:
    known = draw_splits(old, {})
    splits = draw_splits([*old, *new], known)
    assert all(splits[group] == known[group] for group in old)
    fresh = [group for group in new if group not in known]
    held = [group for group in fresh if splits[group] != "train"]
    assert len(held) <= HELD_OUT_MOST * len(fresh)


def test_a_file_of_200_conversations_holds_out_30_for_each_split() -> None:
    assert [held_out_groups(count) for count in (0, 1, 6, 100, 200, 450, 1000)] == [0, 0, 0, 15, 30, 45, 100]


def test_the_draw_does_not_depend_on_the_order_of_the_file() -> None:
    groups = [f"{n * 7919:064x}" for n in range(50)]
    assert draw_splits(groups, {}) == draw_splits(list(reversed(groups)), {})


def test_a_common_first_turn_is_refined_by_the_whole_conversation() -> None:
    keys = [RowKey("hello", f"whole{n}") for n in range(20)] + [RowKey(f"q{n}", f"w{n}") for n in range(80)]
    groups = group_rows(keys, {})
    assert groups[:20] == [f"whole{n}" for n in range(20)]
    assert groups[20:] == [f"q{n}" for n in range(80)]


def test_in_a_small_file_a_question_asked_twice_stays_one_group() -> None:
    keys = [RowKey("same", "a"), RowKey("same", "b"), *(RowKey(f"q{n}", f"w{n}") for n in range(10))]
    assert group_rows(keys, {})[:2] == ["same", "same"]


def test_a_key_that_an_earlier_drop_knows_as_a_group_stays_that_group() -> None:
    keys = [RowKey("hello", f"whole{n}") for n in range(50)]
    assert set(group_rows(keys, {"hello": "gate"})) == {"hello"}
