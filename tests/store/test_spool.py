"""The spool of a serving box: durable before it is answered for, numbered without a gap, deleted once it is acknowledged."""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from core.signals import Ack, Signal, SignalKind, Spooled
from store import codec, spool
from store.paths import Box
from store.spool import Spool, SpoolFull, segments_in, spooled_after

PATIENCE_S = 20.0


def wait_until(condition: Callable[[], object], what: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, f"waited in vain: {what}"
        time.sleep(0.005)


def signal(name: str, text: str = "Berne") -> Signal:
    question = ({"role": "user", "content": "The capital of Switzerland?"},)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Signal(id=name, kind=SignalKind.CORRECTION, persona="p", domain="d", input=question, correct_output=text, wrong_output="Zurich", at=at)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "box")


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "LOOK_S", 0.005)
    monkeypatch.setattr(spool, "PUBLISH_S", 0.02)


@pytest.fixture
def opened(box: Box) -> Iterator[Callable[..., Spool]]:
    """Opens the spool, as often as a test wants; each is ended."""
    made: list[Spool] = []

    def again(**options: Any) -> Spool:
        for one in made:
            one.close()
        made.append(Spool(box, **options))
        return made[-1]

    yield again
    for one in made:
        one.close()


def there(box: Box) -> list[tuple[int, str]]:
    """(number, id) of what can be fetched."""
    return [(one.number, one.signal.id) for one in spooled_after(box.spool, 0, 10_000)]


def acknowledge(box: Box, number: int, of: str = "") -> None:
    box.ack.parent.mkdir(parents=True, exist_ok=True)
    codec.write(box.ack, Ack(box=of, number=number))


def test_what_was_taken_can_be_fetched_a_moment_later_with_nobody_s_help(opened: Callable[..., Spool], box: Box) -> None:
    one = opened()
    assert one.append([signal("a"), signal("b")]) == 2
    wait_until(lambda: there(box) == [(1, "a"), (2, "b")], "it is published")
    assert one.append([signal("c")]) == 3
    wait_until(lambda: one.published == 3, "the next one too")


