"""The catalogue in the docs is the one that runs."""

from pathlib import Path

import pytest

from validation.catalogue import markdown
from validation.checks import CHECKS

PAGE = Path(__file__).parents[2] / "docs" / "checks.md"


def test_the_page_is_made_from_the_checks() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown(), "run: python -m validation.catalogue > docs/checks.md"


@pytest.mark.parametrize("id", sorted({check.id for check in CHECKS}))
def test_every_check_says_what_it_finds_and_why_it_matters(id: str) -> None:
    checks = [check for check in CHECKS if check.id == id]
    assert len({check.name for check in checks}) == 1
    assert all(check.find.__doc__ for check in checks), "what"
    assert all(check.why for check in checks), "why"
    told = [text for check in checks for text in (check.hint, check.why) if text]
    assert not any(text.endswith(".") for text in told), "half sentences without a stop, as the pages join them"
