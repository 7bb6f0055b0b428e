"""The gRPC door (rpc/lorad.proto): a unix socket that only its owner opens, or TCP with certificates on both sides.

No reflection. Messages have 4 MiB at most, every call a deadline of the server's own: for the request to arrive, and for the
answer. A load that is over its deadline goes on, and the call may be repeated.
"""

import asyncio
import hashlib
import logging
import os
import pwd
import re
import socket
import ssl
import stat
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from core.deployment import GrpcConfig
from core.errors import ConfigError, IntegrityError, LoradError, UsageError
from rpc import lorad_pb2 as pb
from serving.failures import NotReady
from serving.library import ROTTEN, Deferred, Rotten
from serving.rpccalls import Calls, told
from serving.service import Service

log = logging.getLogger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["Adapters"]
MESSAGE_BYTES = 4 << 20
HEAD_BYTES = 16 << 10
MOST_CALLS = 32  # at once; one more is answered with RESOURCE_EXHAUSTED
STOP_S = 5.0
UNIX = "unix:"
UNIX_BYTES = 107  # the kernel's bound of a socket's path
TCP = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")
SAY_LISTEN = "unix:/path/of.sock, or host:port with serving.grpc.cert, key and client_ca"
OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.absolute_max_metadata_size", HEAD_BYTES),
    ("grpc.max_concurrent_streams", MOST_CALLS),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.so_reuseport", 0),  # else a second server would take the same port, and every other call
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Of one call, in seconds; a client's own counts where it is shorter."""

    read_s: float = 10.0  # until the request is here
    answer_s: float = 120.0


class RpcDoor:
    """One listening gRPC server on a thread of its own. `open` once, then `close`."""

    def __init__(self, service: Service, config: GrpcConfig, deadlines: Deadlines | None = None) -> None:
        self._calls = Calls(service, config.grace_s)
        self._config = config
        self._deadlines = deadlines or Deadlines()
        self._opened: Future[str] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="grpc", daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event

    def open(self) -> str:
        """Listen. Returns the address. Raises ConfigError GRPC_ADDRESS, GRPC_FILES; LoradError PORT_IN_USE, ADDRESS_UNUSABLE."""
        self._thread.start()
        return self._opened.result()

    def close(self) -> None:
        """End; calls in flight get five seconds."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(STOP_S * 2)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            path = socket_path(self._config.listen)
            server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=MOST_CALLS)
            server.add_generic_rpc_handlers((self._handlers(),))
            _listen(server, self._config, path)
            await server.start()
        except BaseException as error:  # carried to whoever opens
            self._opened.set_exception(error)
            return
        log.info("gRPC at %s", self._config.listen, extra={"action": "grpc_open"})
        self._opened.set_result(self._config.listen)
        await self._stop.wait()
        await server.stop(STOP_S)
        if path is not None:
            path.unlink(missing_ok=True)

    def _handlers(self) -> Any:
        calls: dict[str, Callable[[Any, str], Awaitable[Any]]] = {
            "LoadAdapter": self._calls.load,
            "UnloadAdapter": self._calls.unload,
            "ListAdapters": self._calls.list,
            "Health": self._calls.health,
        }
        return grpc.method_handlers_generic_handler(SERVICE.full_name, {name: self._handler(name, call) for name, call in calls.items()})

    def _handler(self, name: str, call: Callable[[Any, str], Awaitable[Any]]) -> Any:
        """A call of one request; read as a stream of one, since the library gives a request all the time in the world to arrive."""

        async def answer(requests: AsyncIterator[Any], context: Any) -> Any:
            began, actor, status = time.monotonic(), self._actor(context), grpc.StatusCode.OK
            try:
                async with asyncio.timeout(self._deadlines.read_s):
                    request = await anext(requests)
                async with asyncio.timeout(self._deadlines.answer_s):
                    return await call(request, actor)
            except TimeoutError:
                status = grpc.StatusCode.DEADLINE_EXCEEDED
                await context.abort(status, "not done in time; a load goes on: see ListAdapters, or call again")
            except StopAsyncIteration:
                status = grpc.StatusCode.INVALID_ARGUMENT
                await context.abort(status, "no whole request came")
            except LoradError as error:
                status = status_of(error)
                await context.abort(status, told(error), (("lorad-code", error.code.lower()),))
            except Exception:  # the border of a call
                log.exception("gRPC call %s failed", name, extra={"action": "rpc_failed"})
                status = grpc.StatusCode.INTERNAL
                await context.abort(status, "the server failed; its log says why")
            finally:
                seconds = round(time.monotonic() - began, 3)
                log.info("%s", name, extra={"action": "rpc", "method": name, "actor": actor, "status": status.name, "seconds": seconds})

        method = SERVICE.methods_by_name[name]
        request_type, response_type = (getattr(pb, one.name) for one in (method.input_type, method.output_type))
        return grpc.stream_unary_rpc_method_handler(answer, request_deserializer=request_type.FromString, response_serializer=response_type.SerializeToString)

    def _actor(self, context: Any) -> str:
        """Who calls: the certificate's name and the beginning of its SHA-256, or the one user who may open the socket."""
        pem = context.auth_context().get("x509_pem_cert")
        if not pem:
            return f"{_user(os.geteuid())} at {self._config.listen}"
        certificate = x509.load_pem_x509_certificate(pem[0])
        names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        name = str(names[0].value) if names else "no name"
        digest = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
        return f"{''.join(sign if sign.isprintable() else '?' for sign in name)} (certificate {digest[:16]})"


