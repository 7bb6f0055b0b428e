"""What the gRPC door's four calls do: verified releases of this box alone, through the agent, as the routes of vLLM's form do."""

import asyncio
import re
from collections.abc import Mapping
from concurrent.futures import Future

from core.errors import IntegrityError, LoradError, StateError, UsageError
from rpc import lorad_pb2 as pb
from serving.activation import RELEASE, Agent
from serving.beside import Loaded, Relocation
from serving.failures import NotReady
from serving.ledger import releases_of
from serving.routing import Served
from serving.service import Service

OWN_NAME = re.compile(r"[a-z0-9._-]{1,100}/[a-z0-9._-]{1,100}@v[0-9]{1,9}")
SCALED = "*"  # between a release's own name and the scale of an entry
NOT_HERE = "`lorad deploy` sends releases; ListAdapters names those that are here"


class Calls:
    """The calls, on one event loop. Every error is a LoradError."""

    def __init__(self, service: Service, grace_s: float) -> None:
        self._service = service
        self._grace_s = grace_s

    async def load(self, request: pb.LoadAdapterRequest, actor: str) -> pb.LoadAdapterResponse:
        """Load a release beside what is live; with `replace_id`, move its alias to it."""
        agent = self._agent()
        release = _release(agent, request.adapter_id)
        folder = str(agent.library.folder(release))
        if request.adapter_path and request.adapter_path.rstrip("/") != folder:
            what = f"adapter_path {request.adapter_path[:200]!r} is not the folder of that release"
            raise UsageError(what, hint=f"leave it empty, or name {folder}", code="ADAPTER_PATH")
        scale = request.scale or 1.0
        if not request.replace_id:
            served = await _done(agent.load(release, scale))
        elif scale != 1:
            raise UsageError(f"a name is moved to a release as trained, not at scale {scale!r}", hint="leave out scale or replace_id", code="SCALE_UNFIT")
        else:
            replaces = _replaced(agent, release, request.replace_id)
            served = await _done(agent.move(Relocation(release=release, replaces=replaces, actor=actor, grace_s=self._grace_s)))
        return pb.LoadAdapterResponse(model=served.model, release=release)

    async def unload(self, request: pb.UnloadAdapterRequest, actor: str) -> pb.UnloadAdapterResponse:
        """Let go what `load` loaded, once its grace is over; what is gone already is gone."""
        agent = self._agent()
        own, _, scale = request.adapter_id.partition(SCALED)
        release = _release(agent, own)
        model = agent.library.name_of(release) + (SCALED + scale if scale else "")
        try:
            await _done(agent.unload(model, self._grace_s))
        except StateError as error:
            if error.code != "NOT_LOADED" or (not scale and release in releases_of(agent.ledger.aliases.values())):
                raise
        return pb.UnloadAdapterResponse(leaves_in_s=_leaves_in_s(agent, agent.beside.entries.get(model)))

    async def list(self, request: pb.ListAdaptersRequest, actor: str) -> pb.ListAdaptersResponse:
        """Every verified release, loaded or not, and each entry with a scale."""
        agent = self._agent()
        table, entries = agent.routes.table, agent.beside.entries
        found = []
        for release in agent.library.ids():
            own = agent.library.name_of(release)
            aliases = sorted(alias for alias, served in table.aliases.items() if served.release == release)
            found.append(_adapter(agent, release, own, aliases, table.releases))
            found += [_adapter(agent, release, model, [], table.releases) for model, entry in entries.items() if entry.release == release and entry.scale != 1]
        return pb.ListAdaptersResponse(adapters=found)

    async def health(self, request: pb.HealthRequest, actor: str) -> pb.HealthResponse:
        """How the box stands; also while the base is being loaded."""
        engine, agent = self._service.engine, self._service.agent
        missing = agent.missing() if agent is not None and self._service.is_ready else []
        is_ready = self._service.is_ready and not missing
        return pb.HealthResponse(ready=is_ready, engine=engine.name, base=engine.base.name, base_sha256=engine.base.base_sha256, missing=missing)

    def _agent(self) -> Agent:
        """Raises NotReady."""
        self._service.open_routes()
        if self._service.agent is None:
            raise NotReady("this server loads nothing by request", hint="serve a box", code="NOT_READY")
        return self._service.agent


async def _done(errand: "Future[Served]") -> Served:
    return await asyncio.wrap_future(errand)


def _release(agent: Agent, text: str) -> str:
    """The release that an id or an own name stands for. Raises UsageError, IntegrityError RELEASE_MISSING, StateError where two are called so."""
    if RELEASE.fullmatch(text):
        found = [text] if text in agent.library.ids() else []
    elif OWN_NAME.fullmatch(text):
        found = [release for release in agent.library.ids() if agent.library.name_of(release) == text]
    else:
        raise UsageError(f"{text[:200]!r} names no release", hint="give its id (64 hex digits) or persona/domain@vN", code="ADAPTER_ID")
    if not found:
        raise IntegrityError(f"release {text} is not on this box", hint=NOT_HERE, code="RELEASE_MISSING")
    if len(found) > 1:
        raise StateError(f"{len(found)} releases are called {text}", hint=f"give an id: {', '.join(found)}", code="RELEASE_AMBIGUOUS")
    return found[0]


def _replaced(agent: Agent, release: str, text: str) -> str | None:
    """What must be live now, by `replace_id`: a release, or the alias itself. None: the base."""
    alias = agent.library.name_of(release).partition("@")[0]
    if "@" in text or RELEASE.fullmatch(text):
        return _release(agent, text)
    if text != alias:
        raise StateError(f"that release is one of {alias}, and {text[:200]!r} is another name", hint=f"replace_id may be {alias!r}", code="ADAPTER_MISMATCH")
    state = agent.ledger.aliases.get(alias)
    return state.release if state else None


def _adapter(agent: Agent, release: str, model: str, aliases: list[str], loaded: Mapping[str, Served]) -> pb.Adapter:
    entry = agent.beside.entries.get(model)
    is_leaving = entry is not None and entry.leaves_at is not None
    state = pb.LIVE if aliases else pb.STORED if model not in loaded else pb.LEAVING if is_leaving else pb.LOADED
    scale = entry.scale if entry else 1.0
    return pb.Adapter(release=release, model=model, state=state, scale=scale, aliases=aliases, leaves_in_s=_leaves_in_s(agent, entry))


def _leaves_in_s(agent: Agent, entry: Loaded | None) -> float:
    """0 for what stays, and for what is gone."""
    return max(0.0, entry.leaves_at - agent.beside.monotonic()) if entry is not None and entry.leaves_at is not None else 0.0


def told(error: LoradError) -> str:
    """An error in one line, for a client."""
    return f"{error.what}: {error.hint}" if error.hint else error.what
