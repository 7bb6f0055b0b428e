"""Which home a config means, also where an edit has broken it."""

from pathlib import Path

import pytest

from core.errors import ConfigError
from store.config_file import home_in_force


@pytest.mark.parametrize(("text", "home"), [('{"home": "mine"}', "mine"), ('{"home": "mine", oops}', "mine"), ("{}", "var"), ("", "var"), ("oops", "var")])
def test_the_home_of_a_daemon_that_runs_is_found_whatever_the_file_holds(tmp_path: Path, text: str, home: str) -> None:
    (tmp_path / "var" / "caches").mkdir(parents=True)
    (tmp_path / "var" / "caches" / "config.json").write_text("{}")
    (tmp_path / "config.json").write_text(text)
    assert home_in_force(tmp_path / "config.json").root == (tmp_path / home).resolve()


def test_a_broken_file_without_a_home_beside_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("")
    with pytest.raises(ConfigError):
        home_in_force(tmp_path / "config.json")