def status_of(error: LoradError) -> grpc.StatusCode:
    """The gRPC code of an error that lorad raised on purpose."""
    codes = grpc.StatusCode
    if isinstance(error, NotReady):
        return codes.UNAVAILABLE
    if isinstance(error, Rotten) or (isinstance(error, IntegrityError) and error.code in (*ROTTEN, "PROBE_DAMAGED")):
        return codes.DATA_LOSS
    if error.code == "RELEASE_MISSING":
        return codes.NOT_FOUND
    if isinstance(error, Deferred):  # memory or disk
        return codes.RESOURCE_EXHAUSTED
    return codes.INVALID_ARGUMENT if isinstance(error, UsageError) else codes.FAILED_PRECONDITION


def socket_path(listen: str) -> Path | None:
    """The path of a unix socket; None for host:port. Raises ConfigError GRPC_ADDRESS."""
    if listen.startswith(UNIX):
        path = listen.removeprefix(UNIX)
        if path.startswith("/") and len(os.fsencode(path)) <= UNIX_BYTES:
            return Path(path)
        raise ConfigError(
            f"serving.grpc.listen {listen!r}: a socket needs an absolute path of {UNIX_BYTES} bytes at most", hint=SAY_LISTEN, code="GRPC_ADDRESS"
        )
    found = TCP.fullmatch(listen)
    if found is None or not 0 < int(found[2]) < 1 << 16:
        raise ConfigError(f"serving.grpc.listen {listen!r} is no address", hint=SAY_LISTEN, code="GRPC_ADDRESS")
    return None


def _listen(server: Any, config: GrpcConfig, path: Path | None) -> None:
    """Bind. Nobody but the owner may open a unix socket, from its first moment on."""
    try:
        if path is None:
            server.add_secure_port(config.listen, _credentials(config))
            return
        _clear(path)
        before = os.umask(0o177)
        try:
            server.add_insecure_port(f"{UNIX}{path}")
        finally:
            os.umask(before)
    except RuntimeError as error:
        what = f"cannot listen on serving.grpc.listen {config.listen!r}: {error}"
        raise LoradError(what, hint="stop the other program, or set serving.grpc.listen", code="ADDRESS_UNUSABLE") from None


def _clear(path: Path) -> None:
    """Remove the socket of a process that has ended. Raises LoradError PORT_IN_USE where one listens, ConfigError for what is no socket."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{path} is there and is no socket", hint="set serving.grpc.listen to a path of its own", code="GRPC_ADDRESS")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink()
            return
    raise LoradError(f"another program listens at {path}", hint="stop it, or set serving.grpc.listen", code="PORT_IN_USE")


def _credentials(config: GrpcConfig) -> Any:
    """Both sides show a certificate. Raises ConfigError GRPC_FILES."""
    files = {name: getattr(config, name) for name in ("cert", "key", "client_ca")}
    if missing := [name for name, path in files.items() if not path]:
        what = f"serving.grpc.listen {config.listen!r} is a network address, and serving.grpc.{missing[0]} is empty"
        raise ConfigError(what, hint="name cert, key and client_ca, or listen on unix:/path/of.sock", code="GRPC_FILES")
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(config.cert, config.key, password="")
        context.load_verify_locations(config.client_ca)
        cert, key, client_ca = (Path(path).read_bytes() for path in files.values())
    except (OSError, ssl.SSLError) as error:
        what = f"serving.grpc.cert {config.cert!r}, key {config.key!r} and client_ca {config.client_ca!r} cannot be used: {error}"
        raise ConfigError(what, hint="PEM files that this user can read; the key belongs to the certificate and has no password", code="GRPC_FILES") from None
    return grpc.ssl_server_credentials([(key, cert)], root_certificates=client_ca, require_client_auth=True)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
