"""An application on a port of this process, for clients that want a socket."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from serving_process import wait_until
from starlette.types import ASGIApp

from serving.main import bind


@contextmanager
def listening(app: ASGIApp) -> Iterator[str]:
    """Its address, while it serves."""
    listener = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        wait_until(lambda: server.started, "the application listens")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
