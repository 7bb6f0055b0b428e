"""`scripts/bench NAME [--format json]`: one table, or one JSON object {"bench", "figures", "opponents", "machine"}."""

import argparse
import importlib
import json
import os
import platform
import sys

BENCHES = {
    "faults": "the fault catalogue: each fault done to lorad with its guard, then without; what held",
    "circle": "command start-up, intake, and the way from the verdict to the served release",
    "gain": "500 rows from the drop to the served release, and what they gave on rows that nobody used",
    "serve": "the ssh road, swaps under load, the line of waiting users, the engine against generate with PEFT, memory a swap",
    "tick": "a tick of the daemon and its start, with 10,000 jobs on disk",
    "burst": "many small drops at once: how fast they are claimed, gated and queued, and at what memory",
    "train": "a training step against TRL's settings, LLaMA-Factory, a prototype and the hardware's limit, step by step in turn",
    "ranking": "what verdicts are worth: A/A comparisons, planted regressions and gains, small evidence; and how long ranking takes",
    "loop": "the loop that feeds itself: teachers, feedback, pulls, triggers, and what 500 corrections give",
    "gate": "rows a second of each level of the gate, against json.loads and transformers' chat template",
}


def machine() -> dict[str, object]:
    """Where the figures were taken; the load tells how quiet it was."""
    return {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "load": [round(load, 2) for load in os.getloadavg()]}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures; asserts nothing.")
    parser.add_argument("name", nargs="?", choices=sorted(BENCHES))
    parser.add_argument("--format", choices=["table", "json"], default="table")
    parser.add_argument("--only", default="", help="faults: ids by comma (all)")
    rows = "gate: rows of the file (1,000,000); train: rows that are trained on, 8 a step (64); gain: rows dropped (500); "
    parser.add_argument("--rows", type=int, help=rows + "loop: rows of the teachers (5,000), corrections (500)")
    parser.add_argument("--prototype", default="", help="train: a file with a prototype of the fast path, as one more opponent")
    parser.add_argument("--llamafactory", default="", help="train: a Python that has LLaMA-Factory (this one)")
    parser.add_argument("--parts", default="", help="ranking: statistics, rank5; serve: road, swap, load, queue, engines, slope; loop: see bench/loop.py (all)")
    parser.add_argument("--drops", type=int, help="burst: drops of three rows (1,000)")
    parser.add_argument("--requests", type=int, help="serve: requests under load (10,000)")
    parser.add_argument("--swaps", type=int, help="serve: swaps of the memory slope (1,000)")
    arguments = parser.parse_args()
    if arguments.name is None:
        for name, text in BENCHES.items():
            print(f"{name:<10} {text}")
        return 0
    if arguments.name == "faults":
        return int(importlib.import_module("bench.faults").main(arguments.only, arguments.format))
    before = machine()
    sizes = {name: size for name in ("rows", "drops", "parts", "requests", "swaps", "prototype", "llamafactory") if (size := getattr(arguments, name))}
    figures, opponents = importlib.import_module(f"bench.{arguments.name}").measure(**sizes)
    result = {"bench": arguments.name, "figures": figures, "opponents": opponents, "machine": before | {"load_after": machine()["load"]}}
    if arguments.format == "json":
        print(json.dumps(result, indent=1))
        return 0
    for part in ("figures", "opponents", "machine"):
        print(part)
        for key, value in result[part].items():
            print(f"  {key:<28} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
