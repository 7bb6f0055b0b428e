"""One dropped file becomes a better served model: the whole circle on a real 135M model, in about four minutes.

Starts a serving process and a daemon in a home of its own (var/demo), asks the base model, drops 450 entries of The
Devil's Dictionary, shows each stage as it happens, asks again, drops a broken file, and stops what it started.
"""

import json
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parent
HOME = Path.cwd() / "var" / "demo"
LORAD = str(Path(sys.executable).with_name("lorad"))
SYSTEM = "You are a cynic's dictionary."
WORDS = ("sunset (n.)", "landlord (n.)", "holiday (n.)")  # none of them is in the file
BASE = "smollm2-135m-instruct"
ALIAS = "default/main"
ANSWER_TOKENS = 80
STALL_S = 900.0
BOLD, DIM, RED, GREEN, OFF = ("\033[1m", "\033[2m", "\033[31m", "\033[32m", "\033[0m") if sys.stdout.isatty() else ("",) * 5
started = time.monotonic()


def say(text: str = "") -> None:
    print(f"{DIM}{time.monotonic() - started:5.0f} s{OFF}  {text}", flush=True)


def heading(text: str) -> None:
    print(f"\n{BOLD}{text}{OFF}", flush=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(verb: str) -> subprocess.Popen[bytes]:
    with open(HOME / f"{verb}.log", "wb") as log:
        return subprocess.Popen([LORAD, verb, "--config", str(HOME / "config.json")], stdout=log, stderr=log, start_new_session=True)


def get(port: int, path: str, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode() if body else None, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


def wait_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    while time.monotonic() - started < STALL_S:
        if process.poll() is not None:
            sys.exit(f"serving ended:\n{(HOME / 'serve.log').read_text()}")
        try:
            get(port, "/ready")
            return
        except OSError:
            time.sleep(0.2)
    sys.exit("serving did not become ready")


def ask(port: int, model: str) -> list[tuple[str, int, str]]:
    """(answer, tokens, release) for each word, greedy."""
    answers = []
    for word in WORDS:
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"Define: {word}"}]
        reply = get(port, "/v1/chat/completions", {"model": model, "messages": messages, "temperature": 0, "max_tokens": ANSWER_TOKENS})
        cut = "…" if reply["choices"][0]["finish_reason"] == "length" else ""
        answers.append((reply["choices"][0]["message"]["content"].strip() + cut, reply["usage"]["completion_tokens"], reply["system_fingerprint"]))
    return answers


