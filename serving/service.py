"""What the routes serve from."""

from dataclasses import dataclass, field

from serving.access.guard import Access
from serving.activation import Agent
from serving.answers import Grounds
from serving.conversation.talk import Standing
from serving.desk import Desk
from serving.detection import Detector
from serving.embeddings import Embedder
from serving.engines.port import Engine, Sampling
from serving.failures import NotReady
from serving.line import Line
from serving.routing import Routes


@dataclass(slots=True, kw_only=True)
class Service:
    """What the routes serve from. `is_ready` is set once the base is loaded and what was live is restored."""

    engine: Engine
    routes: Routes
    line: Line = field(default_factory=lambda: Line(streams=8, waiting=64))  # the server sets its config's
    access: Access = field(default_factory=Access)
    sampling: Sampling = field(default_factory=Sampling)  # where a request is silent
    timeout_s: float = 300.0
    embedder: Embedder | None = None  # None: no sentence model on this box
    agent: Agent | None = None  # None: nothing can be loaded by request
    desk: Desk | None = None  # None: no feedback is taken
    conversation: Standing | None = None  # None: no conversation service, and no status of the training box
    detector: Detector | None = None  # None: nothing is looked for in what is said
    is_ready: bool = False

    def open_routes(self) -> Routes:
        """The routes. Raises NotReady."""
        if not self.is_ready:
            raise NotReady("the model is being loaded", hint="ask again in a moment; /ready tells when", code="NOT_READY")
        return self.routes

    def grounds(self) -> Grounds:
        """What answers are made from. Raises NotReady."""
        return Grounds(engine=self.engine, routes=self.open_routes(), line=self.line, timeout_s=self.timeout_s)
