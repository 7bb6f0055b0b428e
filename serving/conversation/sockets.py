"""A WebSocket of the conversation service: each text frame is a message as the chat route takes it, answered by events.

Messages are answered one after another. While one is answered the socket is listened to: a client that hangs up is noticed
at once, in the line as well as in the middle of an answer, and its place goes to the next.

Every message is a request of its own for rates, the access log and what is captured; the connection was one for the key.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect

from core.access import Scope
from core.errors import LoradError
from serving.access import exchange as exchanges
from serving.access.exchange import Exchange
from serving.access.guard import POLICY_VIOLATION, Access
from serving.conversation.bodies import ChatBody, TooOften, failed
from serving.conversation.talk import Talk
from serving.service import Service

Json = dict[str, Any]
MOST_UNANSWERED = 8  # messages read ahead; more wait in the connection
NOT_TEXT = 1003  # why a WebSocket is closed (RFC 6455)


class Socket:
    """One connection."""

    def __init__(self, socket: WebSocket, service: Service, talk: Talk) -> None:
        self._socket = socket
        self._service = service
        self._talk = talk
        self._unanswered: asyncio.Queue[str] = asyncio.Queue(MOST_UNANSWERED)

    async def serve(self) -> None:
        """Answer until the client hangs up."""
        await self._socket.accept()
        tasks = {asyncio.create_task(self._listen()), asyncio.create_task(self._answer_all())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()

    async def _listen(self) -> None:
        """Ends when the client has gone."""
        try:
            while True:
                await self._unanswered.put(await self._socket.receive_text())
        except WebSocketDisconnect:
            return
        except KeyError:  # starlette's word for a binary frame
            await self._socket.close(NOT_TEXT, "messages are text frames of JSON")

    async def _answer_all(self) -> None:
        """Ends when the client has gone."""
        try:
            while True:
                await self._answer(await self._unanswered.get())
        except WebSocketDisconnect:
            return

    async def _answer(self, said: str) -> None:
        if not may_still_ask(self._socket, self._service.access):
            await self._socket.close(POLICY_VIOLATION, "the API key was revoked")
            raise WebSocketDisconnect(POLICY_VIOLATION)
        try:
            with request_of(self._socket, self._service.access):
                message = ChatBody.model_validate_json(said).as_message(self._service.sampling)
                await self._tell(self._talk.exchange(message, tells=True))
        except WebSocketDisconnect:
            raise
        except Exception as error:  # the border of a message: the connection lives on
            await self._send(failed(error))

    async def _tell(self, events: AsyncGenerator[Json, None]) -> None:
        async with aclosing(events):
            async for event in events:
                await self._send(event)

    async def _send(self, event: Json) -> None:
        await self._socket.send_text(json.dumps(event, ensure_ascii=False))


def may_still_ask(socket: WebSocket, access: Access) -> bool:
    """Whether the key of the connection is still in force; one without a key never had to have one."""
    parent: Exchange = socket.scope["exchange"]
    return access.ring is None or not parent.key or access.ring.has_scope(parent.key, Scope.INFER)


@contextmanager
def request_of(socket: WebSocket, access: Access) -> Iterator[None]:
    """One message as a request of its own. Raises TooOften."""
    parent: Exchange = socket.scope["exchange"]
    name = parent.door.name if parent.door else ""
    child = Exchange(id=parent.id, method=parent.method, path=parent.path, client=parent.client, key=parent.key, door=parent.door, begun_s=time.monotonic())
    token = exchanges.enter(child)
    try:
        if access.rates is not None and (wait := access.rates.retry_after_s(parent.key or parent.client, name)):
            raise TooOften(wait)
        yield
        child.status = 200
    except LoradError as error:
        child.refused = error.code.lower()
        raise
    finally:
        exchanges.leave(token)
        access.over(child)
