"""What the engine, the worker and the tally know together; asked of the engine seldom, however many ask."""

from typing import final

from prometheus_client import CollectorRegistry

from milepost.server.faults import StoppedError
from milepost.server.sight.look import Look, look_at
from milepost.server.sight.metrics import Scene, written
from milepost.server.sight.tally import Tally
from milepost.server.worker import Worker

__all__ = ["Observer"]


@final
class Observer:
    """See the module. Belongs to the event loop.

    Args:
        worker: The engine's, which it listens to from now on.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._histograms = CollectorRegistry(auto_describe=False)
        self.tally = Tally(self._histograms)
        self._look: Look | None = None
        worker.listen(self.tally)

    async def scene(self) -> Scene:
        """Return all that is known now. Where the engine has stopped, of its cache what was known last.

        Raises:
            StoppedError: it has, before anyone asked.
        """
        try:
            self._look = await self._worker.call(look_at)
        except StoppedError:
            if self._look is None:
                raise
        return Scene(worker=self._worker, tally=self.tally, look=self._look)

    async def metrics(self, *, accept: str) -> tuple[bytes, str]:
        """Return what a scraper is told, and its content type."""
        return written(await self.scene(), self._histograms, accept=accept)
