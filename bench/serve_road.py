"""From the verdict to the confirmation over the real ssh road: two network namespaces, sshd, the two confined keys.

The training box (daemon, link) is on one host and the serving process on the other, both with the real base; the adapter has
rank 16 on all linear layers, 20 MB. `confirmed_s` ends when the confirming line stands in the training box's live.jsonl.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from store.keys import PUBLIC, ensure_keys
from store.paths import Box, Home
from store.seals import SEAL

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "network"))  # two hosts; an sshd with confined keys

if TYPE_CHECKING:
    from twohosts import Host, TwoHosts

LORAD = str(Path(sys.executable).with_name("lorad"))
ROWS = Path(__file__).parents[1] / "examples" / "devils_dictionary.jsonl"
PORT = 8765
TARGET = "cellar"
COPIES = 5
PATIENCE_S = 1500.0
LOOK_S = 0.01
TRAINING = {"max_steps": 6, "checkpoints": 1}


def over_ssh() -> dict[str, Any]:
    """`confirmed_s` and `rsync_s` with the sizes that they are of; or why this machine cannot play two hosts."""
    from twohosts import TwoHosts, lacking

    if why := lacking():
        return {"confirmed_s": f"not run: {why}", "rsync_s": f"not run: {why}"}
    hosts = TwoHosts()
    try:
        with tempfile.TemporaryDirectory() as name:
            return _Circle(Path(name), hosts).measure()
    finally:
        hosts.remove()


class _Circle:
    """Both boxes in one folder, each with its own config."""

    def __init__(self, root: Path, hosts: "TwoHosts") -> None:
        from confinedkeys import ConfinedKeys

        self.root, self.hosts = root, hosts
        self.home, self.box = Home(root / "near"), Box(root / "far" / "serving")
        self.box.prepare()
        ensure_keys(self.home.keys)
        (root / "far" / "trust").mkdir()
        shutil.copyfile(self.home.keys / PUBLIC, root / "far" / "trust" / PUBLIC)
        self.keys = ConfinedKeys(root / "ssh", hosts.far, self.box)
        target = self.keys.target().model_dump(mode="json")
        near = {"home": str(self.home.root), "learning_rate": 4e-4, "lora": {"r": 16}, "training": TRAINING, "deploy": {"targets": [target]}}
        serving = {"port": PORT, "home": str(self.box.root), "trust": str(root / "far" / "trust")}
        self._configs = {"daemon": near, "serve": {"home": str(root / "far" / "home"), "serving": serving}}

    def measure(self) -> dict[str, Any]:
        """Both figures; one drop from the inbox to live, then copies of its release alone."""
        self.keys.start()
        try:
            with self._running("serve", self.hosts.far):
                self._wait(self._is_ready, "serving is ready")
                with self._running("daemon", self.hosts.near):
                    figures = self._confirmed()
            print(f"road: {json.dumps(figures)}", file=sys.stderr, flush=True)
            return figures | self._copies()
        finally:
            self.keys.stop()

    def _confirmed(self) -> dict[str, Any]:
        self._wait((self.home.root / "status.json").exists, "the daemon is ready")
        aside = self.home.root / "inbox" / ".rows"
        shutil.copyfile(ROWS, aside)
        aside.rename(aside.with_name("rows.jsonl"))
        self._wait(lambda: any(self._verdicts()), "a verdict")
        self._wait(lambda: '"live"' in _text(self.home.live), "the confirming line")
        confirmed = time.time()
        (verdict,) = self._verdicts()
        begun = verdict.stat().st_mtime  # written just before its rename
        arrived = next(json.loads(line)["at"] for line in _text(self.box.activations).splitlines() if '"live"' in line)
        return {"confirmed_s": round(confirmed - begun, 2), "live_at": arrived, "verdict": json.loads(verdict.read_bytes()).get("word")}

    def _copies(self) -> dict[str, Any]:
        """The release alone over the road that the link takes: a connection that is open after the first copy, a new incoming folder each."""
        from deploy import ssh
        from deploy.rsync import road_to, send_release

        folder = self.home.release("default/main", 1)
        assert (folder / SEAL).exists(), "the release is on the training box"
        target = self.keys.target()
        road, taken = road_to(target, self.home), []
        for number in range(COPIES):
            began = time.perf_counter()
            self.hosts.near.within(lambda number=number: send_release(road, folder, f"{'0' * 64}.{number}"))  # type: ignore[misc]
            taken.append(time.perf_counter() - began)
        self.hosts.near.within(lambda: ssh.hang_up(target, self.home))
        sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
        return {
            "rsync_s": round(sorted(taken)[len(taken) // 2], 2),
            "rsync_all_s": [round(value, 2) for value in taken],
            "adapter_mb": round(sizes["adapter_model.safetensors"] / 1e6, 1),
            "release_mb": round(sum(sizes.values()) / 1e6, 1),
        }

    def _verdicts(self) -> Sequence[Path]:
        return list(self.home.root.glob("runs/*/*/verdict.json"))

    def _is_ready(self) -> bool:
        def ask() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{PORT}/ready", timeout=10).status_code == 200
            except httpx.TransportError:
                return False

        return self.hosts.far.within(ask)

    @contextmanager
    def _running(self, verb: str, host: "Host") -> Iterator[None]:
        config, log = self.root / f"{verb}.json", self.root / f"{verb}.log"
        config.write_text(json.dumps(self._configs[verb]))
        with open(log, "wb") as out:
            process = subprocess.Popen([*host.prefix, LORAD, verb, "--config", str(config)], stdout=out, stderr=out, env=os.environ)
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)

    def _wait(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline or "job.held" in _text(self.home.root / "journal.jsonl"):
                told = {path.name: path.read_text()[-1500:] for path in (*self.root.glob("*.log"), *self.home.root.glob("targets/*/link.log"))}
                raise TimeoutError(f"waited in vain: {what}\n{json.dumps(told, indent=1)}\n{_text(self.home.root / 'journal.jsonl')[-1500:]}")
            time.sleep(LOOK_S)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
