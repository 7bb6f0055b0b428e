"""The whole circle in a folder of its own: a real daemon, a real serving process, real rsync; and what lies on disk.

root/config.json   written by `configure`
root/home/         the daemon's home; home/serving is the inference box
root/brakes/       see brakes/sitecustomize.py
"""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from processes import DEADLINE_S, LORAD, Process, command_line, free_port, lives, try_lock, wait_until

BRAKES = str(Path(__file__).with_name("brakes"))
ENDS = {"released", "held", "refused", "failed", "cancelled"}
HELD_OUT_ROWS = 200  # the smallest drop with 30 gate groups


def chat_rows(count: int = HELD_OUT_ROWS, *, start: int = 0) -> bytes:
    """JSON Lines of chat_sft_v1 with `count` different questions."""
    rows = []
    for number in range(start, start + count):
        answer = f"The answer to {number} has enough words for a score that hangs on the steps."
        messages = [{"role": "user", "content": f"What is number {number}?"}, {"role": "assistant", "content": answer}]
        rows.append(json.dumps({"messages": messages}) + "\n")
    return "".join(rows).encode()


class Circle:
    """The processes and the state of one test. `end` ends whatever still runs."""

    def __init__(self, root: Path, **config: Any) -> None:
        self.root = root
        self.home = root / "home"
        self.inbox = self.home / "inbox"
        self.box = self.home / "serving"
        self.config = root / "config.json"
        self.brakes = root / "brakes"
        self.brakes.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(("LORAD", "PYTHON", "XDG"))}
        self.env |= {"PYTHONPATH": BRAKES, "LORAD_TEST_BRAKES": str(self.brakes)}
        self.prefix: tuple[str, ...] = ()  # words before each command
        self.daemon: Process
        self.serving: Process
        self._started: list[Process] = []
        self._known: set[str] = set()
        self.configure(**config)

    def configure(self, **changes: Any) -> None:
        """Write config.json: the stub, allowed to be promoted, one short epoch of few steps; top-level keys of `changes` replace these."""
        values: dict[str, Any] = {"home": "home", "backend": "stub", "allow_stub": True, "serving": {"port": self.port}}
        values |= {"batch_size": 16, "training": {"epochs": 1}}
        self.config.write_text(json.dumps(values | changes, indent=1))

    # ---------------------------------------------------------------- processes

    def start(self, verb: str) -> Process:
        """Start `lorad VERB` without waiting for anything."""
        process = Process([*self.prefix, LORAD, verb, "--config", str(self.config)], self.root / f"{verb}.log", self.env)
        self._started.append(process)
        return process

    def start_both(self) -> "Circle":
        """Start serving and daemon, and wait until both are ready."""
        self.serving, self.daemon = self.start("serve"), self.start("daemon")
        self.wait(self.daemon_is_ready, "the daemon is ready")
        self.wait(self.is_ready, "serving is ready")
        return self

    def start_daemon(self) -> "Circle":
        self.daemon = self.start("daemon")
        self.wait(self.daemon_is_ready, "the daemon is ready")
        return self

    def start_serving(self) -> "Circle":
        self.serving = self.start("serve")
        self.wait(self.is_ready, "serving is ready")
        return self

    def daemon_is_ready(self) -> bool:
        return f"(pid {self.daemon.pid}," in self.daemon.said

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.address}/ready", timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    def lorad(self, *words: str) -> subprocess.CompletedProcess[str]:
        """One command, to its end."""
        command = [*self.prefix, LORAD, *words, "--config", str(self.config)]
        return subprocess.run(command, capture_output=True, text=True, env=self.env, check=False, timeout=DEADLINE_S)

    def wait(self, condition: Callable[[], Any], what: str, timeout_s: float = DEADLINE_S) -> Any:
        """`wait_until`, which fails at once where a process ended that should not have, and shows how things stand."""

        def met() -> Any:
            value = condition()
            for process in self._started:
                if not value and not process.ends and not process.lives():
                    raise AssertionError(f"{process.log.stem} ended with {process.popen.returncode}")
            return value

        try:
            return wait_until(met, what, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.describe()}") from None

    def describe(self) -> str:
        """How things stand, for a person who reads a failed test."""
        parts = [f"jobs {self.jobs()}"]
        for path in (self.home / "status.jsonl", *sorted(self.root.glob("*.log")), *sorted(self.home.glob("targets/*/link.log"))):
            if path.exists():
                parts += [f"== {path.name}", *path.read_text(errors="replace").splitlines()[-25:]]
        return "\n".join(parts)

    def end(self) -> None:
        """Kill what still runs, children included, and see that nothing is left."""
        for process in self._started:
            process.kill()
        left = [child for process in self._started for child in process.children]
        told = [" ".join(command_line(child)[1:]) for child in left if lives(child)]
        wait_until(lambda: not any(map(lives, left)), f"no child outlives its parent; there were {told}", 10)

    # ---------------------------------------------------------------- children

    def brake(self, kind: str) -> None:
        """The next child of this kind will be held before it does anything."""
        (self.brakes / kind).touch()

    def held(self, kind: str) -> int | None:
        """The pid of the child that is held, once there is one."""
        found = next(self.brakes.glob(f"{kind}.*.held"), None)
        return int(found.name.split(".")[1]) if found else None

    def wait_held(self, kind: str) -> int:
        """Wait until a child of this kind is held. Returns its pid."""
        return int(self.wait(lambda: self.held(kind), f"a {kind} child is held"))

    def let_go(self, kind: str) -> None:
        """Let the held child go on."""
        self._release(kind, self.wait_held(kind))

    def kill_held(self, kind: str) -> None:
        """kill -9 the child that is held."""
        pid = self.wait_held(kind)
        os.kill(pid, signal.SIGKILL)
        self._release(kind, pid)

    def _release(self, kind: str, pid: int) -> None:
        (self.brakes / f"{kind}.{pid}.held").unlink()

    def children(self, *words: str) -> list[psutil.Process]:
        """The daemon's children whose command line has these words."""
        return [child for child in psutil.Process(self.daemon.pid).children() if set(words) <= set(command_line(child))]

    @contextmanager
    def slot_taken(self) -> Iterator[None]:
        """Hold the only slot, as a running child would."""
        with open(self.home / "slots" / "0.lock", "ab") as lock:
            wait_until(lambda: try_lock(lock.fileno()), "the slot is free")
            yield

    # ---------------------------------------------------------------- what people do

    def drop(self, content: bytes, name: str = "rows.jsonl", sidecar: dict[str, Any] | None = None) -> Path:
        """Write a file elsewhere and rename it into the inbox; `name` may name persona and domain."""
        place = self.inbox / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if sidecar is not None:
            place.with_name(place.name.removesuffix(".jsonl") + ".job.json").write_text(json.dumps(sidecar))
        aside = self.root / f"aside-{place.name}"
        aside.write_bytes(content)
        return aside.rename(place)

    def ask(self, text: str = "hello", model: str = "default/main", **fields: Any) -> httpx.Response:
        """One chat completion."""
        body = {"model": model, "messages": [{"role": "user", "content": text}]} | fields
        return httpx.post(f"{self.address}/v1/chat/completions", json=body, timeout=DEADLINE_S)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # ---------------------------------------------------------------- what lies on disk

    def job_folders(self) -> dict[str, Path]:
        """`ls home/jobs/*/`: job id -> its folder, oldest first."""
        while True:
            try:
                found = {folder.name: folder for folder in (*self.home.glob("jobs/*/job-*"), *self.home.glob("jobs/*/*/job-*"))}
            except FileNotFoundError:  # one was renamed while the glob looked into it
                continue
            if self._known <= found.keys():  # else one was on its way from folder to folder; a job never vanishes
                self._known = set(found)
                return dict(sorted(found.items()))

    def jobs(self) -> dict[str, str]:
        """Job id -> state, oldest first."""
        return {job: folder.relative_to(self.home / "jobs").parts[0] for job, folder in self.job_folders().items()}

    def job(self, number: int = 0) -> str:
        """The id of the oldest job, or of a later one."""
        return list(self.jobs())[number]

    def facts(self, job: str) -> dict[str, Any]:
        """What the job's folder says about its present state."""

        def read() -> Any:
            folder = self.job_folders()[job]
            return read_json(folder / f"{folder.relative_to(self.home / 'jobs').parts[0]}.json")

        found: dict[str, Any] = wait_until(read, f"the facts of {job}")
        return found

    def wait_state(self, state: str, number: int = 0) -> str:
        """Wait until the oldest (or a later) job is in this state. Returns its id."""
        self.wait(lambda: list(self.jobs().values())[number : number + 1] == [state], f"job {number} is {state}")
        return self.job(number)

    def wait_ended(self, number: int = 0, timeout_s: float = 300.0) -> str:
        """Wait until the oldest (or a later) job has ended or is held. Returns its id."""
        self.wait(lambda: {*list(self.jobs().values())[number : number + 1]} & ENDS, f"job {number} ends", timeout_s)
        return self.job(number)

    def runs(self, job: str, kind: str) -> list[Path]:
        """The run folders of one kind, in order."""
        return sorted((self.home / "runs" / job).glob(f"[0-9]*-{kind}"))

    def resume_point(self, job: str) -> Path | None:
        """The newest sealed resume point."""
        points = sorted((self.home / "runs" / job).glob("*-train/resume/step_*/SEALED"))
        return points[-1].parent if points else None

    def drops(self, state: str) -> list[Path]:
        return sorted((self.home / "drops" / state).glob("drop-*"))

    def in_gate(self) -> bool:
        """Whether a drop was handed to the gate child."""
        return bool(self.drops("gating")) and any((self.home / "tmp").glob("gate-*/gate-spec.json"))

    def rejected(self, name: str) -> tuple[Path, dict[str, Any]]:
        """Wait until the file is rejected. Returns its folder and its report."""

        def find() -> Path | None:
            claims = {path.parent: read_json(path) for path in (self.inbox / "rejected").glob("*/claim.json")}
            return next((folder for folder, claim in claims.items() if claim and claim["source"] == name), None)

        folder: Path = self.wait(find, f"{name} is rejected")
        return folder, json.loads((folder / "report.json").read_text())

    def ledger(self) -> list[dict[str, Any]]:
        """The inference box's own ledger."""
        return read_lines(self.box / "out" / "activations.jsonl")

    def went_live(self) -> list[str | None]:
        """The releases in the order in which the box put them live."""
        return [line["release"] for line in self.ledger() if line["event"] == "live"]

    def told(self) -> list[str]:
        """The actions in status.jsonl."""
        return [line["action"] for line in read_lines(self.home / "status.jsonl")]

    def status(self) -> dict[str, Any]:
        """`lorad status --format json`, read from its file."""
        found: dict[str, Any] = json.loads((self.home / "status.json").read_text())
        return found


def read_json(path: Path) -> Any:
    """The file's JSON; None where it is not there now."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a JSON Lines file; none where it is not there."""
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")] if path.exists() else []
