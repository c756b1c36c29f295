"""The service as one process or several: a socket first, then a model, then requests."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import uvicorn

from greysheep.errors import ConfigError, GreysheepWarning
from greysheep.serving.app import create_app
from greysheep.serving.numbers import SHARED
from greysheep.serving.served import Shelf
from greysheep.serving.settings import ServeSettings, api_key
from greysheep.serving.titles import Titles

log = logging.getLogger("greysheep.serving")


@dataclass(frozen=True)
class Job:
    """What a worker needs to begin: the folders, not what is in them."""

    folder: Path
    baselines: Sequence[Path]
    items: Path | None
    settings: ServeSettings

    def shelf(self) -> Shelf:
        """Read the folders.

        Raises:
            GreysheepError: one cannot be used.
        """
        titles = None if self.items is None else Titles.read(self.items)
        return Shelf(self.folder, self.baselines, titles, verify=self.settings.verify)


def serve(job: Job, say: Any = print) -> None:
    """Answer requests until a signal ends the process; running requests are answered first.

    say: is told the address, once requests are answered there.

    Raises:
        ConfigError: the address cannot be listened on, or the key is empty.
        GreysheepError: a folder cannot be used.
    """
    settings, key = job.settings, api_key()
    _log()
    listening = _listen(settings)
    try:
        shelf = job.shelf()  # also for several workers: a mistake is told here, once
        main, port = shelf.served.main, listening.getsockname()[1]
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        where = f"http://{host}:{port}"
        crew = f", {settings.workers} workers" if settings.workers > 1 else ""
        about = f"serving {main.ranker.label}, version {main.version[:12]}{crew}, at {where}"
        if settings.is_open and key is None:
            log.warning("who reaches %s reads whose rows are whose: set GREYSHEEP_API_KEY", where)
        if settings.workers == 1:
            config = _config(create_app(shelf, settings, key), settings)
            _Server(config, lambda: say(about)).run(sockets=[listening])
        else:
            del shelf, main
            with tempfile.TemporaryDirectory(prefix="greysheep-numbers-") as shared:
                os.environ[SHARED] = shared  # read by the workers as they begin
                say(about)
                _crew(job, listening)
    finally:
        listening.close()


class _Server(uvicorn.Server):
    """Says so once it answers."""

    def __init__(self, config: uvicorn.Config, ready: Any):
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        self._ready()


def _crew(job: Job, listening: socket.socket) -> None:
    """Keep the workers at work until a signal ends this process; one that ends is replaced."""
    spawn = get_context("spawn")  # a fork would hang, see `system.forks`

    def start() -> BaseProcess:
        worker = spawn.Process(target=_work, args=(job, listening), daemon=True)
        worker.start()
        return worker

    crew = [start() for _ in range(job.settings.workers)]
    try:
        while True:
            wait([worker.sentinel for worker in crew])
            for place, worker in enumerate(crew):
                if not worker.is_alive():
                    log.warning("a worker ended with code %s: another one takes its place", worker.exitcode)
                    time.sleep(1)
                    crew[place] = start()
    finally:
        for worker in crew:
            worker.terminate()  # SIGTERM: it answers what it has begun
        for worker in crew:
            worker.join(job.settings.shutdown_seconds + 5)


def _work(job: Job, listening: socket.socket) -> None:
    """One worker, in its own process."""
    _log()
    app = create_app(job.shelf(), job.settings, api_key())
    uvicorn.Server(_config(app, job.settings)).run(sockets=[listening])


def _config(app: Any, settings: ServeSettings) -> uvicorn.Config:
    # no line a request: it would hold ids of users
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=settings.shutdown_seconds,
        server_header=False,
        ws="none",
    )


def _listen(settings: ServeSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        listening.listen(2048)
    except (OSError, UnicodeError) as error:
        listening.close()
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"cannot listen on {settings.host}, port {settings.port}: {why}; name another --host or --port"
        ) from None
    listening.set_inheritable(True)
    return listening


def _log() -> None:
    """One line an event on stderr."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("greysheep").setLevel(logging.INFO)
    # what a request drops is counted in its reply
    warnings.simplefilter("ignore", GreysheepWarning)
