"""The mark of a release in what an answer carries: written by serving, read by `lorad why`."""

import pytest

from core.fingerprints import fingerprint, is_unmarked, mark_in, response_id

RELEASE = "9ec8d32228a5" + "0" * 52


@pytest.mark.parametrize("reference", [response_id(RELEASE, "0123456789abcdef01234567"), fingerprint(RELEASE), f"  {fingerprint(RELEASE)}\n"])
def test_what_is_written_is_read_again(reference: str) -> None:
    assert mark_in(reference) == RELEASE[:12]
    assert not is_unmarked(reference)


def test_the_base_has_a_mark_of_its_own() -> None:
    assert mark_in(response_id("base", "0" * 24)) == "base"
    assert mark_in(fingerprint("base")) == "base"


@pytest.mark.parametrize(
    "reference", ["default/main", RELEASE, "lorad-", "lorad-9EC8D32228A5", "chatcmpl-base", "chatcmpl-9ec8d32228a5-", "x chatcmpl-base-" + "0" * 24]
)
def test_nothing_else_is_taken_for_one(reference: str) -> None:
    assert mark_in(reference) is None


def test_an_answer_of_another_server_is_known_as_one() -> None:
    assert is_unmarked("chatcmpl-9ec8d32228a5f00d9ec8d322")
    assert not is_unmarked("default/main")
