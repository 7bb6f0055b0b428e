"""`lorad deploy status|push` in words, over a home whose link has looked, or has not."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import lorad
from core.wire import Active, AliasState, Observed, Outcome, Wish
from store import codec
from store.child import clock
from store.keys import ensure_keys
from store.paths import Home
from store.targets import OBSERVED, mirror, set_wish

ALIAS, OLD, NEW = "a/main", "1" * 64, "2" * 64


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "config.json").write_text(
        json.dumps({"home": str(tmp_path / "home"), "deploy": {"targets": [{"name": "near", "path": str(tmp_path / "box")}]}})
    )
    made = Home(tmp_path / "home")
    made.prepare()
    ensure_keys(made.keys)
    return made


def run(home: Home, *words: str) -> Result:
    return CliRunner().invoke(lorad, ["deploy", *words, "--config", str(home.root.parent / "config.json")], standalone_mode=False)


def hear(home: Home, *, age_s: float = 0, trouble: str = "", **state: object) -> None:
    """What the link saw: `state` of the alias, some seconds ago."""
    at = clock() - timedelta(seconds=age_s)
    active = Active(box="b", sequence=1, fence_seen=1, at=at, aliases={ALIAS: AliasState(**({"release": OLD, "version": 1, "fence": 1} | state))})
    codec.write(mirror(home, "near") / "active.json", active)
    codec.write(
        home.target("near") / OBSERVED,
        Observed(target="near", at=at, reachable=not trouble, code=trouble, reason=trouble and "no route", hint=trouble and "mend"),
    )


def test_status_tells_what_is_live_and_what_is_asked_for_apart(home):
    set_wish(home, "near", ALIAS, Wish(release=OLD, replaces=None), clock())
    mirror(home, "near").mkdir(parents=True)
    hear(home)
    assert run(home, "status").return_value == 0
    set_wish(home, "near", ALIAS, Wish(release=NEW, replaces=OLD), clock())
    (row,) = json.loads(run(home, "status", "--format", "json").output)
    assert row["fence"] == {"asked": 2, "sent": 0, "seen": 1}
    told = row["adapters"][ALIAS]
    assert (told["live"], told["wanted"], told["state"]) == (OLD, NEW, "asked")
    hear(home, fence=2, outcome=Outcome.REFUSED, code="PROBE_FAILED", reason="rubbish", wanted=NEW)
    text = run(home, "status").output
    assert "v1 111111111111; asked for 22222222222222: refused PROBE_FAILED rubbish" in text


@pytest.mark.parametrize(("age_s", "code", "told"), [(120, "", "LINK_SILENT"), (1, "TARGET_SILENT", "TARGET_SILENT")])
def test_status_does_not_claim_to_know_what_it_does_not(home, age_s, code, told):
    mirror(home, "near").mkdir(parents=True)
    hear(home, age_s=age_s, trouble=code)
    done = run(home, "status")
    assert done.return_value == 2
    assert told in done.output
    assert "not reached" in done.output


def test_status_before_anybody_has_looked(home):
    done = run(home, "status", "near")
    assert (done.return_value, "LINK_SILENT" in done.output, "last look never" in done.output) == (2, True, True)


def test_a_target_that_the_config_does_not_name(home):
    assert run(home, "status", "far").exception.code == "TARGET_UNKNOWN"


def test_a_push_that_nobody_answers_says_what_stands_in_the_way(home, monkeypatch):
    monkeypatch.setattr("cli.shipping.PATIENCE_S", 0.0)
    set_wish(home, "near", ALIAS, Wish(release=None, replaces=None), clock())
    assert run(home, "push").exception.code == "TARGET_UNREACHABLE"
