"""The application: every request gets an id, is let in or not, and is answered, be it with an error."""

import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from milepost.errors import MilepostError
from milepost.server.access import Access
from milepost.server.dialects import chat, completions, plain
from milepost.server.dialects.messages.routes import router as messages_router
from milepost.server.dialects.responses.routes import router as responses_router
from milepost.server.faults import Fault, RefusedError, fault_of
from milepost.server.health import router as health_router
from milepost.server.settings import ServeSettings
from milepost.server.sight.joining import let_watch
from milepost.server.speech.speech import Speech
from milepost.server.validation import fault_of_validation
from milepost.server.worker import Worker

__all__ = ["REQUEST_ID", "build_app"]

_log = logging.getLogger(__name__)

REQUEST_ID = "x-request-id"
# What a client may call its request: it stands in logs and headers.
_USABLE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_DIALECTS = (
    chat.router,
    completions.router,
    responses_router,
    messages_router,
    plain.router,
    health_router,
)


def build_app(worker: Worker, settings: ServeSettings, *, routers: Sequence[APIRouter] = ()) -> FastAPI:
    """Return the application over a worker, which it starts and stops.

    Args:
        worker: Owns the engine.
        settings: The server's.
        routers: More paths.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.speech = Speech(worker.tokenizer)
        worker.start()
        try:
            yield
        finally:
            await worker.stop()

    app = FastAPI(
        title="Milepost",
        summary="Sparse prefix caching: OpenAI's and Anthropic's APIs over one model.",
        lifespan=lifespan,
        # The page that is offered by default loads its parts from a network.
        docs_url=None,
        redoc_url=None,
    )
    app.state.worker, app.state.settings, app.state.access = worker, settings, Access(settings)
    app.state.started = int(time.time())
    for router in (*_DIALECTS, *routers):
        app.include_router(router)
    _answer_errors(app)
    # The last that is added is the first that a request meets.
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    if settings.is_loopback:
        # A web page whose name was pointed at this machine is no client of it.
        names = [settings.host.strip("[]"), "localhost", "127.0.0.1", "::1", "[::1]"]
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False)
    let_watch(app, worker, settings)
    app.add_middleware(RequestIds)
    return app


class RequestIds:
    """Middleware of ASGI: gives every request an id, its client's own where that is usable."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on under its id, which the answer's headers have too."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == REQUEST_ID.encode()]
        request_id = given[0] if given and _USABLE_ID.fullmatch(given[0]) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        await self._app(scope, receive, named)


class BodyLimit:
    """Middleware of ASGI: refuses a body that says itself that it is too large, or proves to be. (Of
    FastAPI's own limit the answer is plain text, and no client of these APIs reads that.)
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        claimed = Headers(scope=scope).get("content-length", "0")
        if claimed.isdigit() and int(claimed) > self._max_bytes:
            answer = _response(Request(scope), _too_large(self._max_bytes))
            await answer(scope, receive, send)
            return
        num_bytes = 0

        async def counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_bytes:
                # What reads the body passes this kind on to who answers errors.
                raise HTTPException(413)
            return message

        await self._app(scope, counted, send)


def _too_large(max_bytes: int) -> Fault:
    return Fault(
        status=413,
        message=f"the body has more than {max_bytes:,} bytes; send less, or start the server with more "
        "--max-body",
        code="body_too_large",
    )


def _answer_errors(app: FastAPI) -> None:
    async def on_error(request: Request, error: Exception) -> Response:
        return _response(request, fault_of(error))

    async def on_failure(request: Request, error: Exception) -> Response:
        _log.error("request %s failed", request.state.request_id, exc_info=error)
        return _response(request, fault_of(error))

    async def on_schema(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        field = getattr(request.scope.get("route"), "body_field", None)
        model = None if field is None else field.field_info.annotation
        return _response(request, fault_of_validation(error.errors(), body=model))

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = {
            404: f"there is no {request.url.path}; /openapi.json lists what there is",
            405: f"{request.url.path} takes no {request.method}; /openapi.json lists what it takes",
        }.get(error.status_code, str(error.detail))
        fault = Fault(status=error.status_code, message=message)
        if fault.status == 413:
            fault = _too_large(request.app.state.settings.max_body_bytes)
        return _response(request, fault, headers=error.headers)

    for kind in (MilepostError, RefusedError):
        app.add_exception_handler(kind, on_error)
    app.add_exception_handler(RequestValidationError, on_schema)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_failure)


def _response(request: Request, fault: Fault, *, headers: object = None) -> Response:
    extra = dict(headers) if isinstance(headers, dict) else {}
    is_anthropic = request.url.path.startswith("/v1/messages")
    content = fault.as_anthropic(request.state.request_id) if is_anthropic else fault.as_openai()
    return JSONResponse(content, status_code=fault.status, headers=fault.headers | extra)
