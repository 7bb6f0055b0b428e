"""vLLM's two routes for adapters, for operators who have scripts for them.

They load verified releases of this box beside what is live, and never move an alias. A release answers by its own name
alone: a name of the caller's would stand for other bytes one day, and caches and logs go by names.
"""

import asyncio
from concurrent.futures import Future
from typing import Any

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response
from pydantic import field_validator

from core.errors import LoradError
from serving.activation import Agent
from serving.failures import failure
from serving.library import Deferred
from serving.openai.page import ERRORS
from serving.routing import Served
from serving.schemas import Strict, Text
from serving.service import Service

LOAD_S = 120.0  # before the caller is told to look again: a long load goes on
MISSING = ("RELEASE_MISSING", "NOT_LOADED")


class LoadRequest(Strict):
    """Body of POST /v1/load_lora_adapter. `lora_path`: the release's folder on this box, the folder's name, or the release id."""

    lora_name: Text
    lora_path: Text
    load_inplace: bool | None = None

    @field_validator("load_inplace")
    @classmethod
    def _never(cls, value: bool | None) -> bool | None:
        if value:
            raise ValueError("a name never stands for other bytes: load the release under its own name")
        return value


class UnloadRequest(Strict):
    """Body of POST /v1/unload_lora_adapter."""

    lora_name: Text
    lora_int_id: int | None = None


def add_adapters(app: FastAPI, service: Service) -> None:
    """The two routes. Without an agent (an application without a box) there are none."""
    agent = service.agent
    if agent is None:
        return

    told: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}

    @app.post("/v1/load_lora_adapter", responses=ERRORS | told)
    async def load(body: LoadRequest) -> Response:
        """Load a verified release of this box, to be asked for by its own name (persona/domain@vN)."""
        service.open_routes()
        release = _release_at(agent, body.lora_path)
        if release is None:
            what = f"no verified release lies at {body.lora_path!r}: releases come to this box by `lorad deploy` alone"
            return failure(404, what, param="lora_path", code="release_missing")
        own = agent.library.name_of(release)
        if body.lora_name != own:
            return failure(400, f"that release answers by its own name alone: {own!r}, not {body.lora_name!r}", param="lora_name", code="name_not_own")
        try:
            served = await _wait(agent.load(release))
        except LoradError as error:
            return _refusal(error, "lora_path")
        return PlainTextResponse(f"{served.model} is loaded")

    @app.post("/v1/unload_lora_adapter", responses=ERRORS | told)
    async def unload(body: UnloadRequest) -> Response:
        """Let a release go that was loaded by request; what is live stays."""
        service.open_routes()
        try:
            served = await _wait(agent.unload(body.lora_name))
        except LoradError as error:
            return _refusal(error, "lora_name")
        return PlainTextResponse(f"{served.model} is unloaded")


async def _wait(errand: "Future[Served]") -> Served:
    try:
        async with asyncio.timeout(LOAD_S):
            return await asyncio.wrap_future(errand)
    except TimeoutError:
        raise Deferred(f"not done after {LOAD_S:g} s", hint="it goes on: look at /v1/models", code="ADAPTER_SLOW") from None


def _release_at(agent: Agent, path: str) -> str | None:
    """The release that the end of a path names. The path itself is never opened."""
    name = path.rstrip("/").rpartition("/")[2]
    return next((release for release in agent.library.ids() if name == release or name.endswith(f"-{release[:12]}")), None)


def _refusal(error: LoradError, param: str) -> Response:
    status = 404 if error.code in MISSING else 503 if isinstance(error, Deferred) else 400
    return failure(status, f"{error.what}: {error.hint}" if error.hint else error.what, param=param, code=error.code.lower())
