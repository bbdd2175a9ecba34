"""A body that breaks its schema, as one sentence: which value, which rule, what helps."""

import reprlib
from collections.abc import Sequence
from typing import Any

from milepost.server.faults import Fault

__all__ = ["fault_of_validation"]

_UNKNOWN = "extra_forbidden"


def fault_of_validation(errors: Sequence[Any]) -> Fault:
    """Return the fault of a request that its schema refuses.

    Args:
        errors: As pydantic gives them; the first is told.
    """
    error = errors[0]
    # FastAPI puts before the field where it was: body, query, header, path.
    place, *path = error["loc"]
    # Of a field with alternatives the field itself is what a client knows.
    name = ".".join(str(part) for part in path if not _is_alternative(part))
    if error["type"] in ("json_invalid", "model_attributes_type", "dict_type", "missing") and not name:
        return Fault(
            status=400,
            message=f"the {place} is no JSON object ({error['msg']}); send one, with Content-Type: "
            "application/json",
        )
    if error["type"] == _UNKNOWN:
        return Fault(
            status=400,
            message=f"there is no field {name!r}; leave it out. /openapi.json lists those there are",
            param=name,
            code="unknown_parameter",
        )
    if error["type"] == "missing":
        return Fault(status=400, message=f"{name} is missing; give it", param=name, code="missing_parameter")
    given = _shown(error.get("input"))
    return Fault(status=400, message=f"{name}={given}: {error['msg']}", param=name, code="invalid_value")


def _is_alternative(part: Any) -> bool:
    """Return whether a part of a place is pydantic's name for one of several types."""
    return isinstance(part, str) and ("[" in part or part in ("str", "int", "none", "constrained-str"))


def _shown(value: Any) -> str:
    return reprlib.repr(value).encode(errors="backslashreplace").decode()
