"""A word names one release or none; what expired goes, and what is in use stays; no number is given twice."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from homes import ADAPTER, START, add_release, new_home, put_live

from core.errors import IntegrityError, UsageError
from core.marks import Marks, changed
from core.sections import RetentionConfig
from store.collection import collect
from store.durable import append_line
from store.paths import Home
from store.references import set_pin
from store.releases import gone_versions, read_releases
from store.vault import choose, marks_path, read_marks, resolve, write_marks

NOW = START + timedelta(days=30)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return new_home(tmp_path / "home")


def went_live(home: Home, release: str) -> None:
    line = {"at": START.isoformat(), "target": "local", "alias": ADAPTER, "event": "live", "release": release, "version": 1, "code": "", "reason": ""}
    append_line(home.live, json.dumps(line))


def mark(home: Home, version: int, **wish: str) -> None:
    write_marks(home, ADAPTER, changed(read_marks(home, ADAPTER), version, wish))


def gc(home: Home) -> list[int]:
    """The versions that are left after a gc that has room for all."""
    collect(home, RetentionConfig(min_free_mb=128, min_free_inodes=0), ["local"], NOW)
    return [release.version for release in read_releases(home)]


def test_every_way_to_name_a_release_finds_it(home: Home) -> None:
    releases = [add_release(home, version) for version in (1, 2, 10)]
    mark(home, 2, label="v1.3.0")
    assert resolve(home, ADAPTER).version == 10, "none is live: the newest"
    went_live(home, releases[0])
    words = {"@v2": 2, "@2": 2, "@v1.3.0": 2, "@latest": 10, "@live": 1, "": 1, f"@{releases[2][:8]}": 10}
    assert {word: resolve(home, ADAPTER + word).version for word in words} == words
    assert resolve(home, "default@v2").id == releases[1]
    assert resolve(home, releases[2]).version == 10
    assert resolve(home, releases[2][:6]).version == 10


@pytest.mark.parametrize(
    "name", ["default/main@v9", "default/main@v1.3.1", "default/main@", "default/main@live", "nobody/main", "0123456789", "default/main@stable"]
)
def test_a_name_of_nothing_is_an_error_that_says_what_there_is(home: Home, name: str) -> None:
    add_release(home, 1)
    with pytest.raises(UsageError) as error:
        resolve(home, name)
    assert error.value.code == "RELEASE_UNKNOWN"
    assert error.value.hint


def test_what_expired_goes_unless_it_is_live_previous_or_pinned(home: Home) -> None:
    releases = [add_release(home, version) for version in (1, 2, 3, 4, 5)]
    put_live(home, *releases[:2])
    set_pin(home, releases[2], {"actor": "ann"}, NOW)
    for version in (1, 2, 3, 5):
        mark(home, version, expires_at=(NOW - timedelta(days=1)).isoformat())
    mark(home, 4, expires_at=(NOW + timedelta(days=1)).isoformat())
    assert gc(home) == [1, 2, 3, 4], "5 expired, and being the newest does not keep it"
    with pytest.raises(UsageError) as error:
        choose(home, ADAPTER, "v5")
    assert "expired on" in error.value.hint
    assert gone_versions(home) == {ADAPTER: 5}, "its number, its label and its marks are not given to another"


def test_damaged_marks_let_nothing_expire_and_are_told(home: Home) -> None:
    add_release(home, 1)
    add_release(home, 2)
    mark(home, 1, expires_at=(NOW - timedelta(days=1)).isoformat())
    marks_path(home, ADAPTER).write_text("{")
    put_live(home, "f" * 64)
    assert gc(home) == [1, 2]
    with pytest.raises(IntegrityError, match=r"marks\.json"):
        choose(home, ADAPTER, "v1.0.0")
    assert choose(home, ADAPTER, "v1").version == 1, "numbers need no marks"


def test_no_marks_are_empty_marks(home: Home) -> None:
    assert read_marks(home, ADAPTER) == Marks()
