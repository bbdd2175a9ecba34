"""How an application is watched: every request is told of, and there are paths for who looks."""

from fastapi import FastAPI

from milepost.server.settings import ServeSettings
from milepost.server.sight.logs import log_record
from milepost.server.sight.observer import Observer
from milepost.server.sight.paths import router
from milepost.server.sight.record import Record
from milepost.server.sight.stories import Stories
from milepost.server.worker import Worker

__all__ = ["let_watch"]


def let_watch(app: FastAPI, worker: Worker, settings: ServeSettings) -> None:
    """Join what watches to an application, before the middleware that gives requests their ids."""
    observer = Observer(worker, settings, started=app.state.started)

    def tell(record: Record) -> None:
        observer.tally.note_record(record)
        log_record(record)

    app.state.observer = observer
    app.include_router(router)
    app.add_middleware(Stories, on_end=tell)
