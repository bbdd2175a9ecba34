"""The engines that a log can be turned into settings for: one file each, one table."""

from collections.abc import Mapping
from types import MappingProxyType

from milepost.recommend.engine import EngineKind
from milepost.recommend.engines.llamacpp import LLAMA_CPP
from milepost.recommend.engines.milepost import MILEPOST
from milepost.recommend.engines.milepost_sglang import MILEPOST_SGLANG
from milepost.recommend.engines.milepost_vllm import MILEPOST_VLLM
from milepost.recommend.engines.mlx import MLX
from milepost.recommend.engines.sglang import SGLANG
from milepost.recommend.engines.tensorrt import TENSORRT
from milepost.recommend.engines.vllm import VLLM

__all__ = ["ENGINES"]

ENGINES: Mapping[str, EngineKind] = MappingProxyType(
    {
        "milepost-vllm": MILEPOST_VLLM,
        "milepost-sglang": MILEPOST_SGLANG,
        "milepost": MILEPOST,
        "vllm": VLLM,
        "sglang": SGLANG,
        "tensorrt": TENSORRT,
        "llamacpp": LLAMA_CPP,
        "mlx": MLX,
    }
)
