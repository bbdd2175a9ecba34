"""What other engines and papers do, as cache policies: each with its own placement and eviction."""

from milepost.policies.peers.clairvoyant import clairvoyant
from milepost.policies.peers.llamacpp import SpacedMessageEnds
from milepost.policies.peers.marconi import marconi
from milepost.policies.peers.mlx import mlx
from milepost.policies.peers.sglang import sglang
from milepost.policies.peers.tensorrt import tensorrt
from milepost.policies.peers.vllm import vllm

__all__ = ["SpacedMessageEnds", "clairvoyant", "marconi", "mlx", "sglang", "tensorrt", "vllm"]
