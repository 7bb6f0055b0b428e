"""`lorad deploy setup`, its script on the box, `check` and `rotate`, against a real sshd on loopback."""

import getpass
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result
from loopback_sshd import Sshd, needs_sshd

from cli.main import lorad
from core.wire import Capacity
from deploy import examination, ssh
from deploy.examination import examine
from store import codec
from store.bases import STUB_BASE
from store.child import clock
from store.config import ConfigLoader
from store.paths import Box

pytestmark = needs_sshd
START = datetime(2020, 1, 1, tzinfo=UTC)


def write_config(root: Path, **target: object) -> Path:
    values = {"name": "near", "kind": "ssh", "host": "127.0.0.1", "user": getpass.getuser(), "path": str(root / "a box"), **target}
    (root / "config.json").write_text(json.dumps({"home": str(root / "home"), "models_dir": str(root / "models"), "deploy": {"targets": [values]}}))
    return root / "config.json"


class Cellar:
    """A box behind a running sshd, and the config of the training box that names it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sshd = Sshd(root / "sshd", root / "there" / ".ssh" / "authorized_keys")
        self.sshd.start()
        self.config = write_config(root, port=self.sshd.port)
        self.box = Box(root / "a box")
        fake = root / "bin" / "getent"  # the box's user lives in a folder of the test
        fake.parent.mkdir()
        fake.write_text(f"#!/bin/sh\necho {getpass.getuser()}:x:0:0::{root}/there:/bin/sh\n")
        fake.chmod(0o755)

    def lorad(self, *words: str) -> Result:
        return CliRunner().invoke(lorad, ["deploy", *words, "--config", str(self.config)], catch_exceptions=False, standalone_mode=False)

    def run_there(self, script: str) -> None:
        environment = os.environ | {"PATH": f"{self.root / 'bin'}:{os.environ['PATH']}"}
        subprocess.run(["sh"], input=script, text=True, check=True, env=environment, capture_output=True)

    def codes(self) -> list[str]:
        config = ConfigLoader(self.config).load().config
        return [found.code for found in examine(config, config.deploy.targets[0], clock)]

    @property
    def authorized(self) -> str:
        return self.sshd.authorized.read_text()


@pytest.fixture(scope="module")
def cellar(tmp_path_factory) -> Iterator[Cellar]:
    """Set up as a person does: `setup`, then its script on the box."""
    found = Cellar(tmp_path_factory.mktemp("cellar"))
    found.first = found.lorad("setup", "near", "--yes")
    script = found.lorad("setup", "near", "--script")
    found.run_there(script.output)
    yield found
    found.sshd.stop()


@pytest.fixture
def soon(monkeypatch) -> None:
    monkeypatch.setattr(ssh, "CONNECT_S", 1)
    monkeypatch.setattr(examination, "BEAT_S", 0.0)


def beat(box: Box, **values: object) -> None:
    told = {"box": "b", "at": clock(), "free_bytes": 1 << 40, "free_inodes": 0, "base_sha256": "stub", "engine": "stub", "pid": 1} | values
    codec.write(box.capacity, Capacity(**told), durable=False)


def test_setup_shows_the_fingerprint_and_prints_two_confined_lines(cellar):
    listed = subprocess.run(["ssh-keygen", "-lf", str(cellar.sshd.folder / "host.pub")], capture_output=True, text=True, check=True).stdout
    assert listed.split()[1] in cellar.first.output
    lines = [line for line in cellar.first.output.splitlines() if line.startswith("restrict,")]
    assert [line.split()[-1] for line in lines] == ["lorad-near-write", "lorad-near-read"]
    assert cellar.authorized.splitlines()[-2:] == lines
    for path in (cellar.root / "home/keys/ssh").glob("near.*"):
        assert path.name.endswith((".pub", ".host")) or path.stat().st_mode & 0o777 == 0o600


def test_the_script_leaves_other_keys_and_a_repeat_changes_nothing(cellar):
    stranger = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA somebody@else"
    cellar.sshd.authorized.write_text(f"{stranger}\n{cellar.authorized}")
    before = cellar.authorized
    cellar.run_there(cellar.lorad("setup", "near", "--script").output)
    assert cellar.authorized == before
    trusted = (cellar.box.root / "trust" / "release.pub").read_text().strip()
    assert trusted == (cellar.root / "home" / "keys" / "release.pub").read_text().strip()
    there = ConfigLoader(cellar.box.root / "config.json").load().config if (cellar.box.root / "config.json").exists() else None
    assert there is None or (there.serving.home, there.serving.trust) == (str(cellar.box.root), str(cellar.box.root / "trust"))


@pytest.mark.usefixtures("soon")
def test_a_box_that_is_well_has_nothing_to_mend(cellar):
    cellar.box.prepare()
    beat(cellar.box, base_sha256="a" * 64)
    done = cellar.lorad("check", "near")
    assert done.return_value == 0, done.output
    assert cellar.codes() == ["RSYNC", "KEY", "KEY", "TARGET_READ", "TARGET_WRITTEN", "SERVING", "BASE", "TARGET_ROOM"]


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"base_sha256": ""}, "BASE_MISSING_THERE"),
        ({"base_sha256": STUB_BASE}, "BASE_MISSING_THERE"),  # a training here would be refused there
        ({"free_bytes": 1 << 20}, "TARGET_DISK_FULL"),
        ({"at": START}, "SERVING_SILENT"),
        ({}, "SERVING"),
        (None, "SERVING_NEVER_RAN"),
    ],
)
def test_what_the_box_says_of_itself_is_judged(tmp_path, said, code):
    config = ConfigLoader(write_config(tmp_path, kind="local", host="")).load().config
    box = Box(tmp_path / "a box")
    box.prepare()
    if said is not None:
        beat(box, **said)
    (found,) = [found for found in examine(config, config.deploy.targets[0], clock) if found.code == code]
    assert bool(found.mend) == (code != "SERVING")


def test_a_clock_that_is_wrong_there_is_told_from_silence(tmp_path, monkeypatch):
    """The sign of life is of another year, and changes: the box is alive."""
    config = ConfigLoader(write_config(tmp_path, kind="local", host="")).load().config
    box = Box(tmp_path / "a box")
    box.prepare()
    beat(box, at=START)
    monkeypatch.setattr(examination.time, "sleep", lambda seconds: beat(box, at=START + timedelta(seconds=10)))
    found = {found.code: found for found in examine(config, config.deploy.targets[0], clock)}
    assert "SERVING" in found
    assert "behind" in found["CLOCK_SKEW"].what


@pytest.mark.usefixtures("soon")
def test_a_box_with_another_host_key_is_refused_until_a_person_pins_it(cellar):
    pinned = cellar.root / "home" / "keys" / "ssh" / "near.host"
    right = pinned.read_text()
    pinned.write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBhp3yUAnQEeDG8lWhO4PMFYlAXUDxPqDkPSUHdkXvQ4\n")
    assert cellar.codes()[-1] == "HOST_KEY_CHANGED"
    assert "--repin" in cellar.lorad("check", "near").output
    assert cellar.codes()[-1] == "HOST_KEY_CHANGED", "looking at it must not accept it"
    cellar.lorad("setup", "near", "--repin", "--yes")
    assert pinned.read_text() == right
    assert "HOST_KEY_CHANGED" not in cellar.codes()


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("lorad-near-", "nobody-"), "KEY"),  # a comment means nothing
        (("ssh-ed25519 AAAA", "ssh-ed25519 BBBB"), "KEY_REFUSED"),
        (("rrsync -wo", "no-such-rrsync -wo"), "RSYNC_MISSING_THERE"),
        (("a box/in", "a box/elsewhere"), "TARGET_PATH_MISSING"),
        (("-no-lock -no-del", "-no-such-option"), "RSYNC_OLD"),
        (('restrict,command="', 'environment="X='), "KEY_UNCONFINED"),
    ],
)
def test_what_is_wrong_with_the_key_there_has_a_name(cellar, change, code):
    right = cellar.authorized
    cellar.sshd.authorized.write_text(right.replace(*change))
    if code == "RSYNC_MISSING_THERE":
        cellar.sshd.authorized.write_text(right.replace('command="rrsync', 'command="/nowhere/rrsync'))
    try:
        found = cellar.codes()
        assert code in found
        assert code == "KEY" or found[-1] == code
    finally:
        cellar.sshd.authorized.write_text(right)


@pytest.mark.usefixtures("soon")
def test_a_box_that_cannot_be_reached_is_told_apart(cellar):
    config = ConfigLoader(cellar.config).load().config
    target = config.deploy.targets[0]

    def last(**changes: object) -> str:
        return [found.code for found in examine(config, target.model_copy(update=changes), clock)][-1]

    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        port = hole.getsockname()[1]
        assert last(port=port) == "PORT_REFUSED"
        hole.listen(1)  # takes the connection, and never says a word
        assert last(port=port) == "TARGET_SILENT"
    assert last(host="no-such-host.invalid") == "HOST_UNKNOWN"
    assert last(name="other") == "SSH_KEY_MISSING"


@pytest.mark.usefixtures("soon")
def test_keys_are_changed_without_a_gap(cellar):
    old = cellar.authorized
    refused = CliRunner().invoke(lorad, ["deploy", "rotate", "near", "--finish", "--config", str(cellar.config)], standalone_mode=False)
    assert refused.exception.code == "KEY_REFUSED", "new keys that the box does not know must not replace those that it knows"
    cellar.run_there(cellar.lorad("rotate", "near", "--script").output)
    assert cellar.authorized.count("lorad-near-") == 4
    assert "KEY" in cellar.codes(), "the old keys count until the new ones do"
    assert cellar.lorad("rotate", "near", "--finish").exit_code == 0
    cellar.run_there(cellar.lorad("setup", "near", "--script").output)
    assert cellar.authorized.count("lorad-near-") == 2
    assert cellar.authorized != old
    assert cellar.codes().count("KEY") == 2


def test_a_target_of_this_machine_needs_no_keys(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"home": str(tmp_path / "home")}))
    here = SimpleNamespace(config=tmp_path / "config.json")
    done = Cellar.lorad(here, "setup", "local")
    assert "lorad serve" in done.output