def test_many_at_once_share_their_syncs_and_get_numbers_without_a_gap(opened: Callable[..., Spool], box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync

    def slow(fd: int) -> None:
        time.sleep(0.002)  # as a disk does
        synced.append(fd)
        real(fd)

    monkeypatch.setattr("os.fsync", slow)
    one = opened()
    with ThreadPoolExecutor(20) as pool:
        numbers = [found.result() for found in [pool.submit(one.append, [signal(f"s{count}")]) for count in range(400)]]
    one.close()
    assert sorted(numbers) == list(range(1, 401))
    assert [number for number, _ in there(box)] == list(range(1, 401))
    assert len(synced) < 200


def test_who_hangs_up_before_the_sync_does_not_disturb_the_others(opened: Callable[..., Spool], box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    one, real = opened(), os.fsync
    syncing, go_on = threading.Event(), threading.Event()

    def held(fd: int) -> None:
        syncing.set()
        assert go_on.wait(PATIENCE_S)
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", held)
        first = one.put([signal("a")])
        assert syncing.wait(PATIENCE_S)
        gone, later = one.put([signal("b")]), one.put([signal("c")])
        assert gone.cancel()
        assert not first.cancel(), "it is being written"
        go_on.set()
        assert (first.result(PATIENCE_S), later.result(PATIENCE_S)) == (1, 2)
    one.close()
    assert there(box) == [(1, "a"), (2, "c")]


def test_no_number_is_given_twice_after_everything_was_acknowledged_and_deleted(opened: Callable[..., Spool], box: Box) -> None:
    one = opened()
    one.append([signal("a"), signal("b")])
    wait_until(lambda: one.published == 2, "it is published")
    acknowledge(box, 2)
    wait_until(lambda: not segments_in(box.spool), "the segment goes")
    assert opened().append([signal("c")]) == 3


def test_a_segment_goes_only_when_all_of_it_is_acknowledged_and_by_this_box_s_name(opened: Callable[..., Spool], box: Box) -> None:
    one = opened(box_id="this")
    one.append([signal("a"), signal("b")])
    wait_until(lambda: one.published == 2, "the first segment")
    one.append([signal("c"), signal("d")])
    wait_until(lambda: one.published == 4, "the second segment")
    acknowledge(box, 4, "another")
    one.append([signal("e")])
    wait_until(lambda: one.published == 5, "it was looked at")
    assert len(segments_in(box.spool)) == 3
    acknowledge(box, 3, "this")
    wait_until(lambda: len(segments_in(box.spool)) == 2, "the first one goes")
    one.close()
    assert there(box) == [(3, "c"), (4, "d"), (5, "e")]


@pytest.mark.parametrize("torn", [b'{"number": 3, "signal": {"id": "tor', b"\0" * 40 + b"\n", b"not JSON\n"], ids=["half a line", "zeros", "rubbish"])
def test_a_torn_last_line_spoils_only_itself_and_its_number_is_given_again(opened: Callable[..., Spool], box: Box, torn: bytes) -> None:
    one = opened()
    one.append([signal("a"), signal("b")])
    wait_until(lambda: one.published == 2, "it is published")
    one.close()
    (_, growing) = segments_in(box.taking)[0]
    good = codec.dump(Spooled(number=3, signal=signal("c"))).encode() + b"\n"
    growing.write_bytes(good + torn.replace(b'"number": 3', b'"number": 4'))
    assert opened().append([signal("d")]) == 4
    opened().close()
    assert there(box) == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]


def test_killed_between_two_steps_of_publishing_it_goes_on_behind_what_is_there(opened: Callable[..., Spool], box: Box) -> None:
    one = opened()
    one.append([signal("a"), signal("b")])
    one.close()
    for _, growing in segments_in(box.taking):
        growing.unlink()  # the rename is done, the next file not made
    assert opened().append([signal("c")]) == 3


def test_of_a_full_disk_nothing_is_half_taken_and_the_numbers_go_on(opened: Callable[..., Spool], box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    one = opened()
    one.append([signal("a")])
    real = os.pwrite

    def full(fd: int, raw: bytes, place: int) -> int:
        real(fd, raw[: len(raw) // 2], place)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(SpoolFull) as refused:
        one.append([signal("b"), signal("c")])
    assert refused.value.code == "SPOOL_DISK"
    monkeypatch.setattr("os.pwrite", real)
    assert one.append([signal("d")]) == 2
    one.close()
    assert there(box) == [(1, "a"), (2, "d")]


def test_what_could_not_be_synced_is_neither_published_nor_in_the_way(opened: Callable[..., Spool], box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "PUBLISH_S", 3600)
    one = opened()
    one.append([signal("a")])

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    for ends in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", fail)
            with pytest.raises(SpoolFull):
                one.append([signal("b", "a text that is longer than the next" * 9)])
        if not ends:
            assert one.append([signal("c")]) == 2
            assert b"longer" not in segments_in(box.taking)[0][1].read_bytes()
    one.close()
    raw = b"".join(path.read_bytes() for _, path in segments_in(box.spool))
    assert b"longer" not in raw
    assert there(box) == [(1, "a"), (2, "c")]


def test_beyond_its_bound_signals_are_refused_until_some_were_fetched(opened: Callable[..., Spool], box: Box) -> None:
    one = opened(most_bytes=1500)
    taken = 0
    for taken in range(100):
        if (why := one.put([signal(f"s{taken}")]).exception(PATIENCE_S)) is not None:
            break
    assert isinstance(why, SpoolFull)
    assert why.code == "SPOOL_FULL"
    assert 1 < taken < 10
    wait_until(lambda: one.published == taken, "it is published")
    acknowledge(box, taken)
    wait_until(lambda: not segments_in(box.spool), "what was fetched goes")
    assert one.append([signal("again")]) == taken + 1


def test_a_long_time_without_a_training_box_leaves_few_files(opened: Callable[..., Spool], box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    hours_s = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: hours_s[0])
    monkeypatch.setattr(spool, "PUBLISH_S", 1.0)
    monkeypatch.setattr("os.fsync", lambda fd: None)
    one = opened()
    for count in range(600):  # one a minute
        hours_s[0] += 60
        one.append([signal(f"s{count}")])
    one.close()
    assert [number for number, _ in there(box)] == list(range(1, 601))
    assert len(segments_in(box.spool)) < 300


def test_who_comes_while_it_ends_is_told_and_who_came_before_is_kept(opened: Callable[..., Spool], box: Box) -> None:
    one = opened()
    waiting = [one.put([signal(f"s{count}")]) for count in range(50)]
    ending = threading.Thread(target=one.close)
    ending.start()
    ending.join(PATIENCE_S)
    wait(waiting, PATIENCE_S)
    assert [found.result() for found in waiting] == list(range(1, 51))
    with pytest.raises(SpoolFull, match="ending"):
        one.append([signal("late")])
    assert len(there(box)) == 50


def test_a_reader_goes_on_behind_a_number_and_stops_where_a_line_is_damaged(opened: Callable[..., Spool], box: Box) -> None:
    one = opened()
    for name in "abcdef":
        one.append([signal(name)])
        wait_until(lambda: one.published == one.last, "a segment each")
    assert [found.signal.id for found in spooled_after(box.spool, 2, 3)] == ["c", "d", "e"]
    path = dict(segments_in(box.spool))[4]
    for damaged in (b"rubbish\n", b"\xff\xfe\n"):
        path.write_bytes(damaged)
        assert [found.number for found in spooled_after(box.spool, 0, 100)] == [1, 2, 3]


def test_a_reader_takes_some_mebibytes_at_once_and_plain_files_only(opened: Callable[..., Spool], box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    one = opened()
    for name in "abc":
        one.append([signal(name)])
    wait_until(lambda: one.published == 3, "all are there")
    os.mkfifo(box.spool / "000000000007.jsonl")
    (box.spool / "000000000008.jsonl").symlink_to("/dev/zero")
    (box.spool / "000000000009.jsonl").mkdir()
    assert [found.number for found in spooled_after(box.spool, 0, 100)] == [1, 2, 3]
    monkeypatch.setattr(spool, "MOST_AT_ONCE", 1)
    assert [found.number for found in spooled_after(box.spool, 0, 100)] == [1]


def test_an_acknowledgment_that_could_not_be_carried_out_is_not_forgotten(opened: Callable[..., Spool], box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    one = opened()
    one.append([signal("a")])
    wait_until(lambda: one.published == 1, "it is there")
    tried = threading.Event()
    unlink = Path.unlink

    def full(path: Path, *, missing_ok: bool = False) -> None:
        if path.parent == box.spool and not tried.is_set():
            tried.set()
            raise OSError(errno.EIO, "a bad moment")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", full)
    acknowledge(box, 1)
    assert tried.wait(PATIENCE_S)
    wait_until(lambda: not there(box), "the acknowledged segment goes all the same")
