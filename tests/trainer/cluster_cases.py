"""`python cluster_cases.py RUN STOPPED_RUN`: a cluster of two machines inside a network of its own; one training loses a worker, one is stopped."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from trainer.isolation import Network, leave_network

DEADLINE_S = 300.0
BEGAN = time.monotonic()


def tell(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + f" ({time.monotonic() - BEGAN:.0f} s)\n")
    sys.stdout.flush()


def when(condition: Callable[[], bool], act: Callable[[], None]) -> None:
    """Do it, in a thread, as soon as the condition holds."""

    def wait() -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.01)
        act()

    threading.Thread(target=wait, daemon=True).start()


def kill_a_worker() -> None:
    found = [child for child in psutil.Process().children(recursive=True) if any("TrainWorker" in word for word in child.cmdline()[:1])]
    tell("workers", len(found))
    found[-1].kill()


def main(lost: Path, stopped: Path) -> None:
    if leave_network() is not Network.NONE:
        tell("no namespace")
        return
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TRAIN_V2_ENABLED": "1", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    from ray.cluster_utils import Cluster

    from trainer import __main__ as child

    node = {"num_cpus": 1, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        cluster.add_node(**node)
        cluster.wait_for_nodes()
        for run in (lost, stopped):
            spec = (run / "spec.json").read_text()
            (run / "spec.json").write_text(spec.replace("THE-CLUSTER", cluster.address))
        when(lambda: any(lost.glob("resume/*/SEALED")), kill_a_worker)
        tell("cluster")
        tell("lost", child.main([str(lost)]))
        when(lambda: (stopped / "steps.jsonl").exists(), lambda: os.kill(os.getpid(), signal.SIGTERM))
        tell("stopped", child.main([str(stopped)]))
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
