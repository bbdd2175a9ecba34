"""Which engine runs a model: a GGUF file is llama.cpp's, all else is transformers'."""

from pathlib import Path
from typing import Any

from milepost.engines.served_model import ServedModel
from milepost.errors import ConfigurationError
from milepost.placement import PlacementPolicy
from milepost.policies import CachePolicy, parse_policy

__all__ = ["checked_policy", "is_gguf", "refuse_kv_types", "serve_model"]

_MAGIC = b"GGUF"


def is_gguf(model: object) -> bool:
    """Return whether ``model`` names a file in llama.cpp's format, whether or not there is one."""
    if not isinstance(model, str | Path):
        return False
    path = Path(model)
    if path.suffix.lower() == ".gguf":
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def serve_model(
    model: Any, *, key_type: str | None = None, value_type: str | None = None, **options: Any
) -> ServedModel:
    """Load, probe and measure a model; arguments and errors as in ``Engine.open``."""
    if is_gguf(model):
        from milepost.engines.llamacpp import opening as llamacpp

        served: ServedModel = llamacpp.serve_model(model, key_type=key_type, value_type=value_type, **options)
        return served
    refuse_kv_types(key_type=key_type, value_type=value_type)
    from milepost.engines.transformers import opening as transformers

    return transformers.serve_model(model, **options)


def refuse_kv_types(**kv_types: str | None) -> None:
    """Refuse compressed KV of any other model than a GGUF file's.

    Raises:
        ConfigurationError: one is given.
    """
    for name, kind in kv_types.items():
        if kind is not None:
            raise ConfigurationError(
                f"{name}={kind!r} is for a GGUF file, which llama.cpp runs; transformers' caches are kept as "
                "the model computes them, since its quantised ones compress a prompt's tokens by what comes "
                "after them, and no hybrid model can have them: convert the model, or leave it out"
            )


def checked_policy(policy: str | CachePolicy | PlacementPolicy) -> CachePolicy | PlacementPolicy:
    """Return a policy given by its name or as an object."""
    return parse_policy(policy) if isinstance(policy, str) else policy