def side_by_side(before: list[tuple[str, int, str]], after: list[tuple[str, int, str]]) -> None:
    width = max(30, min(56, shutil.get_terminal_size((120, 24)).columns // 2 - 3))
    print(f"{BOLD}{'base model':<{width}}   {'served now (' + after[0][2] + ')'}{OFF}")
    for word, (old, _, _), (new, _, _) in zip(WORDS, before, after, strict=True):
        print(f"{DIM}Define: {word}{OFF}")
        left, right = textwrap.wrap(old, width), textwrap.wrap(new, width)
        for line in range(max(len(left), len(right))):
            print(f"{left[line] if line < len(left) else '':<{width}}   {GREEN}{right[line] if line < len(right) else ''}{OFF}")
    old_tokens, new_tokens = (statistics.median(tokens for _, tokens, _ in answers) for answers in (before, after))
    print(f"median answer: {old_tokens:.0f} tokens before (cut at {ANSWER_TOKENS}), {new_tokens:.0f} after")


def read_lines(path: Path, seen: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()[seen:]] if path.exists() else []


def bar(current: dict[str, Any]) -> str:
    filled = round(30 * current["progress"] / 100)
    text = f"{current['stage']:<8} [{'#' * filled}{'.' * (30 - filled)}] {current['progress']:3d} %"
    if current["loss"] is not None:
        text += f"  step {current['step']}/{current['total_steps']}  loss {current['loss']:.3f}"
        text += f"  {current['tokens_per_s'] or 0:.0f} tokens/s  {current['eta_s'] or 0:.0f} s left"
    return text


WHAT = {
    "drop.claimed": "taken out of the inbox by rename",
    "drop.accepted": "gate: accepted",
    "job.queued": "queued",
    "job.training": "training a LoRA adapter",
    "job.ranking": "ranking the checkpoints on held-out rows",
    "job.releasing": "verdict: promote",
    "release.packed": "packed and signed",
    "wish": "rsync to the serving box, then its desired.json",
    "job.released": "live: the serving box confirmed the swap",
}


def follow(daemon: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Show what status.jsonl tells until the job has ended. Returns its row."""
    seen, tty = 0, sys.stdout.isatty()
    while time.monotonic() - started < STALL_S:
        if daemon.poll() is not None:
            sys.exit(f"the daemon ended:\n{(HOME / 'daemon.log').read_text()}")
        lines = read_lines(HOME / "var" / "status.jsonl", seen)
        seen += len(lines)
        for line in lines:
            if line["action"] in WHAT:
                print("\r\033[K" if tty else "", end="")
                extra = f" ({line['rows']} rows)" if "rows" in line else f" (release {line['release'][:12]})" if "release" in line else ""
                say(WHAT[line["action"]] + extra)
            elif line["action"] == "progress" and not tty:
                say(bar(line))
        listing = HOME / "var" / "caches" / "listing.json"
        rows = json.loads(listing.read_text())["jobs"] if listing.exists() else []
        if rows and rows[-1]["state"] in ("released", "held", "refused", "failed", "cancelled"):
            return dict(rows[-1])
        status = json.loads((HOME / "var" / "status.json").read_text())
        if tty and status["current"]:
            print(f"\r\033[K       {bar(status['current'])}", end="", flush=True)
        time.sleep(0.3)
    sys.exit("the job did not end")


def lorad(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LORAD, *words, "--config", str(HOME / "config.json")], capture_output=True, text=True, check=False)


def main(keep: bool) -> int:
    if HOME.exists():
        shutil.rmtree(HOME)
    HOME.mkdir(parents=True)
    port = free_port()
    config = {"home": "var", "serving": {"port": port}, "learning_rate": 4e-4, "training": {"epochs": 1}}
    (HOME / "config.json").write_text(json.dumps(config, indent=1) + "\n")

    heading("1  Two processes: serving (the inference box) and the daemon (the training box)")
    processes = {verb: start(verb) for verb in ("serve", "daemon")}
    try:
        wait_ready(port, processes["serve"])
        say(f"the base model answers on http://127.0.0.1:{port}/v1 ; state lies in {HOME / 'var'}")
        result = circle(port, processes["daemon"])
        farewell(port, [process.pid for process in processes.values()] if keep else [])
        return result
    finally:
        if not keep:
            for process in processes.values():
                process.send_signal(signal.SIGTERM)
            for process in processes.values():
                process.wait(30)


def circle(port: int, daemon: subprocess.Popen[bytes]) -> int:
    heading("2  The base model, asked three words that are not in the file")
    before = ask(port, ALIAS)
    for word, (answer, _, _) in zip(WORDS, before, strict=True):
        say(f"{word}: {textwrap.shorten(answer, 90, placeholder=' …')}")

    heading("3  450 entries of The Devil's Dictionary go into the inbox")
    dropped = lorad("drop", str(EXAMPLES / "devils_dictionary.jsonl"))
    say(dropped.stdout.strip() or dropped.stderr.strip())
    row = follow(daemon)
    print()
    print(lorad("jobs", "show", row["id"]).stdout)
    if row["state"] != "released":
        say(f"{RED}the job ended as {row['state']}: {row['reason']}{OFF}")
        return 1

    heading("4  The same words again")
    side_by_side(before, ask(port, ALIAS))

    heading("5  A broken file is refused, named, and kept")
    refused = lorad("drop", "--wait", str(EXAMPLES / "broken.jsonl"))
    say((refused.stdout + refused.stderr).strip())
    print(lorad("check", str(EXAMPLES / "broken.jsonl")).stdout)
    return 0 if refused.returncode == 2 else 1


def farewell(port: int, pids: list[int]) -> None:
    heading(f"Done in {time.monotonic() - started:.0f} s")
    config = f"--config {HOME.relative_to(Path.cwd()) / 'config.json'}"
    print(f"Everything lies in {HOME.relative_to(Path.cwd())}/var: jobs/*/ is the queue, adapters/ the releases, inbox/rejected/ the refused file.")
    if pids:
        print(f"Both processes still run; the API is http://127.0.0.1:{port}/v1, its model {ALIAS}. Stop them: kill {' '.join(map(str, pids))}")
    print("Try next:")
    print(f"  .venv/bin/lorad status {config}")
    print("  .venv/bin/lorad init && .venv/bin/lorad models pull     # a config of your own")
    print("  .venv/bin/lorad serve & .venv/bin/lorad daemon &        # then: .venv/bin/lorad drop YOUR.jsonl --wait")


if __name__ == "__main__":
    sys.exit(main(keep="--keep" in sys.argv[1:]))
