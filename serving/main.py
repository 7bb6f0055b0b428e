"""`lorad serve`: one process that owns a box's folder, listens at once, and answers when the model is loaded.

With an inherited listening socket it accepts nothing before it can answer: see `serving.handover`.
"""

import errno
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import uvicorn

from core.config import Config
from core.deployment import GrpcConfig, ServingConfig
from core.errors import BaseMissingError, ConfigError, LoradError
from serving.access.connection import Connection, speak_tls
from serving.access.filters import Filters
from serving.access.guard import HEADER_BYTES, Access
from serving.access.keyring import KeyRing
from serving.access.opening import Opened, open_access, watch
from serving.activation import Agent, Ground
from serving.api import Service, create_app
from serving.bases import take_in_bases, tell_of_no_base
from serving.capacity import Pulse
from serving.conversation.opening import open_conversations
from serving.conversation.talk import Standing
from serving.desk import Desk
from serving.detection import open_detector
from serving.embeddings import embedder_in
from serving.engines.port import Engine, Sampling
from serving.engines.registry import make_engine
from serving.handover import Farewell, HandoverServer, address_of, inherited, require_keys
from serving.ledger import Ledger
from serving.line import Line
from serving.quality import Quality
from serving.ratings import Ratings
from store.bases import models_dir
from store.keys import PRIVATE, PUBLIC, ensure_keys
from store.locks import take_lock
from store.paths import Box
from store.spool import FIRST_A_SECOND, Spool
from store.wire import read_activations

log = logging.getLogger(__name__)

GRACE_S = 30  # for requests in flight after the first SIGTERM
AGENT_STOP_S = 15.0
LOOK_S = 0.1


