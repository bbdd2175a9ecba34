"""Which engine runs a model: a GGUF file is llama.cpp's, all else is transformers'."""

from pathlib import Path
from typing import Any

from milepost.engines.served_model import ServedModel
from milepost.placement import PlacementPolicy
from milepost.policies import CachePolicy, parse_policy

__all__ = ["checked_policy", "is_gguf", "serve_model"]

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


def serve_model(model: Any, **options: Any) -> ServedModel:
    """Load, probe and measure a model; arguments and errors as in ``Engine.open``."""
    if is_gguf(model):
        from milepost.engines.llamacpp import opening as llamacpp

        served: ServedModel = llamacpp.serve_model(model, **options)
        return served
    from milepost.engines.transformers import opening as transformers

    return transformers.serve_model(model, **options)


def checked_policy(policy: str | CachePolicy | PlacementPolicy) -> CachePolicy | PlacementPolicy:
    """Return a policy given by its name or as an object."""
    return parse_policy(policy) if isinstance(policy, str) else policy
