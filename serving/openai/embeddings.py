"""POST /v1/embeddings, by the sentence model of this box."""

import asyncio
import base64
import struct
from typing import Annotated, Any, Literal

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from pydantic import Field, field_validator

from serving.openai import objects
from serving.openai.page import ERRORS
from serving.routing import ModelNotFound
from serving.schemas import Strict, Text
from serving.service import Service

MOST_TEXTS = 256
FIRST = "lorad models pull all-minilm-l6-v2"


class EmbeddingRequest(Strict):
    """Body of POST /v1/embeddings."""

    model: Text
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MOST_TEXTS)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: Text | None = None

    @field_validator("input")
    @classmethod
    def _not_empty(cls, value: str | list[str]) -> str | list[str]:
        if not all([value] if isinstance(value, str) else value):
            raise ValueError("a text is empty")
        return value

    @field_validator("dimensions")
    @classmethod
    def _all_of_them(cls, value: int | None) -> int | None:
        if value is not None:
            raise ValueError("not served here: this model's vectors cannot be cut; leave it out")
        return value

    @property
    def texts(self) -> list[str]:
        """The texts."""
        return [self.input] if isinstance(self.input, str) else self.input


def add_embeddings(app: FastAPI, service: Service) -> None:
    """The route."""

    @app.post("/v1/embeddings", response_model=objects.EmbeddingList, responses=ERRORS)
    async def embeddings(body: EmbeddingRequest) -> Response:
        """Texts as vectors of unit length. Needs no base: it answers while that is still being loaded."""
        embedder = service.embedder
        if embedder is None or body.model != embedder.name:
            hint = f"the one here: {embedder.name}" if embedder else f"install torch on this box and run `{FIRST}`"
            raise ModelNotFound(f"no embedding model {body.model!r}", hint=hint, code="MODEL_NOT_FOUND")
        vectors, tokens = await asyncio.to_thread(embedder.embed, body.texts)
        listed = [{"object": "embedding", "index": place, "embedding": _encoded(vector, body)} for place, vector in enumerate(vectors)]
        counts = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "data": listed, "model": embedder.name, "usage": counts})


def _encoded(vector: list[float], body: EmbeddingRequest) -> Any:
    if body.encoding_format != "base64":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
