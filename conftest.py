"""What a checkout without vLLM or SGLang cannot import: ``make vllm-test`` and ``sglang-test`` run it."""

from importlib.util import find_spec

_NEEDS = {
    "vllm": (
        "attention_manager",
        "cache_kinds",
        "compatibility",
        "connectors",
        "event_publisher",
        "metrics",
        "plugin",
        "scheduler",
        "state_manager",
        "tier_policy",
    ),
    "sglang": ("backend", "compatibility", "hooks", "planned_cache", "plugin", "ranks"),
}


def _is_installed(name: str) -> bool:
    # A folder of that name, as tests/vllm, is no vLLM.
    found = find_spec(name)
    return found is not None and found.origin is not None


collect_ignore = [
    f"src/milepost/{engine}/{module}.py"
    for engine, modules in _NEEDS.items()
    if not _is_installed(engine)
    for module in modules
]
