"""What every request passes first: its host, its key, the size of its body; and where it is counted."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from greysheep.errors import GreysheepError, ServiceError
from greysheep.serving.faults import FAULTS, INTERNAL
from greysheep.serving.numbers import Numbers
from greysheep.serving.settings import KEY, LOOPBACK, ServeSettings

log = logging.getLogger("greysheep.serving")

LOCKED = ("/v1/", "/metrics")
"""Beginnings of the paths that need the key: all that tells of people, or of their number."""


class Json(Response):
    """A reply as JSON. Letters beyond ASCII are escaped, as ids may hold halves of letters."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class Guard:
    """The application within; its errors become one line, and the traceback goes to the log alone."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, key: bytes | None, numbers: Numbers):
        self.app, self.settings, self.key, self.numbers = app, settings, key, numbers
        self.hosts = None if settings.is_open else {*LOOPBACK, *settings.allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0
        scope["groups"] = []

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, await self._whole_body(scope, receive), noted)
        except ServiceError as error:
            await refusal(error)(scope, receive, noted)
        except FAULTS:
            log.exception("%s %s failed", scope["method"], _route(scope))
            if not status:
                await Json({"error": INTERNAL}, 500)(scope, receive, noted)
        finally:
            self.numbers.count(_route(scope), status, time.perf_counter() - begun, scope["groups"])

    def _check(self, scope: Scope) -> None:
        """Refuse a request that names a strange host or lacks the key.

        Raises:
            ServiceError: it does.
        """
        headers = dict(scope["headers"])
        if self.hosts is not None and _host(headers.get(b"host", b"")) not in self.hosts:
            # a page from elsewhere may have pointed a name of its own here
            raise ServiceError(421, "this service does not answer for that host: see --allow-host")
        if self.key is None or not scope["path"].startswith(LOCKED):
            return
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if not hmac.compare_digest(given.strip(), self.key) or scheme.lower() != b"bearer":
            raise ServiceError(401, f"send the key of this service ({KEY}): Authorization: Bearer KEY")

    async def _whole_body(self, scope: Scope, receive: Receive) -> Receive:
        """Read the body, at most as much as is allowed and for as long; what gives it again.

        Raises:
            ServiceError: it is too large, or too slow.
        """
        most, body, more = self.settings.max_body, bytearray(), True
        length = dict(scope["headers"]).get(b"content-length", b"0")
        too_large = ServiceError(413, f"the body has more than {most:,} bytes: ask in several calls")
        if length.isdigit() and (len(length) > 18 or int(length) > most):
            raise too_large
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        break
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > most:
                        raise too_large
        except TimeoutError:
            raise ServiceError(408, f"no whole body in {self.settings.body_seconds:g} seconds") from None
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        return again


def refusal(error: GreysheepError) -> Json:
    """The reply to a request that is refused: one line."""
    status = error.status if isinstance(error, ServiceError) else 422
    headers = {401: {"www-authenticate": "Bearer"}, 503: {"retry-after": "1"}}.get(status)
    return Json({"error": str(error)}, status, headers)


def _host(header: bytes) -> str:
    """The name in a header Host, without its port."""
    name = header.decode("latin-1").lower()
    return name[1 : name.find("]")] if name.startswith("[") else name.partition(":")[0]


def _route(scope: Scope) -> str:
    """The route's pattern, never the path, which holds ids."""
    return str(getattr(scope.get("route"), "path", "none"))
