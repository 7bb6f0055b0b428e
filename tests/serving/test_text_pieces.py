"""Text out of tokens: no half characters, nothing of a stop string."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.text import Detokenizer, StopStrings


def by_bytes(ids: Sequence[int]) -> str:
    """A tokenizer whose tokens are single bytes: the worst case for characters of several bytes."""
    return bytes(ids).decode(errors="replace")


@given(st.text(max_size=40))
def test_pieces_are_whole_characters_and_together_the_text(text: str) -> None:
    detokenizer = Detokenizer(by_bytes)
    pieces = [detokenizer.feed(byte) for byte in text.encode()]
    pieces.append(detokenizer.flush())
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert all("\ufffd" not in piece for piece in pieces)


def test_half_a_character_comes_at_the_end_or_never() -> None:
    detokenizer = Detokenizer(by_bytes)
    assert [detokenizer.feed(byte) for byte in "é".encode()[:1]] == [""]
    assert detokenizer.flush() == "\ufffd"


@given(st.text("ab<", max_size=30), st.lists(st.text("ab<", min_size=1, max_size=4), max_size=3), st.integers(1, 4))
def test_text_ends_before_the_first_stop_string_however_it_is_cut_into_pieces(text: str, stops: list[str], size: int) -> None:
    filtering, given_out = StopStrings(stops), ""
    for start in range(0, len(text), size):
        if not filtering.hit:
            given_out += filtering.feed(text[start : start + size])
    given_out += filtering.flush()
    assert text.startswith(given_out)
    assert filtering.hit == any(stop in text for stop in stops)
    assert not any(stop in given_out for stop in stops)
    assert text[len(given_out) :].startswith(tuple(stops)) if filtering.hit else given_out == text


@pytest.mark.parametrize(("pieces", "told"), [(["one t", "wo EN", "D three"], "one two "), (["aab", "aac"], "aab")])
def test_a_stop_string_over_several_pieces_is_found(pieces: list[str], told: str) -> None:
    filtering = StopStrings(["END", "aac"])
    assert "".join(filtering.feed(piece) for piece in pieces) == told
    assert filtering.hit


def test_what_might_be_a_stop_string_is_held_back_only_while_it_might() -> None:
    filtering = StopStrings(["###"])
    assert filtering.feed("a##") == "a"
    assert filtering.feed("b") == "##b"
    assert filtering.flush() == ""
