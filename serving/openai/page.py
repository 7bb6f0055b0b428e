"""The OpenAPI page: what is true of every route."""

from typing import Any

from fastapi import FastAPI

from serving.openai.objects import Failure

_TOLD = {
    400: "The request cannot be served; `param` names the field.",
    401: "An API key is needed.",
    403: "The API key does not open this route.",
    404: "There is no such model, or no such route.",
    405: "The route has other methods.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    421: "The server is not called by this name, or the page that asks is another's.",
    429: "Too many requests wait, or this client has asked too often; `Retry-After` says when to ask again.",
    431: "The headers are too large.",
    499: "Whoever asked has hung up.",
    500: "The server failed; its log says why.",
    503: "The model is being loaded, or the server is ending.",
    504: "The answer took too long.",
}
ERRORS: dict[int | str, dict[str, Any]] = {status: {"model": Failure, "description": told} for status, told in _TOLD.items()}


def correct(app: FastAPI) -> None:
    """Make the page say what is answered: a body that does not fit is a 400 in OpenAI's form, never FastAPI's own 422."""
    made = app.openapi

    def page() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = made()
            for methods in found["paths"].values():
                for operation in methods.values():
                    operation["responses"].pop("422", None)
                    content = operation["responses"].get("200", {}).get("content", {})
                    if "text/plain" in content:  # FastAPI adds the type of the errors
                        content.pop("application/json", None)
            for name in ("HTTPValidationError", "ValidationError"):
                found.get("components", {}).get("schemas", {}).pop(name, None)
        return app.openapi_schema or {}

    app.openapi = page  # type: ignore[method-assign]
