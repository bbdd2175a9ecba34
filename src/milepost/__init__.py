"""Sparse prefix caching for hybrid and recurrent language models.

    from milepost.engines.transformers.engine import Engine

    engine = Engine.open("Qwen/Qwen3.5-0.8B", capacity="4GiB")
    print(engine.generate("The quick brown fox").text)

Importing this package loads no tensor library, patches nothing and configures no logging.
"""

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
