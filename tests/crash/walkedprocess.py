"""One operation in a process of its own, to be killed from outside: `walkedprocess.py ROOT OPERATION`."""

import logging
import sys
from pathlib import Path

from lonedaemon import LoneDaemon
from operations import OPERATIONS, go_on

if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    go_on(LoneDaemon(Path(sys.argv[1])), OPERATIONS[sys.argv[2]])
