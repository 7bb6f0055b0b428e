"""Run as a child: start an agent on a box, let it act on the wish, and die at one step as kill -9 would have it.

    python dying_agent.py ROOT MODULE:NAME COUNT before|after

The function MODULE:NAME is replaced once the agent has started; its COUNT-th call ends the process.
"""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

from inference_box import World


def die_at(place: str, count: int, when: str) -> None:
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    real = getattr(owner, name)
    calls = 0

    def fatal(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and when == "before":
            os._exit(9)
        result = real(*args, **kwargs)
        if calls == count:
            os._exit(9)
        return result

    setattr(owner, name, fatal)


if __name__ == "__main__":
    root, place, count, when = sys.argv[1:]
    agent = World(Path(root)).agent()
    die_at(place, int(count), when)
    agent.tick()
