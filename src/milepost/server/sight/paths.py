"""The paths for who watches: each asks for the operator's key where there are keys."""

import asyncio
from collections.abc import AsyncIterator
from functools import cache
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from milepost.report.palette import COLOURS
from milepost.server.access import Access
from milepost.server.documented import FaultBody
from milepost.server.faults import Fault, RefusedError
from milepost.server.sight.observer import Observer

__all__ = ["EVENT_SECONDS", "MOST_PAGES", "router"]

# A page is told of what has changed no more often, and no more pages are told.
EVENT_SECONDS = 1.0
MOST_PAGES = 16
# A page that takes nothing for so long is gone.
_SEND_SECONDS = 20.0
_PING_SECONDS = 15
_KINDS = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "figures.js": "text/javascript",
    "tree.js": "text/javascript",
    "words.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
# Nothing is loaded from elsewhere, framed, or sent anywhere.
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


async def _observer_of(request: Request) -> Observer:
    access: Access = request.app.state.access
    access.require_operator(request.headers)
    observer: Observer = request.app.state.observer
    return observer


# What a path operation asks for.
HasObserver = Annotated[Observer, Depends(_observer_of)]

router = APIRouter(
    tags=["Operation"],
    responses={
        401: {"model": FaultBody, "description": "Not the operator's key."},
        503: {"model": FaultBody, "description": "Nothing is served, and nothing was seen before."},
    },
)


@router.get("/metrics", response_class=Response)
async def metrics(request: Request, observer: HasObserver) -> Response:
    """Tell what Prometheus gathers; docs/watching.md lists it."""
    content, content_type = await observer.metrics(accept=request.headers.get("accept", ""))
    return Response(content, headers={"content-type": content_type})


@router.get("/status.json", response_class=Response)
async def status(observer: HasObserver) -> Response:
    """Tell the same as JSON, with the tree of prompts and the last requests; docs/watching.md says how."""
    return Response(
        await observer.snapshot(), media_type="application/json", headers={"cache-control": "no-store"}
    )


@router.get("/events", response_class=EventSourceResponse)
async def events(observer: HasObserver) -> EventSourceResponse:
    """Tell the same whenever it has changed, once a second at most, as server-sent events."""
    if observer.num_pages >= MOST_PAGES:
        raise RefusedError(
            Fault(
                status=503,
                message=f"{MOST_PAGES} pages are told already, which is the most; close one, or ask "
                "/status.json",
                kind="server_error",
                code="too_many_pages",
                retry_after_seconds=10,
            )
        )
    return EventSourceResponse(_changes(observer), ping=_PING_SECONDS, send_timeout=_SEND_SECONDS)


async def _changes(observer: Observer) -> AsyncIterator[ServerSentEvent]:
    """Yield a snapshot whenever it is another one. A page that reads slowly misses some, and no more."""
    told = b""
    observer.num_pages += 1
    try:
        while True:
            snapshot = await observer.snapshot()
            if snapshot != told:
                told = snapshot
                yield ServerSentEvent(data=told.decode(), sep="\n")
            await asyncio.sleep(EVENT_SECONDS)
    finally:
        observer.num_pages -= 1


@router.get("/", response_class=Response)
async def page(observer: HasObserver) -> Response:
    """Show it."""
    return Response(_asset("page.html"), media_type="text/html", headers=_PAGE_HEADERS)


@router.get(
    "/assets/{name}",
    response_class=Response,
    responses={404: {"model": FaultBody, "description": "The page has no such part."}},
)
async def asset(name: str, observer: HasObserver) -> Response:
    """Give what the page is made of."""
    kind = _KINDS.get(name)
    if kind is None:
        raise RefusedError(Fault(status=404, message=f"there is no {name!r}; there are {', '.join(_KINDS)}"))
    content = _asset(name)
    if name == "page.css":
        content = _colours() + content
    return Response(content, media_type=kind, headers=_PAGE_HEADERS)


@cache
def _asset(name: str) -> str:
    return (files("milepost.server.sight") / "page" / name).read_text(encoding="utf-8")


def _colours() -> str:
    """Return the palette of the report as variables, for a light ground and a dark one."""
    light = "".join(f"--{name}:{each.light};" for name, each in COLOURS.items())
    dark = "".join(f"--{name}:{each.dark};" for name, each in COLOURS.items())
    return f":root{{{light}}}\n@media (prefers-color-scheme: dark){{:root{{{dark}}}}}\n"
