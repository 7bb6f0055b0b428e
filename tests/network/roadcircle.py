"""The whole circle on two hosts: the real daemon with its link on one, the real serving process on the other, ssh between them."""

import json
import subprocess
import threading
from pathlib import Path
from typing import Any

import httpx
from circle import BRAKES, Circle, read_json
from confinedkeys import ConfinedKeys
from processes import LORAD, Process
from twohosts import TwoHosts

from store.keys import ensure_keys
from store.paths import Box
from store.wire import check_release, read_active

UNGUARDED = str(Path(__file__).parents[2] / "bench" / "faults" / "unguarded")
INJECTED = "-heavy-adapter,-hasty-road"  # an adapter of 2 MB; silence is noticed after two seconds
TARGET = "cellar"


class RoadCircle(Circle):
    """`configure` writes the training box's config; the inference box has one of its own. `ask` asks on the inference box."""

    def __init__(self, root: Path, hosts: TwoHosts, **config: Any) -> None:
        self.hosts = hosts
        self._far_box = Box(root / "far" / "serving")
        self._far_box.prepare()
        ensure_keys(root / "home" / "keys")
        self.keys = ConfinedKeys(root / "ssh", hosts.far, self._far_box)
        super().__init__(root, **config)
        self.box = self._far_box.root
        self.prefix = hosts.near.prefix
        self.env |= {"PYTHONPATH": f"{UNGUARDED}:{BRAKES}", "LORAD_BENCH_WITHOUT": INJECTED}
        self._far_config = root / "far" / "config.json"
        trusted = root / "far" / "trust"
        trusted.mkdir()
        (trusted / "release.pub").write_bytes((root / "home" / "keys" / "release.pub").read_bytes())
        serving = {"port": self.port, "home": str(self.box), "trust": str(trusted)}
        self._far_config.write_text(json.dumps({"home": str(root / "far" / "home"), "backend": "stub", "allow_stub": True, "serving": serving}))

    def configure(self, **changes: Any) -> None:
        """The config of the training box, with the one target."""
        target = self.keys.target().model_dump(mode="json")
        super().configure(**{"deploy": {"targets": [target]}} | changes)

    def start_serving(self) -> "RoadCircle":
        """Start sshd and the serving process on the far host."""
        self.keys.start()
        words = [*self.hosts.far.prefix, LORAD, "serve", "--config", str(self._far_config)]
        self.serving = Process(words, self.root / "serve.log", self.env)
        self._started.append(self.serving)
        self.wait(self.is_ready, "serving is ready")
        return self

    def is_ready(self) -> bool:
        """Asked on the far host."""
        return self.hosts.far.within(super().is_ready)

    def ask(self, text: str = "hello", model: str = "default/main", **fields: Any) -> httpx.Response:
        """Asked on the far host."""
        return self.hosts.far.within(lambda: super(RoadCircle, self).ask(text, model, **fields))

    def deploy_status(self) -> dict[str, Any]:
        """What `lorad deploy status` says of the box."""
        done: subprocess.CompletedProcess[str] = self.lorad("deploy", "status", TARGET, "--format", "json")
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return rows[0]

    def observed(self) -> dict[str, Any]:
        """What the link last wrote down."""
        return dict(read_json(self.home / "targets" / TARGET / "observed.json"))

    def end(self) -> None:
        """Processes first, then sshd."""
        try:
            super().end()
        finally:
            self.keys.stop()


class Witness:
    """Asks and looks all the time: every answer must come, and name a release that is whole on the box at that moment."""

    def __init__(self, circle: RoadCircle) -> None:
        self._circle = circle
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)
        self.seen: list[str] = []  # marks of answers, in order, without repeats
        self.asked = 0
        self.wrong: list[str] = []

    def __enter__(self) -> "Witness":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        checked: set[str] = set()
        while not self._stop.is_set():
            try:
                self._look(checked)
            except Exception as error:  # the border of a thread: the test reads what went wrong
                self.wrong.append(f"{type(error).__name__}: {error}")
            self._stop.wait(0.1)

    def _look(self, checked: set[str]) -> None:
        answer = self._circle.ask()
        self.asked += 1
        if answer.status_code != 200:
            self.wrong.append(f"{answer.status_code} {answer.text[:200]}")
            return
        mark = answer.json()["choices"][0]["message"]["content"].split("]")[0].removeprefix("[stub ")
        if self.seen[-1:] != [mark]:
            self.seen.append(mark)
        active = read_active(self._circle.box / "out" / "active.json")
        assert active is not None, "active.json is whole at every moment"
        for state in active.aliases.values():
            if state.release and state.release not in checked:
                (folder,) = (self._circle.box / "releases").glob(f"*/*/v*-{state.release[:12]}")
                assert check_release(folder, self._circle.root / "far" / "trust")[0] == state.release
                checked.add(state.release)
