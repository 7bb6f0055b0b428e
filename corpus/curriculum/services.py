"""The HTTP services of the teachers that ship. They keep no state and know no secrets: whoever reaches them may ask them."""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import msgspec

from core.errors import LoradError
from corpus.curriculum.teachers.port import PER_SEED, Teacher, rows_of
from corpus.curriculum.wire import Generated, Health, LevelOffer, Levels, Questions, Result, Results, Wish

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

MOST_BODY_BYTES = 16 << 20
POLL_S = 0.2
T = TypeVar("T")


def create_app(teacher: Teacher) -> "FastAPI":
    """The service of one teacher."""
    from fastapi import FastAPI, Request, Response

    app = FastAPI(title=f"lorad teacher {teacher.name}", docs_url=None, redoc_url=None, openapi_url=None)

    def reply(value: object, status: int = 200) -> Response:
        return Response(msgspec.json.encode(value), status, media_type="application/json")

    async def answer(request: Request, kind: type[T], work: Callable[[T], object]) -> Response:
        try:
            wish = msgspec.json.decode(await _body(request), type=kind)
            return reply(await asyncio.to_thread(work, wish))
        except (ValueError, RecursionError) as error:  # what was asked for is not there, or is not the JSON of a request
            return reply({"error": {"message": str(error)}}, 422)

    @app.get("/health")
    def health() -> Response:
        return reply(Health(teacher.name, teacher.generator, teacher.version, teacher.schema_id))

    @app.get("/levels")
    def levels() -> Response:
        return reply(Levels([LevelOffer(each.level, each.title, PER_SEED, each.num_seeds) for each in teacher.levels]))

    @app.post("/generate")
    async def generate(request: Request) -> Response:
        return await answer(request, Wish, lambda wish: Generated(wish.level, wish.seed, list(rows_of(teacher, wish.level, wish.count, wish.seed))))

    @app.post("/check")
    async def check(request: Request) -> Response:
        return await answer(request, Questions, lambda asked: _results(teacher, asked))

    return app


async def _body(request: "Request") -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BODY_BYTES:
            raise ValueError(f"the request has more than {MOST_BODY_BYTES:,} bytes")
    return bytes(body)


def _results(teacher: Teacher, asked: Questions) -> Results:
    checked = [teacher.check(question.row, question.answer) for question in asked.answers]
    return Results([Result(found.right, found.level, found.why) for found in checked])


@contextmanager
def running(teachers: Sequence[Teacher], addresses: Mapping[str, tuple[str, int]]) -> Iterator[dict[str, str]]:
    """Serve these teachers until the block ends; yields their URLs by name. Port 0 takes a free one.

    Raises LoradError (PORT_TAKEN) where one cannot listen; none is left behind. Opens sockets, starts a thread for each.
    """
    import uvicorn

    doors: list[tuple[uvicorn.Server, threading.Thread, socket.socket]] = []
    urls = {}
    try:
        for teacher in teachers:
            door = _listening(teacher.name, *addresses[teacher.name])
            options = uvicorn.Config(create_app(teacher), log_config=None, access_log=False, server_header=False, lifespan="off", timeout_graceful_shutdown=2)
            server = uvicorn.Server(options)
            # A thread of its own: there uvicorn leaves the signals alone, so that one signal ends all of them.
            thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, name=f"teacher-{teacher.name}", daemon=True)
            doors.append((server, thread, door))
            thread.start()
            host, port = door.getsockname()[:2]
            urls[teacher.name] = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        yield urls
    finally:
        for server, _, _ in doors:
            server.should_exit = True
        for _, thread, door in doors:
            thread.join()
            door.close()


def serve(teachers: Sequence[Teacher], addresses: Mapping[str, tuple[str, int]], ready: Callable[[str, str], None]) -> None:
    """Serve until SIGTERM or SIGINT; `ready` gets the name and URL of each. Call it in the main thread."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with running(teachers, addresses) as urls:
            for name, url in urls.items():
                ready(name, url)
            while not stop.wait(POLL_S):
                pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listening(name: str, host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128)
    except OSError as error:
        hint = f"end what listens there, or name another port in skills.{name}.url"
        raise LoradError(f"the teacher {name} cannot listen at {host}:{port}: {error.strerror}", hint=hint, code="PORT_TAKEN") from None
