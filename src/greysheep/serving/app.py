"""The HTTP application: routes in, asks to the batcher, replies out."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from greysheep.errors import GreysheepError, ServiceError
from greysheep.serving import schemas
from greysheep.serving.faults import FAULTS, INTERNAL
from greysheep.serving.guard import Guard, Json, refusal
from greysheep.serving.lists import ListsAsk
from greysheep.serving.lookups import GroupAsk, SimilarAsk
from greysheep.serving.microbatch import Ask, Batcher
from greysheep.serving.numbers import Numbers
from greysheep.serving.page import add_page
from greysheep.serving.profile import ProfileAsk, SearchAsk
from greysheep.serving.served import Shelf
from greysheep.serving.settings import ServeSettings
from greysheep.system.machine import own_version

log = logging.getLogger("greysheep.serving")

ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": schemas.Error, "description": text}
    for code, text in (
        (400, "The body is no JSON."),
        (401, "The service has a key, and the request does not bring it."),
        (404, "A user or an item is unknown."),
        (408, "The body took too long."),
        (413, "The body is too large."),
        (422, "A value is not possible: of the wrong type, beyond a limit, or an id of another type."),
        (503, "Too many requests wait."),
    )
}


def create_app(shelf: Shelf, settings: ServeSettings | None = None, key: bytes | None = None) -> ASGIApp:
    """The application that serves what is on a shelf.

    key: what clients must send as `Authorization: Bearer KEY`; None lets everybody in.
    """
    settings, numbers = settings or ServeSettings(), Numbers()
    batcher = Batcher(settings, lambda: shelf.served)
    # what a person looks at takes longer than a list, and must not hold lists up
    one_by_one = settings.model_copy(update={"batch": 1, "batch_wait": 0.0, "queue": 16})
    slow = Batcher(one_by_one, lambda: shelf.served)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        slow.start()
        with ThreadPoolExecutor(1, "greysheep-reader") as reader:
            watch = asyncio.create_task(_watch(shelf, settings, numbers, reader))
            yield
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
            await batcher.stop()
            await slow.stop()

    api = FastAPI(
        title="greysheep", version=own_version(), lifespan=lifespan, docs_url=None, redoc_url=None,
        redirect_slashes=False,
        description="Ids are typed as in the log: integers or text, never one for the other.",
    )  # fmt: skip
    _lists(api, settings, batcher.ask)
    _lookups(api, settings, batcher.ask)
    _people(api, settings, slow.ask)
    _about(api, shelf, numbers)
    add_page(api)
    _errors(api)
    return Guard(api, settings, key, numbers)


def _lists(api: FastAPI, settings: ServeSettings, ask: Callable[[Ask], Awaitable[dict[str, Any]]]) -> None:
    longest = settings.max_k

    @api.get("/v1/users/{id:path}/recommendations", response_model=schemas.UserList, responses=ERRORS)
    async def user_recommendations(
        request: Request, id: str, k: int = Query(20, ge=1, le=longest), exclude_seen: bool = True
    ) -> Response:
        """The list of a known user."""
        wanted = schemas.ListsRequest.model_construct(k=k, exclude_seen=exclude_seen)
        reply = await ask(ListsAsk(wanted, id))
        request.scope["groups"].append(reply["group"])
        return Json(reply)

    @api.post("/v1/recommendations", response_model=schemas.Lists, responses=ERRORS)
    async def recommendations(request: Request, wanted: schemas.ListsRequest) -> Response:
        """Lists for many users, or for people who are not known, by their rows."""
        check_limits(wanted, settings)
        reply = await ask(ListsAsk(wanted))
        request.scope["groups"].extend(one["group"] for one in reply["lists"])
        return Json(reply)


def check_limits(wanted: schemas.ListsRequest, settings: ServeSettings) -> None:
    """Refuse a request beyond the limits.

    Raises:
        ServiceError: it is; the message names the limit.
    """
    histories = wanted.histories
    for what, n, most in (
        ("k", wanted.k, settings.max_k),
        ("users and histories", len(wanted.users) + len(histories), settings.max_users),
        ("rows of a history", max((len(h.items) for h in histories), default=0), settings.max_history),
        ("candidates", len(wanted.candidates or ()), settings.max_history),
        ("exclude_items", len(wanted.exclude_items or ()), settings.max_history),
    ):
        if n > most:
            raise ServiceError(422, f"{what}: {n:,} asked for, at most {most:,} in one call")


def _lookups(api: FastAPI, settings: ServeSettings, ask: Callable[[Ask], Awaitable[dict[str, Any]]]) -> None:
    longest = settings.max_k

    @api.get("/v1/users/{id:path}/group", response_model=schemas.Group, responses=ERRORS)
    async def group(id: str) -> Response:
        """The group of a known user, from niche to mainstream."""
        return Json(await ask(GroupAsk(id)))

    @api.get("/v1/items/{id:path}/similar", response_model=schemas.SimilarItems, responses=ERRORS)
    async def similar(id: str, k: int = Query(20, ge=1, le=longest)) -> Response:
        """The items most like one."""
        return Json(await ask(SimilarAsk(id, k)))


def _people(api: FastAPI, settings: ServeSettings, ask: Callable[[Ask], Awaitable[dict[str, Any]]]) -> None:
    @api.get("/v1/users/{id:path}/profile", response_model=schemas.Profile, responses=ERRORS)
    async def user_profile(id: str, k: int = Query(10, ge=1, le=100)) -> Response:
        """A user's rows, lists and group, and what speaks for each item."""
        return Json(await ask(ProfileAsk(id, None, k)))

    @api.post("/v1/profile", response_model=schemas.Profile, responses=ERRORS)
    async def profile(wanted: schemas.ProfileRequest) -> Response:
        """The same for a person who is not known, by her rows."""
        lists = schemas.ListsRequest.model_construct(k=wanted.k, histories=[wanted.history])
        check_limits(lists, settings.model_copy(update={"max_k": 100, "max_history": 500}))
        return Json(await ask(ProfileAsk(None, wanted.history, wanted.k)))

    @api.get("/v1/items", response_model=schemas.FoundItems, responses=ERRORS)
    async def items(search: str = Query(max_length=200), n: int = Query(20, ge=1, le=100)) -> Response:
        """Items by words of their titles, or by the beginning of their ids."""
        return Json(await ask(SearchAsk(search, n)))


