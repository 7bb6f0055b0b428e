"""A machine that only serves, without torch: set up by `scripts/install --inference` alone, reached over its own sshd by a training box.

One container for all stories, in the order in which a person meets them. llama.cpp answers there, on a random base of two layers
that `lorad deploy push --base` brings. The training box is a real daemon outside of it, on the other end of a cable.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from box import ENGINE, Box, missing
from circle import chat_rows
from twohosts import TwoHosts, lacking

if TYPE_CHECKING:
    from trainingbox import TrainingBox

pytestmark = [
    pytest.mark.full,
    pytest.mark.xdist_group("serving-box"),
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning"),
]

TARGET = "cellar"
ALIAS = "default/main"
TORCH = ("torch", "transformers", "peft", "safetensors")
GOOD = ["RSYNC", "KEY", "TARGET_READ", "TARGET_WRITTEN", "SERVING", "BASE", "TARGET_ROOM"]


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator["TrainingBox"]:
    if lack := lacking():
        pytest.skip(lack)
    for name in (*TORCH, "gguf"):
        pytest.importorskip(name)
    from trainingbox import TrainingBox

    root = tmp_path_factory.mktemp("two")
    with ExitStack() as stack:
        hosts = TwoHosts()
        stack.callback(hosts.remove)
        box = Box(root / "root", hosts.far.name)
        stack.callback(box.end)
        box.boot()
        made = TrainingBox(root / "training", hosts, box)
        stack.callback(made.end)
        made.make_base()
        yield made


def install(box: Box) -> str:
    return box.install("--inference", extras=ENGINE)


def first_answer(training: "TrainingBox") -> tuple[str, str]:
    """(mark of the release, what it says) of an answer."""
    told: dict[str, Any] = training.ask().json()
    return told["system_fingerprint"].removeprefix("lorad-"), told["choices"][0]["message"]["content"]


def live(training: "TrainingBox") -> tuple[bool, str, str | None]:
    """(reached, what stands in the way, the live release) as `lorad deploy status` tells it."""
    told = training.deploy_status()
    return told["reachable"], told["code"], told["adapters"][ALIAS]["live"]


def test_an_install_for_serving_makes_the_user_the_folders_and_the_units_of_serving_alone(training: "TrainingBox") -> None:
    box = training.there
    assert "lorad deploy setup" in install(box).splitlines()[-1]
    assert training.is_ready()
    for unit in ("lorad-serve.socket", "lorad-serve.service"):
        assert (box.show(unit, "ActiveState"), box.show(unit, "UnitFileState")) == ("active", "enabled")
    for unit in ("lorad.service", "lorad-gc.service", "lorad-gc.timer"):
        assert box.show(unit, "LoadState") == "not-found"
    assert box.run("getent", "passwd", "lorad").stdout.strip().endswith(":/var/lib/lorad:/bin/sh")
    assert "\nlorad:*:" in box.read("/etc/shadow"), "keys, and no password"
    modes = box.run("stat", "-c", "%a %U", "/var/lib/lorad", "/var/lib/lorad/serving", "/etc/lorad", "/etc/lorad/secrets").stdout.splitlines()
    assert modes == ["711 lorad", "750 lorad", "755 root", "700 root"]


def test_a_second_install_for_serving_changes_nothing(training: "TrainingBox") -> None:
    assert "nothing to change" in install(training.there)


def test_there_is_no_torch_on_the_box(training: "TrainingBox") -> None:
    look = f"import importlib.util as util; print([name for name in {TORCH} if util.find_spec(name)])"
    assert training.there.run("/opt/lorad/venv/bin/python", "-c", look).stdout.strip() == "[]"
    refused = training.there.run("/opt/lorad/venv/bin/python", "-c", "import torch", check=False)
    assert "No module named 'torch'" in refused.stderr


def test_check_names_what_is_missing_and_what_mends_it_until_all_is_well(training: "TrainingBox") -> None:
    box = training.there
    found = training.check()
    assert list(found) == ["RSYNC", "SSH_KEY_MISSING"]
    assert f"`lorad deploy setup {TARGET}`" in found["SSH_KEY_MISSING"]

    told = training.deploy("setup", TARGET, "--yes").stdout
    assert box.run("ssh-keygen", "-lf", "/etc/ssh/ssh_host_ed25519_key.pub").stdout.split()[1] in told, "the host key that is pinned is the box's"
    assert [path.stat().st_mode & 0o777 for path in sorted((training.home / "keys" / "ssh").glob("*.[wr]*[ed]"))] == [0o600, 0o600]
    found = training.check()
    assert list(found) == ["RSYNC", "KEY_REFUSED"]
    assert f"`lorad deploy setup {TARGET}`" in found["KEY_REFUSED"]

    box.run("sh", text=training.deploy("setup", TARGET, "--script").stdout)
    lines = box.read("/var/lib/lorad/.ssh/authorized_keys").splitlines()
    assert [line.split()[-1] for line in lines] == [f"lorad-{TARGET}-write", f"lorad-{TARGET}-read"]
    assert all(line.startswith('restrict,command="rrsync -') and line in told for line in lines)
    found = training.check()
    assert found["KEY"] == ""
    assert "--base" in found["BASE_MISSING_THERE"], "the stub answers meanwhile"

    assert training.deploy("push", TARGET, "--base").returncode == 0
    box.run("systemctl", "restart", "lorad-serve")
    found = training.check()
    assert list(found) == GOOD
    assert not any(found.values())
    assert training.capacity()["engine"] == ENGINE
    assert "nothing to change" in install(box), "the config that the training box brought is kept"


def test_a_drop_goes_live_on_the_box_and_an_answer_leads_back_to_its_release(training: "TrainingBox") -> None:
    mark, before = first_answer(training)
    assert mark == "base"
    training.start_daemon()
    training.drop(chat_rows())
    training.wait_ended()
    assert list(training.jobs().values()) == ["released"]
    (release,) = training.went_live()
    assert release is not None
    mark, after = first_answer(training)
    assert mark == release[:12]
    assert after != before
    (line,) = [line for line in training.history() if line["event"] == "live" and (line["release"] or "").startswith(mark)]
    assert (line["release"], line["target"], line["version"]) == (release, TARGET, 1)
    assert live(training) == (True, "", release)
    (folder,) = training.box.glob(f"releases/*/*/v1-{mark}")
    assert (folder / "adapter.gguf").is_file()


@pytest.mark.parametrize("words", [("kill", "-s", "KILL"), ("restart",)], ids=["kill -9", "restart"])
def test_the_same_release_answers_after_a_kill_and_after_a_restart(training: "TrainingBox", words: tuple[str, ...]) -> None:
    box = training.there
    (release,) = training.went_live()
    before = box.pid("lorad-serve")
    box.run("systemctl", *words, "lorad-serve")
    box.wait(lambda: box.pid("lorad-serve") != before, "another lorad-serve runs")
    assert release is not None
    assert first_answer(training)[0] == release[:12]
    assert live(training) == (True, "", release)
    assert training.capacity()["engine"] == ENGINE


def test_status_says_that_the_box_is_off_and_what_it_served_and_it_comes_back_with_it(training: "TrainingBox") -> None:
    box = training.there
    (release,) = training.went_live()
    box.power_off()
    training.wait(lambda: not live(training)[0], "the link has noticed")
    _, code, served = live(training)
    assert code in ("PORT_REFUSED", "TARGET_SILENT", "TARGET_UNREACHABLE")
    assert served == release, "what it served when it was last heard"
    box.boot()
    training.wait(lambda: live(training) == (True, "", release), "the box is reached again")
    assert release is not None
    assert first_answer(training)[0] == release[:12]
    assert json.loads(training.lorad("deploy", "history", TARGET, "--format", "json").stdout)[0]["event"] == "live"
