"""The routes of this package: what Prometheus reads, and the deletion of what was captured."""

import asyncio
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from serving.access.guard import Access
from serving.failures import failure
from serving.metrics import CONTENT_TYPE
from serving.openai.page import ERRORS

TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}


class Deleted(BaseModel):
    """OpenAI's word that something is deleted."""

    id: str
    object: Literal["chat.completion.deleted"] = "chat.completion.deleted"
    deleted: Literal[True] = True


def add_access_routes(app: FastAPI, access: Access) -> None:
    """Add them to `app`."""

    @app.get("/metrics", response_class=Response, responses={**ERRORS, **TEXT})
    async def metrics() -> Response:
        """Counts, times and gauges in Prometheus' text form."""
        return Response(await asyncio.to_thread(access.meter.text), media_type=CONTENT_TYPE)

    @app.delete("/v1/chat/completions/{completion_id}", response_model=Deleted, responses=ERRORS)
    async def delete(completion_id: str) -> Deleted | JSONResponse:
        """Delete what this server kept of an answer (serving.capture). A key deletes what it asked; one with the scope admin anything."""
        captures = access.captures
        found = await asyncio.to_thread(captures.find, completion_id) if captures else None
        if captures is None or found is None or not access.owns(found.key):
            return failure(404, f"nothing is kept under {completion_id!r}", param="completion_id", code="not_found")
        await asyncio.to_thread(captures.delete, completion_id)
        return Deleted(id=completion_id)
