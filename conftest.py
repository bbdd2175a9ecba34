"""What a checkout without vLLM cannot import: its tests run with ``make vllm-test``."""

from importlib.util import find_spec

_NEEDS_VLLM = ("compatibility", "managers", "metrics", "plugin", "scheduler")
collect_ignore = [f"src/milepost/vllm/{name}.py" for name in _NEEDS_VLLM] if find_spec("vllm") is None else []
