"""`python -m validation`: the gate child. Reads paths of gate folders on stdin; ends at its end or on SIGTERM."""

import logging
import signal
import sys
import time
from datetime import UTC, datetime
from types import FrameType
from typing import NoReturn

from core.exits import ChildExit
from validation.child import serve
from validation.sandbox import enter


def _stop(signum: int, frame: FrameType | None) -> NoReturn:
    # A folder that was not finished has no result.json and is asked for again.
    raise SystemExit(int(ChildExit.STOPPED))


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


def main() -> int:
    """Serve until stdin ends. Exit 0; 40 on SIGTERM."""
    signal.signal(signal.SIGTERM, _stop)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    enter()
    serve(sys.stdin.buffer, _now)
    return int(ChildExit.DONE)


if __name__ == "__main__":
    sys.exit(main())
