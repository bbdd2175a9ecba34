"""What a checkout without vLLM cannot import: its tests run with ``make vllm-test``."""

from importlib.util import find_spec

_NEEDS_VLLM = ("cache_kinds", "compatibility", "managers", "metrics", "plugin", "scheduler")
_vllm = find_spec("vllm")
# A folder of that name, as tests/vllm, is no vLLM.
_is_installed = _vllm is not None and _vllm.origin is not None
collect_ignore = [] if _is_installed else [f"src/milepost/vllm/{name}.py" for name in _NEEDS_VLLM]
