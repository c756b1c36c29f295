"""Requests that wait for each other a moment, so that one call of the model answers many."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol

from greysheep.errors import GreysheepError, ServiceError
from greysheep.serving.faults import FAULTS, INTERNAL
from greysheep.serving.served import Served
from greysheep.serving.settings import ServeSettings

log = logging.getLogger("greysheep.serving")

Reply = dict[str, Any]


class Ask(Protocol):
    """What a request wants."""

    @property
    def kind(self) -> Hashable:
        """Those of one kind are answered together."""

    @staticmethod
    def answer(asks: Sequence[Any], served: Served) -> list[Reply | Exception]:
        """The replies to some of one kind, from one version.

        Raises:
            GreysheepError: one of them cannot be answered: then each is tried alone.
        """


def answers(asks: Sequence[Ask], served: Served) -> list[Reply | Exception]:
    """The reply to each, or the error; a request that fails takes no other one with it."""
    kinds: dict[Hashable, list[int]] = {}
    for place, ask in enumerate(asks):
        kinds.setdefault(ask.kind, []).append(place)
    replies: dict[int, Reply | Exception] = {}
    for places in kinds.values():
        replies.update(zip(places, _together([asks[i] for i in places], served), strict=True))
    return [replies[place] for place in range(len(asks))]


def _together(asks: list[Ask], served: Served) -> list[Reply | Exception]:
    try:
        return asks[0].answer(asks, served)
    except FAULTS as error:
        if len(asks) > 1:
            return [reply for ask in asks for reply in _together([ask], served)]
        if not isinstance(error, GreysheepError):
            log.exception("a request could not be answered")
        return [error if isinstance(error, Exception) else ServiceError(500, INTERNAL)]


class Batcher:
    """Collects requests for a moment, or until they are many, and answers them in one thread."""

    def __init__(self, settings: ServeSettings, current: Callable[[], Served]):
        self.settings, self.current = settings, current
        self.waiting: asyncio.Queue[tuple[Ask, asyncio.Future[Reply | Exception]]] = asyncio.Queue(
            settings.queue
        )
        self.thread = ThreadPoolExecutor(1, "greysheep-answers")
        self.worker: asyncio.Task[None] | None = None

    async def ask(self, ask: Ask) -> Reply:
        """The reply, wholly from one version.

        Raises:
            ServiceError: too many requests wait already.
            Exception: what answering it raised.
        """
        answered: asyncio.Future[Reply | Exception] = asyncio.get_running_loop().create_future()
        try:
            self.waiting.put_nowait((ask, answered))
        except asyncio.QueueFull:
            raise ServiceError(503, f"{self.waiting.qsize()} requests wait already: come again") from None
        reply = await answered
        if isinstance(reply, Exception):
            raise reply
        return reply

    def start(self) -> None:
        """Begin to answer."""
        self.worker = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Answer what waits, then end."""
        await self.waiting.join()
        if self.worker is not None:
            self.worker.cancel()
            with suppress(asyncio.CancelledError):
                await self.worker
        self.thread.shutdown()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self.waiting.get()]
            if self.waiting.qsize() < self.settings.batch - 1:
                await asyncio.sleep(self.settings.batch_wait)
            while len(batch) < self.settings.batch and not self.waiting.empty():
                batch.append(self.waiting.get_nowait())
            asks = [ask for ask, answered in batch if not answered.cancelled()]
            left = [answered for _, answered in batch if not answered.cancelled()]
            replies = await loop.run_in_executor(self.thread, answers, asks, self.current())
            for answered, reply in zip(left, replies, strict=True):
                if not answered.cancelled():  # the client may have gone meanwhile
                    answered.set_result(reply)
            for _ in batch:
                self.waiting.task_done()
