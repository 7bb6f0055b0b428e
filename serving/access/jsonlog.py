"""The log of a serving process as JSON, a line a record: {"at", "level", "logger", "message", …} with what a record brings along."""

import json
import logging
import sys
from datetime import UTC, datetime

OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """A record as one line of JSON; an exception stands in it as text."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {"at": at, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        line |= {name: value for name, value in vars(record).items() if name not in OWN}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log_as_json() -> None:
    """From now on everything that is logged is JSON, unless a person looks at a terminal. Call it after the handlers are made."""
    if sys.stderr.isatty():
        return
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonLines())
