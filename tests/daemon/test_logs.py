"""Logs whose reader is slow, gone or without room: no call blocks or raises, and what was dropped is counted."""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.logs import MOST_WAITING, NonBlockingHandler

LINE = "x" * 1000


def said(handler: NonBlockingHandler, text: str) -> None:
    handler.emit(logging.LogRecord("daemon.test", logging.INFO, __file__, 1, text, (), None))


def drain(fd: int) -> bytes:
    os.set_blocking(fd, False)
    found = b""
    while True:
        try:
            piece = os.read(fd, 1 << 16)
        except BlockingIOError:
            return found
        if not piece:
            return found
        found += piece


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for fd in (reading, writing):
        try:
            os.close(fd)
        except OSError:
            continue


def test_a_full_pipe_blocks_nobody_and_the_lines_that_fitted_arrive_whole(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    handler = NonBlockingHandler(writing)
    began = time.monotonic()
    for number in range(2000):
        said(handler, f"{number} {LINE}")
    assert time.monotonic() - began < 5
    assert handler.dropped > 0
    assert os.get_blocking(writing), "whoever shares the pipe must not find it changed"
    read = drain(reading)
    while handler._waiting:
        handler.flush()
        read += drain(reading)
    lines = read.decode().splitlines()
    assert lines == [f"{number} {LINE}" for number in range(2000 - handler.dropped)]
    said(handler, "and on")
    assert drain(reading).decode().splitlines() == [f"{handler.dropped} log lines were dropped: nobody read them", "and on"]
    handler.close()


def test_memory_stays_bounded_while_nobody_reads(pipe: tuple[int, int]) -> None:
    handler = NonBlockingHandler(pipe[1])
    for _ in range(3000):
        said(handler, LINE)
    assert len(handler._waiting) <= MOST_WAITING
    handler.close()


def _closed_pipe() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def _dead_socket() -> int:
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours.detach()


def _full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def _closed() -> int:
    fd = _dead_socket()
    os.close(fd)
    return fd


@pytest.mark.parametrize("gone", [_closed_pipe, _dead_socket, _full_disk, _closed])
def test_a_reader_that_is_gone_costs_the_lines_and_nothing_else(gone: Callable[[], int]) -> None:
    fd = gone()
    handler = NonBlockingHandler(fd)
    for _ in range(50):
        said(handler, "into the void")
    assert handler.dropped == 50
    handler.close()
    if gone is not _closed:
        os.close(fd)


def test_a_journal_socket_that_nobody_reads_blocks_nobody() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        handler = NonBlockingHandler(ours.fileno())
        began = time.monotonic()
        for _ in range(2000):
            said(handler, LINE)
        assert time.monotonic() - began < 5
        assert handler.dropped > 0
        handler.close()


def test_a_file_gets_every_line(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        handler = NonBlockingHandler(file.fileno())
        for number in range(1000):
            said(handler, str(number))
    assert (tmp_path / "log").read_text().split() == [str(number) for number in range(1000)]
    assert handler.dropped == 0


def test_a_line_whose_words_do_not_fit_is_told_and_does_not_raise(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        handler = NonBlockingHandler(file.fileno())
        handler.emit(logging.LogRecord("daemon.test", logging.INFO, __file__, 1, "%d", ("no number",), None))
    assert "cannot be formatted" in (tmp_path / "log").read_text()
