"""A training box beside the container: the real daemon in a folder of this machine, and a cable of which the container has the far end.

root/config.json   names the container as the one target
root/models/       a base of two layers, made of a GGUF file
root/home/         the daemon's home
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
from box import Box
from circle import Circle, read_json
from tiny_llama import make_gguf_base
from twohosts import FAR_ADDRESS, TwoHosts

TARGET = "cellar"
THERE = "/var/lib/lorad/serving"
PORT = 8765  # of lorad-serve.socket


class TrainingBox(Circle):
    """`ask` asks inside the container; `box` is the folder that serving owns there."""

    def __init__(self, root: Path, hosts: TwoHosts, there: Box, **config: Any) -> None:
        self.hosts, self.there = hosts, there
        super().__init__(root, **config)
        self.box = there.root / THERE.lstrip("/")
        self.prefix = hosts.near.prefix
        self.port = PORT

    def configure(self, **changes: Any) -> None:
        """Write config.json: backend auto, which finds torch here and none there."""
        target = {"name": TARGET, "kind": "ssh", "host": FAR_ADDRESS, "path": THERE}
        values: dict[str, Any] = {"home": "home", "models_dir": "models", "model_name": "tiny", "max_length": 256, "batch_size": 4, "learning_rate": 5e-3}
        values |= {"training": {"epochs": 2, "threads": 1, "boards": [], "warm": False}, "deploy": {"targets": [target]}}
        self.config.write_text(json.dumps(values | changes, indent=1))

    def make_base(self) -> None:
        """A random base with its GGUF file, as `lorad models pull` leaves one."""
        models = self.root / "models"
        models.mkdir()
        make_gguf_base(models)

    def deploy(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`lorad deploy …`, to its end."""
        return self.lorad("deploy", *words)

    def check(self) -> dict[str, str]:
        """`lorad deploy check`: code -> what mends it, in order; its exit status is looked at."""
        done = self.deploy("check", TARGET, "--format", "json")
        found = {row["code"]: row["mend"] for row in json.loads(done.stdout)}
        assert done.returncode == (2 if any(found.values()) else 0), done.stderr
        return found

    def deploy_status(self) -> dict[str, Any]:
        """`lorad deploy status`; its exit status is looked at."""
        done = self.deploy("status", TARGET, "--format", "json")
        (row,) = json.loads(done.stdout)
        assert done.returncode == (2 if row["code"] else 0), done.stderr
        return dict(row)

    def history(self) -> list[dict[str, Any]]:
        """What was live when, by `lorad adapters history`."""
        told = self.lorad("adapters", "history", "default/main", "--format", "json")
        return list(json.loads(told.stdout)["live"])

    def is_ready(self) -> bool:
        """Asked in the container's network."""
        return self.hosts.far.within(super().is_ready)

    def ask(self, text: str = "What is number 7?", model: str = "default/main", **fields: Any) -> httpx.Response:
        """Asked in the container's network; greedy."""
        wishes = {"temperature": 0, "max_tokens": 16} | fields
        return self.hosts.far.within(lambda: super(TrainingBox, self).ask(text, model, **wishes))

    def capacity(self) -> dict[str, Any]:
        """The box's last sign of life."""
        return dict(read_json(self.box / "out" / "capacity.json"))
