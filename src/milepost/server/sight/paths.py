"""The paths for who watches: each asks for the operator's key where there are keys."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from milepost.server.access import Access
from milepost.server.documented import FaultBody
from milepost.server.sight.observer import Observer

__all__ = ["router"]


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
