"""The entry point of ``sglang.srt.plugins``: it makes ``--radix-cache-backend milepost`` known, and nothing
else happens unless that is chosen. SGLang runs it in all of its processes.
"""

from typing import Any

__all__ = ["BACKEND", "register"]

BACKEND = "milepost"


def register() -> None:
    """Register the backend."""
    from sglang.srt.mem_cache.registry import get_radix_cache_factory, register_radix_cache_backend

    if get_radix_cache_factory(BACKEND) is None:
        register_radix_cache_backend(BACKEND, _make_cache)


def _make_cache(ctx: Any) -> Any:
    from milepost.sglang.backend import make_cache

    return make_cache(ctx)
