"""The application: every route of the server, behind one guard."""

from typing import Any

from fastapi import FastAPI

from serving.access.guard import Guard
from serving.access.routes import add_access_routes
from serving.conversation.doors import add_conversation
from serving.conversation.talk import Talk
from serving.failures import NotReady, install
from serving.feedback import add_feedback
from serving.openai import objects
from serving.openai.adapters import add_adapters
from serving.openai.chat import add_chat
from serving.openai.completions import add_completions
from serving.openai.embeddings import add_embeddings
from serving.openai.models import add_models
from serving.openai.page import ERRORS, correct
from serving.service import Service
from serving.trainingstatus import add_training_status

__all__ = ["Service", "create_app"]


def create_app(service: Service) -> FastAPI:
    """The application. Holds no state of its own."""
    app = FastAPI(title="lorad", docs_url=None, redoc_url=None)
    install(app)
    app.add_middleware(Guard, access=service.access)
    add_access_routes(app, service.access)
    _add_probes(app, service)
    add_models(app, service)
    add_chat(app, service)
    add_completions(app, service)
    add_embeddings(app, service)
    add_adapters(app, service)
    add_feedback(app, service)
    if service.conversation is not None:
        add_conversation(app, service, Talk(service.conversation, service.grounds, service.detector))
        add_training_status(app, service.conversation.box)
    correct(app)
    return app


def _add_probes(app: FastAPI, service: Service) -> None:
    @app.get("/health", response_model=objects.Health)
    async def health() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok"}

    @app.get("/ready", responses=ERRORS)
    async def ready() -> dict[str, Any]:
        """The base is loaded and every live release verified; what each alias serves, null for the base."""
        table = service.open_routes().table
        if service.agent is not None and (missing := service.agent.missing()):
            raise NotReady(f"what is live is not loaded: {', '.join(missing)}", hint="the server's log says why", code="RELEASE_NOT_LOADED")
        return {"ready": True, "releases": {alias: served.release for alias, served in sorted(table.aliases.items())}}
