"""From an opened engine to a server that listens, until it is told to stop."""

import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn

from milepost.byte_size import parse_bytes
from milepost.engines.engine import Engine
from milepost.server.access import Access
from milepost.server.admission import Admission, free_bytes
from milepost.server.app import build_app
from milepost.server.listening import bind
from milepost.server.settings import ServeSettings
from milepost.server.warming import warm
from milepost.server.worker import Worker

__all__ = ["serve"]

_log = logging.getLogger(__name__)

# What running answers may take to end once the server is told to stop.
_GRACE_SECONDS = 10


def serve(
    engine: Engine,
    settings: ServeSettings,
    *,
    listener: socket.socket | None = None,
    live_capacity: int | str | None = None,
    warm_prompts: Sequence[tuple[Any, dict[str, Any]]] = (),
    on_warmed: Callable[[int, int], None] = lambda num_tokens, reused: None,
    on_listening: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve ``engine`` until interrupted; it is closed then.

    Args:
        engine: Opened, with a tokenizer.
        settings: The server's.
        listener: A socket that listens already; opened as the settings say unless given.
        live_capacity: What running requests may take beside the cache, as ``"8GiB"``; half of what is free
            unless given.
        warm_prompts: Computed before anyone is served.
        on_warmed: Told of each of them.
        on_listening: Told where the server listens, once it does.

    Raises:
        ConfigurationError: the port is taken, or an option breaks its rule.
    """
    live_bytes = free_bytes(engine.driver.device) if live_capacity is None else parse_bytes(live_capacity)
    worker = Worker(
        engine,
        admission=Admission(
            footprint=engine.footprint,
            max_running=engine.max_running,
            max_waiting=settings.max_queue,
            live_capacity_bytes=live_bytes,
        ),
        stream_interval_seconds=settings.stream_interval_ms / 1e3,
    )
    app = build_app(worker, settings)
    listener = listener or bind(settings)
    try:
        if warm_prompts:
            caller = Access(settings).nobody
            warm(engine, list(warm_prompts), tenant_of=caller.tenant, on_prompt=on_warmed)
        host, port = listener.getsockname()[:2]
        on_listening(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        config = uvicorn.Config(
            app, log_config=None, access_log=False, timeout_graceful_shutdown=_GRACE_SECONDS, lifespan="on"
        )
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        listener.close()
