"""Server-sent events of an answer."""

import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from core.errors import LoradError
from serving import shapes
from serving.answers import Answer

log = logging.getLogger(__name__)

RELEASE_HEADER = "x-lorad-release"
Json = dict[str, Any]


class AnswerStream(StreamingResponse):
    """Events of one request's answers. Lets go of the release however it ends, even before the first byte.

    Args: bodies: the objects of the stream, but for the usage at its end.
    """

    def __init__(self, answer: Answer, bodies: AsyncIterator[Json], last: Callable[[], Json] | None) -> None:
        headers = {RELEASE_HEADER: answer.served.label, "cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(_events(bodies, last), media_type="text/event-stream", headers=headers)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answer.close()


async def _events(bodies: AsyncIterator[Json], last: Callable[[], Json] | None) -> AsyncIterator[str]:
    none_yet: Json = {"usage": None} if last else {}
    try:
        async for body in bodies:
            yield shapes.event(body | none_yet)
    except Exception as error:
        # The status line is long gone: the client's library raises on this event, and there is no [DONE].
        log.exception("answer broke off", extra={"action": "stream_failed"})
        what, code = (error.what, error.code.lower()) if isinstance(error, LoradError) else ("the server failed; its log says why", "internal_error")
        yield shapes.event(shapes.error_body(what, kind="server_error", param=None, code=code))
        return
    if last:
        yield shapes.event(last())
    yield shapes.DONE
