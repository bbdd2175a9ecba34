"""A body that breaks its schema, as one sentence: which value, which rule, what helps."""

import reprlib
from collections.abc import Sequence
from typing import Any, get_args

from milepost.server.faults import Fault

__all__ = ["fault_of_validation"]

_UNKNOWN = "extra_forbidden"
# What fields say that are there to refuse all but one value by name.
_ONE_VALUE = ("none_required", "literal_error")


def fault_of_validation(errors: Sequence[Any], *, body: Any = None) -> Fault:
    """Return the fault of a request that its schema refuses.

    Args:
        errors: As pydantic gives them; the first is told.
        body: The model of the body; its description of a field that takes one value says why.
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
    message = f"{name}={_shown(error.get('input'))}: {error['msg']}"
    why = _why(body, path) if error["type"] in _ONE_VALUE else None
    return Fault(
        status=400, message=f"{message}. {why}" if why else message, param=name, code="invalid_value"
    )


def _why(body: Any, path: Sequence[Any]) -> str | None:
    """Return what the schema says of the field at a place, or of the one that it is in."""
    found = None
    for part in path:
        fields = getattr(body, "model_fields", None)
        if fields is None or part not in fields:
            break
        found = fields[part].description or found
        # Of an optional field, the one model that it may be.
        kinds = [fields[part].annotation, *get_args(fields[part].annotation)]
        body = next((kind for kind in kinds if hasattr(kind, "model_fields")), None)
    return found


def _is_alternative(part: Any) -> bool:
    """Return whether a part of a place is pydantic's name for one of several types."""
    return isinstance(part, str) and ("[" in part or part in ("str", "int", "none", "constrained-str"))


def _shown(value: Any) -> str:
    return reprlib.repr(value).encode(errors="backslashreplace").decode()
