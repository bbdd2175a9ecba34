"""Sparse prefix caching for hybrid and recurrent language models.

    from milepost import Engine

    engine = Engine.open("Qwen/Qwen3.5-0.8B", capacity="4GiB")
    print(engine.generate("The quick brown fox").text)

Importing this package loads no tensor library, patches nothing and configures no logging. Each name is
imported when it is first used, since vLLM imports the package in all of its processes to find the plugin.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from milepost.accounting import RequestReport
    from milepost.engines.engine import Engine
    from milepost.errors import (
        AuditError,
        CacheCorruptionError,
        CapacityError,
        ConcurrentUseError,
        ConfigurationError,
        ContextLengthError,
        EngineError,
        InvalidRequestError,
        KernelCacheWarning,
        MilepostError,
        MilepostWarning,
        MissingExtraError,
        ModelChangedError,
        ModelLoadError,
        TraceFormatError,
        UnsupportedModelError,
    )
    from milepost.footprint import Footprint
    from milepost.hosted_cache import HostedCache
    from milepost.lease import Lease
    from milepost.placement import Placement, PlacementPolicy, PlacementRequest
    from milepost.policies import CachePolicy, parse_policy
    from milepost.prefix_cache import PrefixCache
    from milepost.simulator import simulate
    from milepost.store import ContentlessPayloads, EvictionPolicy, PayloadSource
    from milepost.traces import open_trace

__all__ = [
    "AuditError",
    "CacheCorruptionError",
    "CachePolicy",
    "CapacityError",
    "ConcurrentUseError",
    "ConfigurationError",
    "ContentlessPayloads",
    "ContextLengthError",
    "Engine",
    "EngineError",
    "EvictionPolicy",
    "Footprint",
    "HostedCache",
    "InvalidRequestError",
    "KernelCacheWarning",
    "Lease",
    "MilepostError",
    "MilepostWarning",
    "MissingExtraError",
    "ModelChangedError",
    "ModelLoadError",
    "PayloadSource",
    "Placement",
    "PlacementPolicy",
    "PlacementRequest",
    "PrefixCache",
    "RequestReport",
    "TraceFormatError",
    "UnsupportedModelError",
    "open_trace",
    "parse_policy",
    "simulate",
]

# What is not here is an error of milepost.errors.
_HOMES = {
    "CachePolicy": "policies",
    "ContentlessPayloads": "store",
    "Engine": "engines.engine",
    "EvictionPolicy": "store",
    "Footprint": "footprint",
    "HostedCache": "hosted_cache",
    "Lease": "lease",
    "PayloadSource": "store",
    "Placement": "placement",
    "PlacementPolicy": "placement",
    "PlacementRequest": "placement",
    "PrefixCache": "prefix_cache",
    "RequestReport": "accounting",
    "open_trace": "traces",
    "parse_policy": "policies",
    "simulate": "simulator",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
