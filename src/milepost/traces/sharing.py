"""Who may share with whom: the model and the adapter that served a request, and the salt of its tenant.

A state belongs to one model with one adapter, so requests whose model or adapter differ share nothing; and a
server keeps prompts of different salts apart. All of it becomes one tenant, the mechanism that the cache has
for that. Every layer of a line counts (what a gateway wrote around the body, and the body), because an alias
in one may stand for two models in the other. A line that names no model is of a model of its own: nobody
knows that it is one of the others.

``prompt_cache_key`` separates nothing: it routes requests to a machine, and equal prefixes are shared there.
"""

import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from milepost.errors import InvalidRequestError
from milepost.traces.fields import Record, plain_name, text

__all__ = ["Sharing", "sharing_of"]

# As plain_name() writes them.
_MODEL_NAMES = frozenset(
    (
        *("model", "modelname", "modelid", "modelgroup", "modelversion", "modelrevision", "deployment"),
        *("deploymentid", "deploymentname", "servedmodelname", "genairequestmodel", "llmmodelname"),
        *("servedmodel", "modelpath", "modeluri", "modelarn", "modeltag", "modelkey", "modelalias"),
        *("enginemodel", "basemodel", "basemodelname", "targetmodel", "upstreammodel", "requestmodel"),
        *("requestedmodel", "resolvedmodel", "actualmodel"),
    )
)
_ADAPTER_NAMES = frozenset(
    (
        *("lora", "loraname", "loraid", "loraintid", "lorapath", "lorarequest", "loraadapter", "lorauid"),
        *("adapter", "adaptername", "adapterid", "adapters", "peft", "peftname", "loras", "loraconfig"),
        *("loraadaptername", "loraadapterid", "loraadapters", "loramodel", "loramodelname", "loramodule"),
        *("loramodules", "loraweights", "adapterpath", "activeadapter", "activeadapters", "adaptermodel"),
    )
)
_SALT_NAMES = ("cache_salt", "cacheSalt", "extra_key", "tenant", "tenant_id", "tenantId")
# Objects of labels that lie beside a body.
_BESIDE = (
    *("metadata", "extra_body", "extra", "labels", "properties", "model_parameters", "modelParameters"),
    *("optional_params", "litellm_params", "model_info", "invocation_params", "attributes", "context"),
)
_NO_ADAPTER = frozenset(("", "0", "none", "null", "false", "[]", "{}"))


@dataclass(frozen=True, slots=True)
class Sharing:
    """Attributes:
    tenant: Requests of different tenants share nothing; the salt itself where no model is named.
    model: The model and adapter, for people; empty where none is named.
    salt: What the server keeps it apart by, beside its model; empty where nothing is said.
    """

    tenant: str
    model: str
    salt: str


def sharing_of(layers: Sequence[Record], response: Record | None = None) -> Sharing:
    """Return who a request shares with.

    Args:
        layers: The line and what lies in it, outermost first.
        response: The logged answer; its model counts where no layer names one.

    Raises:
        InvalidRequestError: a salt is no string, or a model's name no name.
    """
    fields = [(layer, _telling(tuple(layer))) for layer in layers]
    salts = _distinct(text(layer, name) for layer, telling in fields for name in telling.salts)
    # A label of the line can name the model; what a server keeps apart by is in the request alone.
    beside = [layer[name] for layer, telling in fields for name in telling.beside]
    fields += [(labels, _telling(tuple(labels))) for labels in beside if isinstance(labels, dict)]
    models = _distinct(_label(name, layer[name]) for layer, telling in fields for name in telling.models)
    if not models and response is not None:
        models = _distinct(_label(name, response[name]) for name in _telling(tuple(response)).models)
    adapters = _distinct(_label(name, layer[name]) for layer, telling in fields for name in telling.adapters)
    adapters = [name for name in adapters if name.lower() not in _NO_ADAPTER]
    if not models and not adapters and len(salts) < 2:
        return Sharing(tenant=salts[0] if salts else "", model="", salt=" / ".join(salts))
    tenant = orjson.dumps({"cache_salt": salts, "model": models, "adapter": adapters}).decode()
    model = " + ".join((" / ".join(models) or "(no model)", *adapters))
    return Sharing(tenant=tenant, model=model, salt=" / ".join(salts))


@dataclass(frozen=True, slots=True)
class _Telling:
    """Which fields of a layer say who serves a request."""

    models: tuple[str, ...]
    adapters: tuple[str, ...]
    salts: tuple[str, ...]
    beside: tuple[str, ...]


@lru_cache(maxsize=1024)
def _telling(fields: tuple[str, ...]) -> _Telling:
    """Return them by name; the lines of a log have the same fields."""
    return _Telling(
        models=tuple(field for field in fields if plain_name(field) in _MODEL_NAMES),
        adapters=tuple(field for field in fields if plain_name(field) in _ADAPTER_NAMES),
        salts=tuple(name for name in _SALT_NAMES if name in fields),
        beside=tuple(name for name in _BESIDE if name in fields),
    )


def _distinct(values: Iterable[str | None]) -> list[str]:
    """Return what is said, in its order, each once."""
    return list(dict.fromkeys(value for value in values if value))


def _label(field: str, value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    if value is None or value is False:
        return ""
    try:
        # An adapter is often an object with a name, a number and a path: as a whole it says which.
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode() if value not in ([], {}) else ""
    except orjson.JSONEncodeError as error:
        raise InvalidRequestError(f"{field}={reprlib.repr(value)} is no name; give a string") from error
