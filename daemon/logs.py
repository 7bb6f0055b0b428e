"""Logs that never block: where nobody reads them, or the journal is gone, lines are dropped and counted.

A pipe is opened anew without blocking, so that whoever shares it is not touched; a socket is written with MSG_DONTWAIT; to
a file is written as usual. What does not fit now waits in memory, up to 256 KiB; beyond that a line is dropped. Once it
flows again, the number of lines that were dropped is logged first.
"""

import contextlib
import logging
import os
import select
import socket
import stat
import sys

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
MOST_WAITING = 256 << 10  # bytes
PIECE = 4096  # PIPE_BUF: so much fits where poll says that something does
STDERR = 2


class NonBlockingHandler(logging.Handler):
    """Writes records to a descriptor. No call blocks or raises."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.dropped = 0
        """Lines that were dropped since the start."""
        self._untold = 0
        self._waiting = bytearray()
        self._out = _Out(fd)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line if the reader takes it now, else keep it up to MOST_WAITING bytes; beyond that lines are dropped and counted. Never blocks."""
        try:
            line = (self.format(record) + "\n").encode(errors="backslashreplace")
        except (ValueError, TypeError, KeyError) as error:  # a record whose words do not fit its arguments
            line = f"{record.name}: a line that cannot be formatted: {error}\n".encode()
        self.flush()
        if len(self._waiting) + len(line) > MOST_WAITING:
            self._drop()
            return
        if self._untold and not self._waiting and self._out.write(f"{self._untold} log lines were dropped: nobody read them\n".encode()):
            self._untold = 0
        self._waiting += line
        self.flush()

    def flush(self) -> None:
        """Write what waits, as far as it can be written now."""
        while self._waiting:
            written = self._out.write(bytes(self._waiting[:PIECE]))
            if written is None:  # the other end is gone: nobody will ever read this
                lines = self._waiting.count(b"\n")
                self._waiting.clear()
                self._drop(lines)
                return
            if not written:
                return
            del self._waiting[:written]

    def close(self) -> None:
        """Let go of what was opened; the descriptor itself stays as it was."""
        self._out.close()
        super().close()

    def _drop(self, lines: int = 1) -> None:
        self.dropped += lines
        self._untold += lines


class _Out:
    """A descriptor that is written without waiting."""

    def __init__(self, fd: int) -> None:
        self._fd, self._given = fd, fd
        self._socket: socket.socket | None = None
        self._is_file = False
        try:
            mode = os.fstat(fd).st_mode
        except OSError:
            self._fd = -1
            return
        self._is_file = stat.S_ISREG(mode)
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))
        elif not self._is_file:
            with contextlib.suppress(OSError):  # no /proc, or no right to open it anew: then poll alone must do
                self._fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)

    def close(self) -> None:
        """Close what was opened here."""
        if self._socket is not None:
            self._socket.close()
        elif self._fd not in (-1, self._given):
            os.close(self._fd)
        self._fd = -1

    def write(self, piece: bytes) -> int | None:
        """How many bytes were written; 0: none fit now; None: the other end is gone."""
        try:
            if self._socket is not None:
                return self._socket.send(piece, socket.MSG_DONTWAIT)
            if not self._is_file:
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                events = poll.poll(0)
                if not events:
                    return 0
            return os.write(self._fd, piece)
        except (BlockingIOError, InterruptedError):
            return 0
        except (OSError, ValueError):  # EPIPE, ECONNRESET, ENOSPC, EBADF
            return None


def log_without_blocking() -> NonBlockingHandler:
    """Let everything that is logged go to stderr without blocking."""
    handler = NonBlockingHandler(STDERR)
    handler.setFormatter(logging.Formatter(FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.raiseExceptions = False
    return handler


def lines_dropped() -> int:
    """How many log lines this process has dropped."""
    return sum(handler.dropped for handler in logging.getLogger().handlers if isinstance(handler, NonBlockingHandler))


def flush() -> None:
    """Write what waits in memory, as far as it can be written now."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, NonBlockingHandler):
            handler.flush()


def say(line: str) -> None:
    """Print a line for whoever started the program; nothing happens where nobody listens any more."""
    with contextlib.suppress(OSError):
        out = _Out(sys.stdout.fileno())
        out.write(f"{line}\n".encode(errors="backslashreplace"))
        out.close()
