"""Notifications wake the tick; where there are none, or some were lost, the inbox is scanned, and status says so."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import daemon
from daemon import watcher as module
from daemon.watcher import FileWatcher, remote_type

DEADLINE_S = 20.0


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("inbox/rejected", "commands"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


@pytest.fixture
def made(place: Path) -> Iterator[FileWatcher]:
    found = FileWatcher(place / "inbox", place / "commands", threading.Event())
    found.start()
    found.take()  # the scan at the start
    yield found
    found.stop()


def is_due(watcher: FileWatcher) -> bool:
    return watcher.take().is_due


def no_scan_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SCAN_S", 3600.0)
    monkeypatch.setattr(module, "POLL_S", 3600.0)


def test_it_is_the_public_name() -> None:
    assert daemon.FileWatcher is FileWatcher
    with pytest.raises(AttributeError):
        _ = daemon.NoSuchName


def test_a_scan_is_due_at_the_start_and_every_few_seconds(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(module.clock, "monotonic_s", lambda: now[0])
    watcher = FileWatcher(place / "inbox", place / "commands", threading.Event(), "poll")
    watcher.start()
    found = []
    for passed_s in (0.0, 0.5, 0.6, 0.3, 1.0):
        now[0] += passed_s
        found.append(is_due(watcher))
    assert found == [True, False, True, False, True]


def test_a_rename_into_place_wakes_and_is_remembered_and_a_writers_own_names_do_not(made: FileWatcher, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_scan_by_itself(monkeypatch)
    if made.seen.how == "poll":
        pytest.skip("this system has no watches to give")
    inbox = place / "inbox"
    (inbox / ".x.part").write_text("{}")
    (place / "aside").write_text("{}")
    (place / "aside").rename(inbox / "y.jsonl")
    noticed: set[str] = set()

    def came() -> bool:
        noticed.update(made.take().renamed)
        return bool(noticed)

    wait_until(came)
    (inbox / ".x.part").rename(inbox / "x.jsonl")
    wait_until(lambda: came() and len(noticed) == 2)
    assert noticed == {str(inbox / "x.jsonl"), str(inbox / "y.jsonl")}


def test_folders_that_a_scan_found_are_watched_and_the_rejected_never(made: FileWatcher, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_scan_by_itself(monkeypatch)
    if made.seen.how == "poll":
        pytest.skip("this system has no watches to give")
    persona = place / "inbox" / "ann"
    persona.mkdir()
    wait_until(lambda: is_due(made))
    made.follow({persona})
    assert is_due(made), "what came before the watch stood"
    (place / "inbox" / "rejected" / "drop-1").mkdir()
    (place / "aside").write_text("{}")
    (place / "aside").rename(persona / "x.jsonl")
    wait_until(lambda: str(persona / "x.jsonl") in made.take().renamed)
    assert not any("rejected" in str(folder) for folder in made._watches)
    made.follow(set())
    assert persona not in made._watches


def test_lost_events_ask_for_a_scan_at_once(made: FileWatcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    no_scan_by_itself(monkeypatch)
    is_due(made)
    assert not is_due(made)
    logging.getLogger("watchdog.observers.inotify_c").warning("Inotify queue overflowed; filesystem events were lost")
    assert is_due(made)
    assert made.num_overflows == 1
    assert "events were lost" in caplog.text
    made.stop()
    logging.getLogger("watchdog.observers.inotify_c").warning("Inotify queue overflowed; filesystem events were lost")
    assert made.num_overflows == 1


def test_the_kernels_own_word_of_an_overflow_goes_all_the_way(made: FileWatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    inotify = pytest.importorskip("watchdog.observers.inotify_c")
    reader = getattr(made._observer, "_inotify_fd", None)
    if made.seen.how == "poll" or reader is None:
        pytest.skip("there are no events here, or another watchdog")
    no_scan_by_itself(monkeypatch)
    is_due(made)
    lost = inotify.InotifyEvent(-1, inotify.InotifyConstants.IN_Q_OVERFLOW, 0, b"")
    reader.handle_event(lost)
    assert is_due(made)


def test_used_up_watches_fall_back_to_looking_and_come_back(place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def used_up() -> None:
        raise OSError(24, "inotify instance limit reached")

    now = [1000.0]
    monkeypatch.setattr(module.clock, "monotonic_s", lambda: now[0])
    with monkeypatch.context() as context:
        context.setattr(module, "_observer", used_up)
        watcher = FileWatcher(place / "inbox", place / "commands", threading.Event())
        watcher.start()
    assert watcher.seen.how == "poll"
    assert "max_user_instances" in watcher.seen.reason
    assert "looked at" in caplog.text or "watched by poll" in caplog.text
    assert is_due(watcher)
    now[0] += module.RETRY_S
    assert is_due(watcher)
    try:
        assert watcher.seen.how == "events" or "no more watches" in watcher.seen.reason
    finally:
        watcher.stop()


def test_the_config_may_ask_for_looking_and_take_it_back(made: FileWatcher) -> None:
    before = made.seen.how
    made.take("poll")
    assert (made.seen.how, made.seen.reason) == ("poll", "inbox.watch says so")
    made.take("auto")
    assert made.seen.how == before


MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:35 / /srv/share rw,relatime - nfs4 server:/share rw
41 22 0:36 / /srv/my\\040box rw,relatime - fuse.sshfs me@box:/x rw
42 40 254:1 / /srv/share/local rw,relatime - xfs /dev/vdb rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/srv/share/inbox", "nfs4"), ("/srv/my box", "fuse.sshfs"), ("/srv/share/local/inbox", ""), ("/srv/shared", ""), ("/var/lib", "")],
)
def test_a_network_file_system_is_told_by_its_mount(tmp_path: Path, folder: str, kind: str) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTINFO)
    assert remote_type(Path(folder), mounts) == kind


def test_on_a_network_file_system_the_inbox_is_looked_at(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "remote_type", lambda folder: "nfs4")
    watcher = FileWatcher(place / "inbox", place / "commands", threading.Event())
    watcher.start()
    assert (watcher.seen.how, "nfs4" in watcher.seen.reason) == ("poll", True)
