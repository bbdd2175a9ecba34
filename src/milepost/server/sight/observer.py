"""What the engine, the worker and the tally know together; asked of the engine seldom, however many ask."""

import asyncio
import time
from functools import lru_cache
from typing import Any, final

import orjson
from prometheus_client import CollectorRegistry

from milepost.server.faults import StoppedError
from milepost.server.settings import ServeSettings
from milepost.server.sight.close_look import CloseLook, look_closely_at
from milepost.server.sight.look import Look, look_at
from milepost.server.sight.metrics import Scene, written
from milepost.server.sight.status import status_of
from milepost.server.sight.tally import Tally
from milepost.server.worker import Worker

__all__ = ["Observer"]

# A snapshot that is no older serves whoever asks next.
_FRESH_SECONDS = 0.5
_REMEMBERED_TEXTS = 4096


@final
class Observer:
    """See the module. Belongs to the event loop.

    Args:
        worker: The engine's, which it listens to from now on.
        settings: The server's.
        started: When it was, in seconds since 1970.

    Attributes:
        tally: What became of requests.
        num_pages: How many are told of changes now.
    """

    def __init__(self, worker: Worker, settings: ServeSettings, *, started: int) -> None:
        self._worker = worker
        self._settings = settings
        self._started = started
        self._histograms = CollectorRegistry(auto_describe=False)
        self.tally = Tally(self._histograms)
        self.num_pages = 0
        self._look: Look | None = None
        self._close: CloseLook | None = None
        self._snapshot = b""
        self._taken = float("-inf")
        self._taking: asyncio.Task[bytes] | None = None
        self._text_of = lru_cache(_REMEMBERED_TEXTS)(self._decode)
        worker.listen(self.tally)

    async def metrics(self, *, accept: str) -> tuple[bytes, str]:
        """Return what a scraper is told, and its content type.

        Raises:
            StoppedError: the engine has stopped, before anyone asked.
        """
        try:
            self._look = await self._worker.call(look_at)
        except StoppedError:
            if self._look is None:
                raise
        return written(self._scene(self._look), self._histograms, accept=accept)

    async def snapshot(self) -> bytes:
        """Return the snapshot as JSON: one that was just taken, or a new one, for all who ask meanwhile.

        Raises:
            StoppedError: the engine has stopped, before anyone asked.
        """
        if time.monotonic() - self._taken < _FRESH_SECONDS:
            return self._snapshot
        if self._taking is None or self._taking.done():
            self._taking = asyncio.create_task(self._take())
        # Who goes away takes nothing from the others.
        return await asyncio.shield(self._taking)

    async def _take(self) -> bytes:
        try:
            self._close = await self._worker.call(look_closely_at)
            self._look = self._close.look
        except StoppedError:
            if self._look is None:
                raise
        self._snapshot = orjson.dumps(self._status(self._look))
        self._taken = time.monotonic()
        return self._snapshot

    def _status(self, look: Look) -> dict[str, Any]:
        return status_of(
            self._scene(look),
            self._close,
            settings=self._settings,
            started=self._started,
            text_of=self._text_of if self._settings.shows_text else None,
        )

    def _scene(self, look: Look) -> Scene:
        return Scene(worker=self._worker, tally=self.tally, look=look)

    def _decode(self, tokens: tuple[int, ...]) -> str:
        return self._worker.tokenizer.decode(list(tokens))
