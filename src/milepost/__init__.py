"""Sparse prefix caching for hybrid and recurrent language models.

    from milepost.engines.transformers.engine import Engine

    engine = Engine.open("Qwen/Qwen3.5-0.8B", capacity="4GiB")
    print(engine.generate("The quick brown fox").text)

Importing this package loads no tensor library, patches nothing and configures no logging. Each name is
imported when it is first used, since vLLM imports the package in all of its processes to find the plugin.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from milepost.footprint import Footprint
    from milepost.placement import Placement, PlacementPolicy, PlacementRequest
    from milepost.policies import CachePolicy, parse_policy
    from milepost.prefix_cache import PrefixCache

__all__ = [
    "CachePolicy",
    "Footprint",
    "Placement",
    "PlacementPolicy",
    "PlacementRequest",
    "PrefixCache",
    "parse_policy",
]

_HOMES = {
    "CachePolicy": "policies",
    "Footprint": "footprint",
    "Placement": "placement",
    "PlacementPolicy": "placement",
    "PlacementRequest": "placement",
    "PrefixCache": "prefix_cache",
    "parse_policy": "policies",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
