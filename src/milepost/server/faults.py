"""What can go wrong with a request, as clients of either API expect to be told."""

from dataclasses import dataclass
from typing import Any

from milepost.errors import (
    AuditError,
    ContextLengthError,
    EngineError,
    InvalidRequestError,
    MilepostError,
    ModelChangedError,
    UnsupportedModelError,
)

__all__ = ["BusyError", "Fault", "RefusedError", "StoppedError", "fault_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """An answer that is an error.

    Attributes:
        status: Of HTTP.
        message: What is wrong, which rule it breaks, and what helps.
        kind: The error's type: OpenAI's names; Anthropic's follow from the status.
        code: A name that programs look at.
        param: The field that is wrong.
        retry_after_seconds: When to ask again.
        challenge: How a client may say who it is, where it has not.
    """

    status: int
    message: str
    kind: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    retry_after_seconds: int | None = None
    challenge: str = "Bearer"

    @property
    def headers(self) -> dict[str, str]:
        """Headers that belong to it."""
        if self.status == 401:
            return {"WWW-Authenticate": self.challenge}
        if self.retry_after_seconds is None:
            return {}
        return {"Retry-After": str(self.retry_after_seconds)}

    def as_openai(self) -> dict[str, Any]:
        """Return it in OpenAI's shape."""
        inner = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": inner}

    def as_anthropic(self, request_id: str) -> dict[str, Any]:
        """Return it in Anthropic's shape."""
        kinds = {
            400: "invalid_request_error",
            401: "authentication_error",
            403: "permission_error",
            404: "not_found_error",
            413: "request_too_large",
            429: "rate_limit_error",
            503: "overloaded_error",
        }
        kind = kinds.get(self.status, "api_error" if self.status >= 500 else "invalid_request_error")
        return {
            "type": "error",
            "error": {"type": kind, "message": self.message},
            "request_id": request_id,
        }


class RefusedError(Exception):
    """A request that is answered with a fault."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def refused(message: str, *, param: str | None = None) -> RefusedError:
    """Return the fault of a request that breaks a rule.

    Args:
        message: The value, the rule, the remedy.
        param: The field.
    """
    return RefusedError(Fault(status=400, message=message, param=param, code="invalid_value"))


class BusyError(RefusedError):
    """The queue is full."""

    def __init__(self, *, num_waiting: int, retry_after_seconds: int) -> None:
        super().__init__(
            Fault(
                status=429,
                message=f"{num_waiting} requests wait already, which is the most that do; ask again in "
                f"{retry_after_seconds} s, or raise --max-queue",
                kind="rate_limit_error",
                code="queue_full",
                retry_after_seconds=retry_after_seconds,
            )
        )


class StoppedError(RefusedError):
    """The server takes no requests any more, or not yet."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            Fault(status=503, message=reason, kind="server_error", code="not_serving", retry_after_seconds=5)
        )


def fault_of(error: BaseException) -> Fault:
    """Return what a client is told of ``error``. What is not its own doing says nothing of the inside."""
    if isinstance(error, RefusedError):
        return error.fault
    if isinstance(error, InvalidRequestError):
        is_too_long = isinstance(error, ContextLengthError)
        return Fault(status=400, message=str(error), code="context_length_exceeded" if is_too_long else None)
    if isinstance(error, ModelChangedError | AuditError):
        return Fault(
            status=503, message=str(error), kind="server_error", code="model_changed", retry_after_seconds=1
        )
    if isinstance(error, UnsupportedModelError | EngineError):
        return Fault(status=503, message=str(error), kind="server_error", code="model_unavailable")
    if isinstance(error, MilepostError):
        return Fault(status=500, message=str(error), kind="server_error", code="engine_error")
    return Fault(
        status=500,
        message="the server failed at this request, and goes on; its log says how, under the request's id",
        kind="server_error",
        code="internal_error",
    )
