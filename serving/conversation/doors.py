"""The routes of the conversation service: over HTTP whole or as server-sent events, and over a WebSocket.

A stream and a WebSocket tell the same events, each a JSON object with `type`: `queued` (position), `begun` (session_id,
response_id, model, release, system_fingerprint, fallback), `text` (text), `done` (all of these, finish_reason, usage), and
`error` (status, message, code) in the place of what would have come.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, WebSocket
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from serving import shapes
from serving.conversation.bodies import ChatBody, Session, SessionBody, failed, failure_of
from serving.conversation.histories import SessionUnknown
from serving.conversation.sockets import Socket
from serving.conversation.talk import SessionBusy, Talk
from serving.failures import CLIENT_GONE, failure
from serving.openai.page import ERRORS
from serving.openai.streams import RELEASE_HEADER
from serving.service import Service

Json = dict[str, Any]
PATH = "/api/ai-echo"
STREAMED: dict[int | str, Json] = {
    200: {
        "description": "The answer; with `stream`, server-sent events that end with `done` or `error`.",
        "content": {"text/event-stream": {"schema": {}}},
    }
}


def add_conversation(app: FastAPI, service: Service, talk: Talk) -> None:
    """The routes, and how their own failures are answered."""

    @app.exception_handler(SessionUnknown)
    @app.exception_handler(SessionBusy)
    async def _session(_: Request, error: Exception) -> Response:
        return failure_of(error)

    _add_sessions(app, talk)

    @app.post(f"{PATH}/chat", responses=ERRORS | STREAMED)
    async def chat(body: ChatBody, request: Request) -> Response:
        """An answer that knows what was said before: whole, or as events while it comes."""
        message = body.as_message(service.sampling)
        events = talk.exchange(message, tells=body.stream, is_gone=None if body.stream else request.is_disconnected)
        if body.stream:
            return EventStream(await anext(events), events)  # what fails before the first event has its true status
        async with aclosing(events):
            async for event in events:
                if event.pop("type") == "done":
                    return JSONResponse(event, headers={RELEASE_HEADER: event["release"]})
        return failure(CLIENT_GONE, "nobody waits for the answer any more", code="client_gone")

    @app.websocket(f"{PATH}/ws")
    async def socket(socket: WebSocket) -> None:
        await Socket(socket, service, talk).serve()


def _add_sessions(app: FastAPI, talk: Talk) -> None:
    @app.get(f"{PATH}/history", responses=ERRORS)
    async def history(session_id: Annotated[Session, Query()]) -> Json:
        """What was said in a session."""
        return await talk.history(session_id)

    @app.delete(f"{PATH}/history", responses=ERRORS)
    async def delete(session_id: Annotated[Session, Query()]) -> Json:
        """Delete a session for good."""
        return await talk.delete(session_id)

    @app.post(f"{PATH}/reset-context", responses=ERRORS)
    async def reset(body: SessionBody) -> Json:
        """From now on what was said goes with no new message; the history stays."""
        return await talk.reset(body.session_id)


class EventStream(StreamingResponse):
    """Server-sent events of one exchange. The exchange ends with it, however it ends."""

    def __init__(self, first: Json, events: AsyncGenerator[Json, None]) -> None:
        super().__init__(_events(first, events), media_type="text/event-stream", headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        self._exchange = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._exchange.aclose()


async def _events(first: Json, events: AsyncGenerator[Json, None]) -> AsyncGenerator[str, None]:
    yield shapes.event(first)
    try:
        async for event in events:
            yield shapes.event(event)
    except Exception as error:  # the border of a stream: its status line is long gone
        yield shapes.event(failed(error))
