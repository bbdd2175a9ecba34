"""Torch's own switches that change what a model computes: the same weights, other bits.

They belong to the process, and some of them to the thread (autocast). All are read on every look, so each is
one call into C, or nearly.
"""

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["SWITCH_NAMES", "numeric_switches"]

_SWITCHES: dict[str, Callable[[], Any]] = {
    "default dtype": torch.get_default_dtype,
    # The rounding of a CPU's matrix products hangs on how they are split.
    "threads": torch.get_num_threads,
    "deterministic algorithms": torch.are_deterministic_algorithms_enabled,
}
# Torch has no public names for these that are quick to ask and never raise. What a version lacks, it cannot
# switch. Modes that replace functions or operators are told by their number.
_INTERNAL_SWITCHES = {
    "function modes": "_len_torch_function_stack",
    "dispatch modes": "_len_torch_dispatch_stack",
    "float16 sums on CPU": "_get_cpu_allow_fp16_reduced_precision_reduction",
    "float16 sums in matmul": "_get_cublas_allow_fp16_reduced_precision_reduction",
    "bfloat16 sums in matmul": "_get_cublas_allow_bf16_reduced_precision_reduction",
    "float16 accumulation": "_get_cublas_allow_fp16_accumulation",
    "BLAS": "_get_blas_preferred_backend",
    "cuDNN": "_get_cudnn_enabled",
    "cuDNN benchmark": "_get_cudnn_benchmark",
    "cuDNN deterministic": "_get_cudnn_deterministic",
    "oneDNN": "_get_mkldnn_enabled",
    "oneDNN deterministic": "_get_mkldnn_deterministic",
    "NNPACK": "_get_nnpack_enabled",
    "quantized engine": "_get_qengine",
    "flash attention": "_get_flash_sdp_enabled",
    "memory-efficient attention": "_get_mem_efficient_sdp_enabled",
    "plain attention": "_get_math_sdp_enabled",
    "cuDNN attention": "_get_cudnn_sdp_enabled",
    "half sums in attention": "_get_math_sdp_allow_fp16_bf16_reduction",
    "order of attention kernels": "_get_sdp_priority_order",
}
_SWITCHES |= {
    name: read
    for name, attribute in _INTERNAL_SWITCHES.items()
    if (read := getattr(torch._C, attribute, None))
}
# Typed as modules, and classes in truth.
_CUDA: Any = torch.backends.cuda
_CUDNN: Any = torch.backends.cudnn
_ONEDNN: Any = torch.backends.mkldnn
_PRECISIONS: dict[str, Any] = {
    "matmul on CUDA": _CUDA.matmul,
    "convolution on CUDA": _CUDNN.conv,
    "RNN on CUDA": _CUDNN.rnn,
    "matmul on CPU": _ONEDNN.matmul,
    "convolution on CPU": _ONEDNN.conv,
    "RNN on CPU": _ONEDNN.rnn,
}
# What a float32 operation does where nobody has said a word.
_UNSET, _EXACT = "none", "ieee"

SWITCH_NAMES = (
    *_SWITCHES,
    *(f"float32 {name}" for name in _PRECISIONS),
    "autocast",
    "autocast on CPU",
)
_READERS = tuple(_SWITCHES.values())
_BACKENDS = tuple(_PRECISIONS.values())


def numeric_switches(device_type: str) -> tuple[Any, ...]:
    """Return the value of every switch, in the order of ``SWITCH_NAMES``, as it is in this thread.

    Args:
        device_type: Where the model runs; its autocast counts, and the CPU's.
    """
    # With the names of today: the old ones raise once the new ones have been used.
    precisions = [backend.fp32_precision for backend in _BACKENDS]
    return (
        *[tuple(value) if type(value := read()) is list else value for read in _READERS],
        *[_EXACT if precision == _UNSET else precision for precision in precisions],
        _autocast(device_type),
        _autocast("cpu"),
    )


def _autocast(device_type: str) -> str | None:
    if not torch.amp.is_autocast_available(device_type) or not torch.is_autocast_enabled(device_type):
        return None
    return str(torch.get_autocast_dtype(device_type))