def _about(api: FastAPI, shelf: Shelf, numbers: Numbers) -> None:
    def health(status: str) -> Response:
        main = shelf.served.main
        return Json({"status": status, "version": main.version, "model": main.model.label})

    @api.get("/health/live", response_model=schemas.Health)
    async def live() -> Response:
        """Whether the process answers."""
        return health("live")

    @api.get("/health/ready", response_model=schemas.Health)
    async def ready() -> Response:
        """Whether it may be sent requests: it answers none before its model is read."""
        return health("ready")

    @api.get(
        "/metrics",
        responses={200: {"content": {"text/plain": {}}}, 401: ERRORS[401]},
        response_class=Response,
    )
    async def metrics() -> Response:
        """Counts and seconds, by route and by user group, for Prometheus."""
        return Response(numbers.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _errors(api: FastAPI) -> None:
    @api.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "the body"
        more = f" (and {len(error.errors()) - 1} more)" if len(error.errors()) > 1 else ""
        status = 400 if first["type"] == "json_invalid" else 422
        message = first["msg"].removeprefix("Value error, ")
        return Json({"error": f"{where[:200]}: {message}{more}"}, status)

    @api.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        what = f": there is no {request.method} {ascii(request.url.path)[:80]}"
        text = str(error.detail) + (what if error.status_code in (404, 405) else "")
        return Json({"error": text}, error.status_code, error.headers and dict(error.headers))

    @api.exception_handler(GreysheepError)
    async def mistaken(_: Request, error: GreysheepError) -> Response:
        return refusal(error)

    @api.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        return Json({"error": INTERNAL}, 500)  # it is raised again, for the guard to log


async def _watch(shelf: Shelf, settings: ServeSettings, numbers: Numbers, reader: ThreadPoolExecutor) -> None:
    """Look at the folders again and again."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(settings.watch)
        try:
            await loop.run_in_executor(reader, shelf.refresh)
        except FAULTS:
            log.exception("the folders could not be looked at")
        numbers.swaps.set(shelf.swaps)
