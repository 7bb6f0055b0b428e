"""GET /v1/models and /v1/models/{model}."""

from typing import Any

from fastapi import FastAPI

from serving import shapes
from serving.openai import objects
from serving.openai.page import ERRORS
from serving.service import Service


def add_models(app: FastAPI, service: Service) -> None:
    """The two routes."""

    @app.get("/v1/models", response_model=objects.ModelList, responses=ERRORS)
    async def models() -> dict[str, Any]:
        """The base, every alias, every persona whose name stands for several adapters, every loaded release."""
        table = service.open_routes().table
        cards = [shapes.model_card(name, served, table.base.model) for name in table.names() if (served := table.find(name))]
        return {"object": "list", "data": cards}

    @app.get("/v1/models/{model:path}", response_model=objects.ModelCard, responses=ERRORS)
    async def model(model: str) -> dict[str, Any]:
        """One of them."""
        routes = service.open_routes()
        return shapes.model_card(model, routes.find(model), routes.table.base.model)
