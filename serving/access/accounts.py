"""What is written down of a request that is over: a line of the access log, and where it is wanted what was said."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from serving.access.exchange import Exchange, Track
from store.capture import Captured, Captures, Said

log = logging.getLogger("serving.requests")

SWEEP_S = 3600.0


class Accounts:
    """Args: captures: None where nothing is captured. logs_prompts: `serving.log_prompts`."""

    def __init__(self, captures: Captures | None, days: float, now: Callable[[], datetime], *, logs_prompts: bool = False) -> None:
        self.captures = captures
        self.gave: Callable[[str], None] = lambda response: None  # hears the id of each answer that was given
        self._days = days
        self._now = now
        self._logs_prompts = logs_prompts
        self._swept_s = -SWEEP_S
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="capture")  # a disk never holds the event loop up

    def over(self, exchange: Exchange) -> None:
        """Log it, and keep what was said. Returns at once."""
        level = logging.DEBUG if exchange.door is not None and exchange.door.is_open and exchange.status == 200 else logging.INFO
        log.log(level, "%s %s %d", exchange.method, exchange.path, exchange.status, extra=line_of(exchange, with_prompts=self._logs_prompts))
        is_answer = exchange.response and exchange.status == 200
        if is_answer:
            self.gave(exchange.response)
        if self.captures is None:
            return
        if is_answer and exchange.tracks:
            self._writer.submit(self._put, self.captures, exchange, self._now())
        if time.monotonic() - self._swept_s >= SWEEP_S:
            self._swept_s = time.monotonic()
            self._writer.submit(self._sweep, self.captures)

    def close(self) -> None:
        """Write what is still to be written."""
        self._writer.shutdown()

    def _put(self, captures: Captures, exchange: Exchange, at: datetime) -> None:
        try:
            answers = tuple(said_in(track) for track in exchange.tracks)
            captures.put(Captured(response=exchange.response, at=at, key=exchange.key, answers=answers, model=exchange.model))
        except OSError as error:
            log.error("an answer could not be captured: %s", error, extra={"action": "capture_failed"})

    def _sweep(self, captures: Captures) -> None:
        try:
            captures.sweep(self._now().date(), self._days)
        except OSError as error:
            log.error("old captures could not be deleted: %s", error, extra={"action": "capture_unswept"})


def said_in(track: Track) -> Said:
    """One answer as it is kept."""
    read, made = (track.generation.prompt_tokens, track.generation.completion_tokens) if track.generation else (0, 0)
    return Said(release=track.release, asked=track.asked, answer="".join(track.said), prompt_tokens=read, completion_tokens=made)


def line_of(exchange: Exchange, *, with_prompts: bool) -> dict[str, Any]:
    """The access log's fields. Never a header, never a query; prompts and answers only where the config asks for them."""
    line: dict[str, Any] = {"action": "request", "request": exchange.id, "method": exchange.method, "path": exchange.path, "status": exchange.status}
    line |= {"client": exchange.client, "seconds": round(time.monotonic() - exchange.begun_s, 4)}
    said = {"key": exchange.key, "response": exchange.response, "finish": exchange.finish, "refused": exchange.refused}
    line |= {name: value for name, value in said.items() if value}
    counted = [(track, track.generation) for track in exchange.tracks if track.generation is not None]
    if counted:
        firsts = [track.first_s for track, _ in counted if track.first_s is not None]
        line["release"] = ",".join(sorted({track.release for track, _ in counted}))
        line["prompt_tokens"] = sum(generation.prompt_tokens for _, generation in counted)
        line["completion_tokens"] = sum(generation.completion_tokens for _, generation in counted)
        line["first_token_s"] = round(min(firsts) - exchange.begun_s, 4) if firsts else None
    if with_prompts:
        line["said"] = [{"asked": track.asked, "answer": "".join(track.said)} for track in exchange.tracks]
    return line
