"""A service that really listens, in a thread of the test's process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from greysheep.serving.app import create_app
from greysheep.serving.run import _config
from greysheep.serving.served import Shelf
from greysheep.serving.settings import ServeSettings


@contextmanager
def listening(app: Any, settings: ServeSettings) -> Iterator[str]:
    """The address at which an application answers meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        server = uvicorn.Server(_config(app, settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [held]}, daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{held.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@contextmanager
def service(folder: Path | Shelf, key: bytes | None = None, **settings: Any) -> Iterator[httpx.Client]:
    """A client of a service that serves this folder."""
    chosen = ServeSettings(**{"watch": 0.01, **settings})
    shelf = folder if isinstance(folder, Shelf) else Shelf(folder)
    with (
        listening(create_app(shelf, chosen, key), chosen) as url,
        httpx.Client(base_url=url, timeout=30) as c,
    ):
        yield c