def serve(config: Config, ready: Callable[[str], None] | None = None, alive: Callable[[], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; requests in flight get thirty seconds to finish.

    `ready` is called once with the address, from another thread, when the model answers; `alive` every second by the loop
    that answers requests. Raises LockHeldError (another server owns this box), LoradError PORT_IN_USE, BaseMissingError,
    ConfigError for the API keys, and whatever the load of the base raises.
    """
    box = Box(Path(config.serving.home))
    ring = KeyRing(box)
    with ExitStack() as stack:
        sockets = [stack.enter_context(listener) for listener in inherited()]
        require_keys(sockets, ring.num_keys)
        where = address_of(sockets[0]) if sockets else f"port {config.serving.port}"
        holder = f"pid {os.getpid()}, {where}"
        lock = take_lock(box.lock, holder, f"serving home {str(box.root)!r}", hint="one server per home: stop the other, or set serving.home")
        stack.callback(os.close, lock)
        listeners = sockets or [stack.enter_context(bind(config.serving.host, config.serving.port))]
        require_keys(listeners, ring.num_keys)
        make_keys(config)
        box.prepare()
        take_in_bases(box, models_dir(config), Path(config.serving.trust))
        engine = _engine(config, box)
        stack.callback(engine.close)
        line = Line(config.serving.streams, config.serving.queue)
        agent = Agent(_ground(config.serving, box, engine, line))
        opened = open_access(config.serving, box, ring, agent.engine, _now)
        stack.callback(opened.accounts.close)
        conversation = open_conversations(config, box, _now)
        service = _service(config, opened, agent, line, conversation)
        desk = service.desk = open_desk(config, box, agent, opened.access, opened.filters)
        stack.callback(desk.spool.close)
        ratings = Ratings(agent.engine.rate, agent.library.ids)
        desk.heard, opened.accounts.gave = ratings.hear, ratings.gave
        if config.feedback.detect:
            detector = service.detector = open_detector(config.feedback, desk, opened.filters, models_dir(config))
            stack.callback(detector.close)
        watch(opened.access.meter, engine.base.name, line, agent.routes, lambda: (one.event for one in read_activations(box.activations)))
        opened.access.meter.registry.register(Quality(agent.routes, agent.engine.counted, agent.library.folder))
        server = _server(service, config.serving, alive, hands_over=bool(sockets))
        pulse = Pulse(box, agent.ledger.box_id, engine, _now, conversation.histories.sweep)
        pulse.spooled, desk.spool.told = lambda: desk.spool.published, pulse.soon
        pulse.start()
        stack.callback(pulse.stop)
        work = _Work(agent, service, pulse, server)
        address = address_of(listeners[0], "https" if config.serving.tls_cert else "http")
        close_grpc = _open_grpc(service, config.serving.grpc)
        work.start(lambda: ready(address) if ready else None)
        stack.callback(work.stop)
        stack.callback(close_grpc)
        with _signals(server):
            if not sockets or work.wait_ready():
                server.run(sockets=listeners)
    work.raise_failure()


def _ground(serving: ServingConfig, box: Box, engine: Engine, line: Line) -> Ground:
    return Ground(
        box=box,
        keys=Path(serving.trust),
        engine=engine,
        now=_now,
        monotonic=time.monotonic,
        releases_bytes=int(serving.releases_gb * 1e9),
        line=line,
        adapters_bytes=serving.adapters_mb << 20,
        deadline_s=serving.timeout_s,
    )


def _service(config: Config, opened: Opened, agent: Agent, line: Line, conversation: Standing) -> Service:
    return Service(
        engine=opened.engine,
        routes=agent.routes,
        line=line,
        access=opened.access,
        sampling=Sampling(**config.serving.sampling.model_dump()),
        timeout_s=config.serving.timeout_s,
        embedder=embedder_in(models_dir(config), config.serving.threads),
        agent=agent,
        conversation=conversation,
    )


def open_desk(config: Config, box: Box, agent: Agent, access: Access, filters: Filters) -> Desk:
    """Where feedback is taken; close its spool afterwards. Raises StateError for the box's secret, OSError for the spool's folders."""
    spool = Spool(box, agent.ledger.box_id, first=int(_now().timestamp()) * FIRST_A_SECOND)
    weight = config.feedback.human_weight
    return Desk(
        spool=spool,
        box=box,
        routes=agent.routes,
        ledger=agent.ledger,
        now=_now,
        clean=filters.admitted,
        owns=access.owns,
        captures=access.captures,
        weight=weight,
    )


def _open_grpc(service: Service, config: GrpcConfig) -> Callable[[], None]:
    """Open the gRPC door where the config names one; returns what closes it. Raises ConfigError GRPC_MISSING, and what `RpcDoor.open` raises."""
    if not config.listen:
        return lambda: None
    try:
        from serving.rpcdoor import RpcDoor
    except ModuleNotFoundError as error:
        what = f"serving.grpc.listen is {config.listen!r}, and {error.name} is not installed"
        raise ConfigError(what, hint="install lorad with its extra grpc", code="GRPC_MISSING") from None
    door = RpcDoor(service, config)
    door.open()
    return door.close


def _engine(config: Config, box: Box) -> Engine:
    """The engine; where its base is missing, the box says so to whoever can push it, and this raises BaseMissingError."""
    try:
        return make_engine(config)
    except BaseMissingError:
        tell_of_no_base(box, Ledger(box, _now).box_id, _now)
        raise


def make_keys(config: Config) -> None:
    """Make the signing keys where this box is also the training box; never a private key beside a copied public one."""
    trust = Path(config.serving.trust)
    if (trust / PUBLIC).exists():
        return
    if trust.is_relative_to(config.home) or not (trust / PRIVATE).exists():
        ensure_keys(trust)


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet. Raises LoradError PORT_IN_USE or ADDRESS_UNUSABLE."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _unusable(host, port, error) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1)  # only a listening socket keeps a second server of this port out
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise LoradError(f"port {port} on {host} is in use", hint="stop the other program, or set serving.port", code="PORT_IN_USE") from None
        raise _unusable(host, port, error) from None
    return listener


def _unusable(host: str, port: int, error: OSError) -> LoradError:
    return LoradError(f"cannot listen on {host!r} port {port}: {error.strerror}", hint="set serving.host and serving.port", code="ADDRESS_UNUSABLE")


class _Work:
    """The agent's thread: loads the model, restores, then carries out wishes."""

    def __init__(self, agent: Agent, service: Service, pulse: Pulse, server: uvicorn.Server) -> None:
        self._agent = agent
        self._service = service
        self._pulse = pulse
        self._server = server
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._ready = threading.Event()
        self._thread: threading.Thread

    def start(self, ready: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=self._run, args=(ready,), name="activation", daemon=True)
        self._thread.start()

    def wait_ready(self) -> bool:
        """Wait until requests can be answered. False where the server is to end before that."""
        while not self._ready.wait(LOOK_S):
            if self._server.should_exit:
                return False
        return True

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(AGENT_STOP_S)

    def raise_failure(self) -> None:
        """Raise what ended the thread before it was stopped."""
        if self._failure is not None:
            raise self._failure

    def _run(self, ready: Callable[[], None]) -> None:
        try:
            self._agent.start()
            self._service.is_ready = True
            ready()
            self._ready.set()
        except BaseException as error:  # carried to the main thread, which ends with it
            if not self._stop.is_set():
                self._failure = error
                self._server.should_exit = True
            return
        self._agent.run(self._stop, self._pulse.soon)


def _server(service: Service, serving: ServingConfig, alive: Callable[[], None] | None, *, hands_over: bool) -> uvicorn.Server:
    async def notify() -> None:
        if alive is not None:
            alive()

    farewell = Farewell(create_app(service))
    options = uvicorn.Config(
        farewell,
        host=serving.host,
        http=Connection,
        h11_max_incomplete_event_size=HEADER_BYTES,
        ws_max_size=serving.max_body_kb << 10,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        callback_notify=notify,
        timeout_notify=1,
    )
    if serving.tls_cert:
        speak_tls(options, serving.tls_cert, serving.tls_key)
    return HandoverServer(options, farewell) if hands_over else uvicorn.Server(options)


@contextmanager
def _signals(server: uvicorn.Server) -> Iterator[None]:
    """End the server on SIGTERM and SIGINT, from now on and not only once it listens.

    uvicorn raises a signal again after it has shut down; here that finds this handler, so that a stop on request ends
    with 0.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _now() -> datetime:
    return datetime.now(UTC)
