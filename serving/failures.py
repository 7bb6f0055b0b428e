"""Every failed request is answered with OpenAI's error object and a true status; never 200, never a page."""

import logging
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from core.errors import LoradError
from serving.access.filters import ContentRefused
from serving.engines.port import PromptError
from serving.line import LineFull
from serving.routing import ModelNotFound
from serving.shapes import error_body

log = logging.getLogger(__name__)

BAD_REQUEST = "invalid_request_error"
SERVER = "server_error"


class NotReady(LoradError):
    """The base model is still being loaded, or the server is ending."""


class AnswerTimeout(LoradError):
    """An answer took longer than it may."""


class ClientGone(LoradError):
    """Whoever asked has hung up."""


CLIENT_GONE = 499  # nobody reads it; logs know the number from nginx


def failure(status: int, message: str, *, param: str | None = None, code: str | None = None, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error response."""
    body = error_body(message, kind=SERVER if status >= 500 else BAD_REQUEST, param=param, code=code)
    return JSONResponse(body, status, headers=dict(headers) if headers else None)


def of_lorad(error: LoradError) -> JSONResponse:
    """The response of an error that lorad raised on purpose."""
    message = f"{error.what}: {error.hint}" if error.hint else error.what
    if isinstance(error, ModelNotFound):
        return failure(404, message, param="model", code="model_not_found")
    if isinstance(error, PromptError):
        param = "response_format" if error.code == "SCHEMA_UNUSABLE" else "messages"
        return failure(400, message, param=param, code="context_length_exceeded" if error.code == "CONTEXT_LENGTH" else error.code.lower())
    if isinstance(error, ContentRefused):
        return failure(400, message, code=error.code.lower())
    if isinstance(error, NotReady):
        return failure(503, message, code="model_loading" if error.code == "NOT_READY" else error.code.lower(), headers={"retry-after": "1"})
    if isinstance(error, AnswerTimeout):
        return failure(504, message, code="answer_timeout")
    if isinstance(error, ClientGone):
        return failure(CLIENT_GONE, message, code="client_gone")
    if isinstance(error, LineFull):
        return failure(429, message, code="queue_full", headers={"retry-after": str(error.retry_after_s)})
    log.error("request failed: %s", message, extra={"action": "request_failed"})
    return failure(500, message, code=error.code.lower())


def of_validation(error: RequestValidationError) -> JSONResponse:
    """A body or parameter that does not fit the schema: 400, the first problem in `param`, all of them in the message."""
    problems = [(".".join(str(part) for part in problem["loc"] if part != "body"), str(problem["msg"]), str(problem["type"])) for problem in error.errors()]
    told = "; ".join(f"{param or 'body'}: {message.removeprefix('Value error, ')}" for param, message, _ in problems[:5])
    param, _, kind = problems[0]
    return failure(400, told, param=None if kind == "json_invalid" else param or None, code=kind)  # there it is a position


def of_http(error: HTTPException) -> JSONResponse:
    """An unknown route, a wrong method, a body that is not JSON."""
    return failure(error.status_code, str(error.detail), code={404: "not_found", 405: "method_not_allowed"}.get(error.status_code), headers=error.headers)


def install(app: FastAPI) -> None:
    """Answer every kind of failure of `app` in this form."""

    @app.exception_handler(LoradError)
    async def _lorad(_: Request, error: LoradError) -> JSONResponse:
        return of_lorad(error)

    @app.exception_handler(RequestValidationError)
    async def _validation(_: Request, error: RequestValidationError) -> JSONResponse:
        return of_validation(error)

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> JSONResponse:
        return of_http(error)

    @app.exception_handler(Exception)
    async def _other(_: Request, error: Exception) -> JSONResponse:
        return failure(500, "the server failed at this request; its log says why", code="internal_error")
