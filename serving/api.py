"""The OpenAI routes, and /health and /ready."""

import logging
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from core.errors import LoradError
from core.fingerprints import response_id
from serving import shapes
from serving.answers import Answer
from serving.engines.port import Engine
from serving.failures import NotReady, install
from serving.guards import BodyGuard, KeyGuard
from serving.routing import Routes
from serving.schemas import ChatRequest

log = logging.getLogger(__name__)

RELEASE_HEADER = "x-lorad-release"


@dataclass(slots=True, kw_only=True)
class Service:
    """What the routes serve from. `is_ready` is set once the base is loaded and what was live is restored."""

    engine: Engine
    routes: Routes
    keys: tuple[bytes, ...] = ()
    is_ready: bool = False

    def open_routes(self) -> Routes:
        """The routes. Raises NotReady."""
        if not self.is_ready:
            raise NotReady("the model is being loaded", hint="ask again in a moment; /ready tells when", code="NOT_READY")
        return self.routes


class AnswerStream(StreamingResponse):
    """Server-sent events of one answer. Lets go of the release however it ends, even before the first byte."""

    def __init__(self, answer: Answer, heading: shapes.Heading, include_usage: bool) -> None:
        headers = {RELEASE_HEADER: answer.served.label, "cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(_events(answer, heading, include_usage), media_type="text/event-stream", headers=headers)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answer.close()


async def _events(answer: Answer, heading: shapes.Heading, include_usage: bool) -> AsyncIterator[str]:
    none_yet: dict[str, Any] = {"usage": None} if include_usage else {}
    yield shapes.event(shapes.chunk(heading, {"role": "assistant", "content": ""}) | none_yet)
    try:
        async for text in answer.pieces():
            yield shapes.event(shapes.chunk(heading, {"content": text}) | none_yet)
    except Exception as error:
        # The status line is long gone: the client's library raises on this event, and there is no [DONE].
        log.exception("answer broke off", extra={"action": "stream_failed"})
        what, code = (error.what, error.code.lower()) if isinstance(error, LoradError) else ("the server failed; its log says why", "internal_error")
        yield shapes.event(shapes.error_body(what, kind="server_error", param=None, code=code))
        return
    yield shapes.event(shapes.chunk(heading, {}, answer.finish_reason) | none_yet)
    if include_usage:
        yield shapes.event(shapes.usage_chunk(heading, shapes.usage(answer.generation)))
    yield shapes.DONE


def create_app(service: Service) -> FastAPI:
    """The application. Holds no state of its own."""
    app = FastAPI(title="lorad", docs_url=None, redoc_url=None)
    install(app)
    app.add_middleware(BodyGuard)
    app.add_middleware(KeyGuard, keys=service.keys)  # added last, asked first: a body without a key is not read

    _add_probes(app, service)
    _add_openai(app, service)
    return app


def _add_probes(app: FastAPI, service: Service) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> dict[str, Any]:
        """The base is loaded; what each alias serves, null for the base."""
        table = service.open_routes().table
        return {"ready": True, "releases": {alias: served.release for alias, served in sorted(table.aliases.items())}}


def _add_openai(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The base, every alias and every loaded release."""
        table = service.open_routes().table
        cards = [shapes.model_card(name, served, table.base.model) for name in table.names() if (served := table.find(name))]
        return {"object": "list", "data": cards}

    @app.get("/v1/models/{model:path}")
    async def model(model: str) -> dict[str, Any]:
        """One of them."""
        routes = service.open_routes()
        with routes.pin(model) as served:
            return shapes.model_card(model, served, routes.table.base.model)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        """An answer by the model, whole or streamed."""
        answer = await Answer.begin(service.engine, service.open_routes(), body)
        heading = shapes.Heading(id=response_id(answer.served.label, secrets.token_hex(12)), created=int(time.time()), served=answer.served)
        if body.stream:
            return AnswerStream(answer, heading, bool(body.stream_options and body.stream_options.include_usage))
        try:
            text = "".join([piece async for piece in answer.pieces(request.is_disconnected)])
        finally:
            answer.close()
        whole = shapes.completion(heading, text, answer.finish_reason, shapes.usage(answer.generation))
        return JSONResponse(whole, headers={RELEASE_HEADER: answer.served.label})
