"""F22 to F28: what happens to the road between the two boxes, over real ssh with the confined keys, on two hosts of namespaces."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from processes import wait_until

from bench.faults import CannotRun, Outcome, Trial, fault

sys.path[:0] = [str(Path(__file__).parents[2] / "tests" / part) for part in ("network", "serving")]  # two hosts; an inference box

MB = 1 << 20
RELEASE_BYTES = 2 * MB
RATE = "8mbit"  # a megabyte a second
ARRIVED = RELEASE_BYTES // 2  # then it is broken
PATIENCE_S = 15.0
RESENT_MOST = 0.75  # of the release, after half of it had arrived
SHORT_S = 0.5  # that an impatient link gives a transfer as a whole


@contextmanager
def two_boxes(trial: Trial) -> Iterator[Any]:
    """A RoadPair of its own. Raises CannotRun where this machine cannot play two hosts."""
    from roadpair import RoadPair
    from twohosts import TwoHosts, lacking

    if why := lacking():
        raise CannotRun(why)
    hosts = TwoHosts()
    try:
        pair = RoadPair(trial.folder / "boxes", hosts)
        try:
            yield pair
        finally:
            with suppress(AssertionError):
                hosts.let_through()
            _kill(hosts.near.pids("rsync"))  # one that waits for ever because its guard is gone
            pair.end()
    finally:
        hosts.remove()


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def under_way(pair: Any) -> tuple[str, str, Any]:
    """A first release is live, half of a second one is on the box. Returns both and the turn that is sending."""
    first = pair.release()
    pair.wish(first, None)
    pair.settle(first)
    second = pair.release(version=2, weights_bytes=RELEASE_BYTES)
    pair.wish(second, first)
    pair.hosts.slow(RATE)
    turn = pair.hosts.near.start(pair.delivery.turn)
    wait_until(lambda: _size(pair, second) > ARRIVED, "half of the release is there", 20)
    return first, second, turn


def _size(pair: Any, release: str) -> int:
    return max((path.stat().st_size for path in pair.far.box.incoming.glob(f"{release}.*/adapter_model.safetensors")), default=0)


def recover(pair: Any, second: str) -> tuple[float, float]:
    """The road is whole again. Returns the seconds until the second release is live, and the share of it that was sent again."""
    before, began = pair.hosts.arrived_bytes(), time.monotonic()
    pair.hosts.hurry()
    pair.pass_s(5)  # the pause after a failure
    pair.settle(second, PATIENCE_S)
    return time.monotonic() - began, (pair.hosts.arrived_bytes() - before) / RELEASE_BYTES


def _from_the_start() -> Any:
    from deploy.delivery import Delivery

    real = Delivery._next_attempt
    return lambda self, release: (real(self, release)[0], 0)


def broken(trial: Trial, breaks: Callable[[Any], None], mends: Callable[[Any], None], gone: list[Any]) -> Outcome:
    """Half of a release is there, then the road breaks; `gone` are the guards that are taken away in the unguarded run."""
    with two_boxes(trial) as pair, ExitStack() as stack:
        for one in [] if trial.guarded else gone:
            stack.enter_context(one)
        pair.delivery = pair.link()
        first, second, turn = under_way(pair)
        breaks(pair)
        began = time.monotonic()
        try:
            seen = turn.result(PATIENCE_S)
        except TimeoutError:
            return Outcome(held=False, figure={"told_s": None}, note="the link waits for ever and tells nobody")
        told_s = time.monotonic() - began
        pair.beat()
        is_old = pair.live == first
        mends(pair)
        recovered_s, resent = recover(pair, second)
    figure = {"told_s": round(told_s, 1), "code": seen.code, "recovered_s": round(recovered_s, 1), "resent_share": round(resent, 2)}
    return Outcome(held=is_old and bool(seen.code) and resent < RESENT_MOST, figure=figure, note="half had arrived; the old release served all the while")


@fault("F22", "link cut in the middle of a release", guard="a new attempt goes on from what has arrived of the broken one")
def cut(trial: Trial) -> Outcome:
    from deploy.delivery import Delivery

    gone = [patch.object(Delivery, "_next_attempt", _from_the_start())]
    return broken(trial, lambda pair: pair.hosts.cut(), lambda pair: pair.hosts.mend(), gone)


@fault("F23", "black hole in the middle of a release", guard="a silent connection is given up (--timeout, ServerAlive)")
def black_hole(trial: Trial) -> Outcome:
    from deploy import rsync, ssh

    gone = [patch.object(rsync, "ALWAYS", ("--archive", "--fsync")), patch.object(ssh, "ALIVE_S", 0)]
    return broken(trial, lambda pair: pair.hosts.swallow(), lambda pair: pair.hosts.let_through(), gone)


@contextmanager
def impatient() -> Iterator[None]:
    """A transfer gets a fixed time as a whole, and what arrived of it is forgotten."""
    from deploy import rsync
    from deploy.delivery import Delivery
    from deploy.failures import TransferError

    real = subprocess.run

    def run(words: list[str], **how: Any) -> Any:
        try:
            return real(words, timeout=SHORT_S, **how)
        except subprocess.TimeoutExpired:
            raise TransferError("too long", hint="", code="TOO_LONG") from None

    with patch.object(rsync.subprocess, "run", run), patch.object(Delivery, "_next_attempt", _from_the_start()):
        yield


def _weather(trial: Trial, worsen: Callable[[Any], None]) -> Outcome:
    with two_boxes(trial) as pair, ExitStack() as stack:
        first = pair.release()
        pair.wish(first, None)
        pair.settle(first)
        second = pair.release(version=2, weights_bytes=RELEASE_BYTES)
        pair.wish(second, first)
        worsen(pair)
        if not trial.guarded:
            stack.enter_context(impatient())
        began, before = time.monotonic(), pair.hosts.arrived_bytes()
        pair.settle(second, 60 if trial.guarded else 8)
        took_s, sent = time.monotonic() - began, (pair.hosts.arrived_bytes() - before) / RELEASE_BYTES
    return Outcome(held=True, figure={"seconds": round(took_s, 1), "sent_share": round(sent, 2)}, note="a release of 2 MB")


@fault("F24", "2 % of the packets are lost", guard="a transfer ends by silence, never by its length")
def lossy(trial: Trial) -> Outcome:
    if shutil.which("nft") is None:
        raise CannotRun("needs nft: packets are lost by a rule of it")

    def worsen(pair: Any) -> None:
        pair.hosts.slow("20mbit")
        pair.hosts.lose(2)

    return _weather(trial, worsen)


@fault("F25", "a link of 1 Mbit/s", guard="a transfer ends by silence, never by its length")
def slow(trial: Trial) -> Outcome:
    return _weather(trial, lambda pair: pair.hosts.slow("1mbit"))


@fault("F26", "far side reboots in the middle of a release", guard="the seal is sent last, and the box hashes what arrived before anything is visible")
def reboot(trial: Trial) -> Outcome:
    """The wish is there already: what arrives sealed is taken at once."""
    from deploy import rsync
    from serving import library
    from store.wire import read_manifest, release_id

    def seal_first(road: Any, folder: Path, place: str, options: Any = ()) -> None:
        for only in (("--include=/SEALED", "--include=/manifest*", "--exclude=/*"), ()):
            rsync._send(road, ["--inplace", *only, "--", f"{folder}/", f"{road.into}{place}/"])

    with two_boxes(trial) as pair, ExitStack() as stack:
        if not trial.guarded:
            stack.enter_context(patch.object(rsync, "send_folder", seal_first))
            stack.enter_context(patch.object(library, "check_release", lambda folder, keys: (release_id(folder), read_manifest(folder))))
        release = pair.release(weights_bytes=RELEASE_BYTES)
        pair.wish(release, None)
        pair.hosts.near.within(lambda: rsync.send_file(pair.delivery._road, pair.home.target("cellar") / "desired.json"))
        pair.beat()
        pair.hosts.slow(RATE)
        turn = pair.hosts.near.start(pair.delivery.turn)
        wait_until(lambda: _size(pair, release) > ARRIVED, "half of the release is there", 20)
        pair.keys.stop()
        code = turn.result(PATIENCE_S).code
        pair.beat()  # what is live is whole
        shown = pair.live == release
        pair.keys.start()
        recovered_s, resent = recover(pair, release)
    figure = {"code": code, "half_ones_shown": int(shown), "recovered_s": round(recovered_s, 1), "resent_share": round(resent, 2)}
    return Outcome(held=not shown and bool(code), figure=figure)


def _ended_of_two(trial: Trial, pair: Any) -> list[int | None]:
    """Exit statuses of those of two links of one home that end while the other runs."""
    config = trial.folder / "config.json"
    config.write_text(f'{{"home": "{pair.home.root}", "deploy": {{"targets": [{pair.target.model_dump_json()}]}}}}')
    words = [*pair.hosts.near.prefix, sys.executable, "-m", "deploy", "link", str(config), pair.target.name]
    env = trial.circle().env
    links = [subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env) for _ in range(2)]
    try:
        with suppress(AssertionError):
            wait_until(lambda: any(link.poll() is not None for link in links), "one of the two ends", PATIENCE_S if trial.guarded else 4)
        return [link.poll() for link in links if link.poll() is not None]
    finally:
        for link in links:
            link.kill()
            link.communicate()


def _killed_on(pair: Any, side: Any, before: str, version: int) -> tuple[str, float, float]:
    """Half of a release is there, rsync is killed on one side. Returns the release, seconds until it is live, the share sent again."""
    release = pair.release(version=version, weights_bytes=RELEASE_BYTES)
    pair.wish(release, before)
    pair.hosts.slow(RATE)
    turn = pair.hosts.near.start(pair.delivery.turn)
    wait_until(lambda: _size(pair, release) > ARRIVED, "half of the release is there", 20)
    _kill(side.pids("rsync"))
    turn.result(PATIENCE_S)
    assert pair.live == before
    return release, *recover(pair, release)


@fault("F27", "far and near rsync killed; two copiers at once", guard="one copier a target: the link's lock on the near side", without="link_lock")
def copiers(trial: Trial) -> Outcome:
    """Two links of one home at once; then a release whose rsync is killed on either side."""
    with two_boxes(trial) as pair:
        ended = _ended_of_two(trial, pair)
        if ended != [75]:
            return Outcome(held=False, figure={"copiers": 2 - len(ended)})
        first = pair.release()
        pair.wish(first, None)
        pair.settle(first)
        second, far_s, resent = _killed_on(pair, pair.hosts.far, first, 2)
        _, near_s, _ = _killed_on(pair, pair.hosts.near, second, 3)
        leaked = sum(path.stat().st_size for path in pair.far.box.incoming.rglob("*") if path.is_file())
    figure = {"copiers": 1, "far_killed_s": round(far_s, 1), "resent_share": round(resent, 2), "near_killed_s": round(near_s, 1), "leaked_bytes": leaked}
    return Outcome(held=leaked == 0, figure=figure, note="the second link ends with 75")


def _trusting() -> Any:
    """ssh takes whatever host key it is shown."""
    from deploy import rsync, ssh

    real, swap = ssh.shell_words, {"StrictHostKeyChecking=yes": "StrictHostKeyChecking=no"}

    def words(*given: Any, **how: Any) -> tuple[str, ...]:
        return tuple(swap.get(word, "UserKnownHostsFile=/dev/null" if word.startswith("UserKnownHostsFile=") else word) for word in real(*given, **how))

    return patch.object(rsync, "shell_words", words)


@fault("F28", "far disk full, key refused, host key changed, clock jumps", guard="the pinned host key is never replaced by itself")
def refusals(trial: Trial) -> Outcome:
    codes = {}
    with two_boxes(trial) as pair, ExitStack() as stack:
        if not trial.guarded:
            stack.enter_context(_trusting())
            pair.delivery = pair.link()
        first = pair.release()
        pair.wish(first, None)
        pair.settle(first)
        pair.pass_s(2 * 86_400)
        second = pair.release(version=2)
        pair.wish(second, first)
        pair.beat()
        with patch("deploy.delivery.RESERVE_BYTES", 1 << 60):
            codes["disk"] = pair.turn().code
        pair.hang_up()
        allowed = pair.keys.folder / "authorized_keys"
        lines = allowed.read_text()
        allowed.write_text("")
        codes["key"] = pair.turn().code
        allowed.write_text(lines)
        pair.keys.stop()
        pair.keys.make("host")
        pair.keys.start()
        codes["host key"] = pair.turn().code
        pair.pass_s(40)
        pair.turn()
        pair.beat()
        sent = len(pair.arrivals(second)) or int(pair.live == second)
        is_old = pair.live == first
    held = is_old and not sent and len(set(codes.values())) == 3 and "" not in codes.values()
    return Outcome(held=held, figure={"codes": codes, "sent_to_a_stranger": sent}, note="a wrong far clock: tests/network/test_broken_roads.py")
