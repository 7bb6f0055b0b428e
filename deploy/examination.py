"""What is wrong with a target, and the command that mends it: from the keys here to the process that serves there.

Each step needs those before it; the first problem of the road ends the walk, what follows the road is told together.
Nothing is changed but `in/check.json` on the box, which nobody reads.
"""

import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from core.config import Config
from core.deployment import TargetConfig
from core.errors import LoradError, StateError
from core.wire import Active, Capacity
from deploy.delivery import ALIVE, OUT_FILES, RESERVE_BYTES
from deploy.failures import ASLEEP, INSTALL, TARGET_DISK_FULL, explain
from deploy.rsync import Road, fetch, road_to, send_file
from deploy.ssh import CONNECT_S, WAYS, Way, address, credentials_of, shell_words
from store.bases import STUB_BASE, base_folder, read_base
from store.engines import choose_backend
from store.paths import Home
from store.targets import check_fence, desired_of
from store.wire import read_activations, read_active, read_capacity

OLDEST = (3, 2, 7)  # the first whose rrsync knows -no-lock
BEAT_S = 11.0  # the box writes its sign of life every ten
LOOK_S = 0.5
SKEW = timedelta(seconds=30)
SHELL_S = 3 * CONNECT_S
LOOSE = "lorad-is-loose"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `lorad deploy check`: a stable code, what was found, and the command that mends it (empty where nothing is wrong)."""

    code: str
    what: str
    mend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the box says of itself."""

    active: Active | None
    capacity: Capacity | None
    is_alive: bool
    refused: str  # why it took no wish as a whole, by its ledger's last line; empty: it did

    @property
    def num_aliases(self) -> int:
        """How many adapters it serves."""
        return len(self.active.aliases) if self.active else 0


def examine(config: Config, target: TargetConfig, now: Callable[[], datetime]) -> Iterator[Finding]:
    """Findings in the order of the road. Waits up to eleven seconds for a sign of life. Raises nothing but OSError of this box's disk."""
    home = Home(Path(config.home))
    try:
        yield _rsync_here()
        if target.kind == "ssh":
            yield from _ssh(target, home)
        road = road_to(target, home)
        with tempfile.TemporaryDirectory(prefix="lorad-check-") as folder:
            said = _hear(road, Path(folder), now)
            yield Finding("TARGET_READ", f"out/ of {target.name} can be read")
            note = Path(folder) / "check.json"
            note.write_text(json.dumps({"at": now().isoformat()}) + "\n")
            send_file(road, note)
            yield Finding("TARGET_WRITTEN", f"in/ of {target.name} can be written")
    except LoradError as error:
        yield Finding(error.code, error.what, error.hint)
        return
    yield from _serving(target, said, now())
    yield from _base(config, target, said)
    yield from _room(config, target, said)
    yield from _wishes(home, target, said)


def _rsync_here() -> Finding:
    where = shutil.which("rsync")
    if where is None:
        raise StateError("rsync is not on PATH", hint=INSTALL, code="RSYNC_MISSING")
    said = subprocess.run([where, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"version (\d+)\.(\d+)\.(\d+)", said)
    version = tuple(map(int, found.groups())) if found else ()
    if version < OLDEST:
        raise StateError(f"rsync here is {'.'.join(map(str, version)) or 'of no known version'}", hint=f"upgrade it: {INSTALL}", code="RSYNC_OLD")
    return Finding("RSYNC", f"rsync {'.'.join(map(str, version))}")


def _ssh(target: TargetConfig, home: Home) -> Iterator[Finding]:
    """Whether the box is the pinned one, takes both keys, and holds each to its half. Raises LoradError."""
    found = credentials_of(target, home)
    for way in WAYS:
        if found.key(way).stat().st_mode & 0o077:
            hint = f"chmod 600 {found.key(way)}"
            raise StateError(f"private key {str(found.key(way))!r} is readable by others: ssh refuses it", hint=hint, code="SSH_KEY_SHOWN")
        yield knock(target, home, way)


def knock(target: TargetConfig, home: Home, way: Way) -> Finding:
    """Ask for a command that a confined key must refuse: the refusal is rrsync's own, so the key works, and so does rrsync."""
    words = [*shell_words(target, home, way, shared=False), address(target), f"echo {LOOSE}"]
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=SHELL_S)
    except FileNotFoundError:
        raise StateError("ssh is not on PATH", hint="install it: `apt-get install openssh-client`", code="SSH_MISSING") from None
    except subprocess.TimeoutExpired:
        raise explain(target.name, 255, f"{address(target)}: timed out") from None
    name = "writing" if way == "in" else "reading"
    again = f"`lorad deploy setup {target.name} --script | ssh root@{target.host} sh` confines it"
    if LOOSE in done.stdout:
        raise StateError(f"the {name} key of {target.name} opens a shell on the box", hint=again, code="KEY_UNCONFINED")
    if "SSH_ORIGINAL_COMMAND does not run rsync" in done.stderr:
        return Finding("KEY", f"the {name} key of {target.name} is taken, and confined")
    raise explain(target.name, done.returncode, done.stderr)


