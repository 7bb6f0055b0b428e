"""POST /v1/feedback."""

from typing import Any, Literal

from fastapi import FastAPI
from fastapi.responses import Response
from typing_extensions import TypedDict

from serving.desk import FeedbackRequest, Unusable
from serving.failures import failure
from serving.openai.page import ERRORS
from serving.service import Service
from store.spool import SpoolFull

RETRY_S = 60
TOLD = "The server is ending, or can keep no more feedback; nothing of it was kept. `Retry-After` says when to send it again."
FULL: dict[int | str, dict[str, Any]] = {503: {**ERRORS[503], "description": TOLD}}


class Taken(TypedDict):
    """The feedback is kept. `id` is the same however often the same is sent; `release` is empty where nobody knows which it was."""

    object: Literal["feedback"]
    id: str
    kind: str
    adapter: str
    release: str


def add_feedback(app: FastAPI, service: Service) -> None:
    """The route. Without a box that keeps feedback there is none."""
    desk = service.desk
    if desk is None:
        return

    @app.post("/v1/feedback", response_model=Taken, responses=ERRORS | FULL)
    async def feedback(body: FeedbackRequest) -> Taken | Response:
        """Say of an answer that it was right, that it was wrong, or what would have been right."""
        try:
            signal = await desk.take(body)
        except Unusable as unusable:
            return unusable.response
        except SpoolFull as full:
            return failure(503, f"{full.what}: {full.hint}", code=full.code.lower(), headers={"retry-after": str(RETRY_S)})
        return Taken(object="feedback", id=signal.id, kind=signal.kind, adapter=signal.adapter, release=signal.release)
