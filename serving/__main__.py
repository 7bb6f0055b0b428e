"""`python -m serving CONFIG`: the serving process without the command line around it."""

import logging
import sys

from core.errors import LoradError
from serving.access.jsonlog import log_as_json
from serving.main import serve
from store.config import ConfigLoader

log = logging.getLogger("serving")


def main(path: str) -> int:
    """Serve by the config at `path`; the exit status."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    log_as_json()
    try:
        serve(ConfigLoader(path).load().config, lambda address: log.info("ready at %s", address))
    except LoradError as error:
        log.error("%s: %s (%s)", error.what, error.hint, error.code)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