def _hear(road: Road, folder: Path, now: Callable[[], datetime]) -> Said:
    """What the box says; where its sign of life looks old, whether it changes within its beat: its clock may be wrong. Raises TransferError."""
    fetch(road, OUT_FILES, folder)
    capacity = read_capacity(folder / "capacity.json")
    is_alive = capacity is not None and abs(now() - capacity.at) < ALIVE
    until = time.monotonic() + BEAT_S
    while capacity is not None and not is_alive and time.monotonic() < until:
        time.sleep(LOOK_S)
        fetch(road, ("capacity.json",), folder)
        newer = read_capacity(folder / "capacity.json")
        is_alive, capacity = newer != capacity, newer
    whole = [line for line in read_activations(folder / "activations.jsonl") if line.event == "refused" and line.alias == "*"]
    active = read_active(folder / "active.json")
    last = whole[-1] if whole else None
    refused = last.code if last is not None and active is not None and last.sequence == active.sequence else ""
    return Said(active=active, capacity=capacity, is_alive=is_alive, refused=refused)


def _serving(target: TargetConfig, said: Said, now: datetime) -> Iterator[Finding]:
    if said.capacity is None:
        yield Finding("SERVING_NEVER_RAN", f"no sign of life lies in out/ of {target.name}", "start `lorad serve` on the box (`systemctl start lorad-serve`)")
        return
    if not said.is_alive:
        yield Finding("SERVING_SILENT", f"serving on {target.name} last spoke at {said.capacity.at:%Y-%m-%d %H:%M:%S} UTC", ASLEEP)
    else:
        yield Finding("SERVING", f"serving on {target.name} is alive, engine {said.capacity.engine}, {said.num_aliases} adapters")
    skew = said.capacity.at - now
    if said.is_alive and abs(skew) > SKEW:
        what = f"the clock of {target.name} is {abs(skew).total_seconds():.0f} s {'ahead of' if skew > timedelta(0) else 'behind'} ours"
        yield Finding("CLOCK_SKEW", what, "set one of the two: `timedatectl set-ntp true` on both; deliveries go on meanwhile")


def _base(config: Config, target: TargetConfig, said: Said) -> Iterator[Finding]:
    """Whether the box serves the base that is trained on here."""
    if said.capacity is None:
        return
    there = said.capacity.base_sha256
    mend = f"`lorad deploy push {target.name} --base`, or `lorad models pull` there; then restart serving"
    try:
        here = read_base(base_folder(config)).source_sha256
    except LoradError:
        here = ""
    if not there:
        yield Finding("BASE_MISSING_THERE", f"{target.name} has no base model", mend)
    elif there == STUB_BASE and choose_backend(config).name != "stub":
        yield Finding("BASE_MISSING_THERE", f"{target.name} has no base model and answers by the stub", mend)
    elif here and there not in (here, STUB_BASE):
        yield Finding("BASE_OTHER_THERE", f"{target.name} serves base {there[:12]}, trained on here is {here[:12]}", f"set the same model_name there; {mend}")
    else:
        yield Finding("BASE", f"{target.name} serves base {there[:12]}")


def _room(config: Config, target: TargetConfig, said: Said) -> Iterator[Finding]:
    if said.capacity is None:
        return
    releases = (Path(config.home) / "adapters").glob("*/*/v*")
    largest = max((sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) for folder in releases), default=0)
    free = said.capacity.free_bytes
    if free < largest + RESERVE_BYTES:
        mend = "free space there, or set serving.releases_gb there: older releases then leave by themselves"
        yield Finding(TARGET_DISK_FULL, f"{target.name} has {free >> 20} MiB free, a release takes {largest + RESERVE_BYTES >> 20}", mend)
    else:
        yield Finding("TARGET_ROOM", f"{target.name} has {free / (1 << 30):.1f} GiB free")


def _wishes(home: Home, target: TargetConfig, said: Said) -> Iterator[Finding]:
    """Whether the box listens to this home."""
    try:
        check_fence(home, target.name, desired_of(home, target.name), said.active)
    except LoradError as error:
        yield Finding(error.code, error.what, error.hint)
    if said.refused:
        mend = f"`lorad deploy setup {target.name} --script | ssh root@{target.host or 'BOX'} sh` brings our release.pub; then restart serving"
        yield Finding(said.refused, f"{target.name} refused our last wish: {said.refused}", mend)
