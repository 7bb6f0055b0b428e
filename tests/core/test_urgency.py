"""When and how urgently: what a person or a sidecar may write."""

import pytest

from core.errors import ConfigError
from core.urgency import moment_of


@pytest.mark.parametrize("text", ["0001-01-01T00:00+14:00", "9999-12-31T23:59-12:00"])
def test_a_moment_that_another_zone_cannot_show_is_refused_and_never_ends_the_daemon(text: str) -> None:
    with pytest.raises(ConfigError, match="end of the calendar"):
        moment_of(text, "the sidecar")


def test_a_moment_is_told_in_utc() -> None:
    assert moment_of("2026-03-01T22:00+01:00", "the sidecar").isoformat() == "2026-03-01T21:00:00+00:00"
