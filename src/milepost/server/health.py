"""Whether the server serves, for who watches over it; nothing about who asks what."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from milepost.server.faults import StoppedError

__all__ = ["router"]

router = APIRouter()


@router.get("/health", tags=["Operation"], responses={503: {"description": "Nothing is served."}})
async def health(request: Request) -> JSONResponse:
    """Tell whether requests are served."""
    worker = request.app.state.worker
    if worker.stopped is not None:
        fault = StoppedError(worker.stopped).fault
        return JSONResponse(fault.as_openai(), status_code=fault.status, headers=fault.headers)
    return JSONResponse({"status": "ok", "running": worker.num_running, "waiting": worker.num_waiting})
