"""Middleware that follows every request from its first byte to its last, and tells of it then."""

import time
from collections.abc import Callable
from typing import final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from milepost.server.exchange import CLIENT_GONE
from milepost.server.sight.record import Record, Story
from milepost.server.sight.tally import CURRENT

__all__ = ["Stories"]

# What a path that is not served is called: what the client wrote there may be anything.
_UNKNOWN = "(none)"


@final
class Stories:
    """Middleware of ASGI, inside the one that gives requests their ids.

    Args:
        app: What is inside.
        on_end: Told of each request that was answered.
    """

    def __init__(self, app: ASGIApp, *, on_end: Callable[[Record], None]) -> None:
        self._app = app
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and tell of it once it is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        story = Story(
            request_id=scope["state"]["request_id"], method=scope["method"], started=time.monotonic()
        )
        # Unless an answer is begun, its client goes away before.
        status = CLIENT_GONE

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        token = CURRENT.set(story)
        try:
            await self._app(scope, receive, noted)
        except Exception:
            status = 500
            raise
        finally:
            CURRENT.reset(token)
            path = getattr(scope.get("route"), "path", _UNKNOWN)
            self._on_end(story.end(path=path, status=status, now=time.monotonic()))
