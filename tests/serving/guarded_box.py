"""A server with everything that stands before its routes, in this process, with the stub engine."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fastapi import FastAPI
from fastapi.testclient import TestClient
from inference_box import World
from serving_process import wait_until

from core.access import Scope
from core.config import Config
from core.deployment import ServingConfig
from serving.access.keyring import KeyRing
from serving.access.opening import Opened, open_access, watch
from serving.activation import Agent
from serving.api import Service, create_app
from serving.conversation.opening import open_conversations
from serving.line import Line
from serving.main import _server, bind, open_desk
from store.apikeys import add_api_key
from store.wire import read_activations

CHAT = "/v1/chat/completions"


@dataclass(slots=True, kw_only=True)
class Guarded:
    """Its parts, for a test to look at."""

    world: World
    agent: Agent
    service: Service
    opened: Opened
    config: ServingConfig
    app: FastAPI

    def client(self, key: str = "", **headers: str) -> TestClient:
        given = {"authorization": f"Bearer {key}"} if key else {}
        return TestClient(self.app, base_url="http://localhost", headers=given | headers, raise_server_exceptions=False)

    def key(self, *scopes: Scope, name: str = "someone") -> str:
        """A new key's text."""
        return add_api_key(self.world.box, name, scopes or (Scope.INFER,), self.world.clock.now())[1]


@contextmanager
def guarded(world: World, **serving: Any) -> Iterator[Guarded]:
    """A ready server by this config."""
    config = ServingConfig(**serving)
    ground = world.ground()
    agent = Agent(ground)
    agent.start()
    opened = open_access(config, world.box, KeyRing(world.box), ground.engine, world.clock.now)
    line = Line(8, 64)
    watch(opened.access.meter, ground.engine.base.name, line, agent.routes, lambda: (one.event for one in read_activations(world.box.activations)))
    standing = open_conversations(Config(serving=config), world.box, world.clock.now)
    service = Service(engine=opened.engine, routes=agent.routes, line=line, access=opened.access, agent=agent, conversation=standing, is_ready=True)
    desk = service.desk = open_desk(Config(serving=config), world.box, agent, opened.access, opened.filters)
    try:
        yield Guarded(world=world, agent=agent, service=service, opened=opened, config=config, app=create_app(service))
    finally:
        desk.spool.close()
        opened.accounts.close()
        ground.engine.close()


@contextmanager
def listening(box: Guarded) -> Iterator[int]:
    """The same behind a real socket; its port."""
    server = _server(box.service, box.config, None, hands_over=False)
    with bind("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
        thread.start()
        try:
            wait_until(lambda: server.started, "it listens")
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(30)


def say(port: int, raw: bytes) -> bytes:
    """What a connection answers to these bytes until it is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        with suppress(ConnectionError):  # it may refuse before it has read all
            connection.sendall(raw)
        return heard(connection)


def heard(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    answer = b""
    with suppress(ConnectionError):
        while piece := connection.recv(1 << 16):
            answer += piece
    return answer


def body(text: str = "hello there", **fields: Any) -> dict[str, Any]:
    """A chat request."""
    return {"model": "tiny", "messages": [{"role": "user", "content": text}]} | fields


def said(response: Any) -> str:
    """The text of an answer."""
    text: str = response.json()["choices"][0]["message"]["content"]
    return text


def certificate(folder: Path) -> None:
    """A certificate of localhost, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    (folder / "cert.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(*form))
