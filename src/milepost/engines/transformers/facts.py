"""What the bits of a model of transformers hang on, in words that the next process finds again.

In memory a model is told by identity (see ``watch``); here by value: every byte of every weight and buffer,
and of what hangs on them (the scales of quantised weights), the configuration, the code, the libraries, the
device, torch's switches and the environment variables that steer its kernels. Two processes with equal facts
compute equal bits; that other facts may do so, too, costs a miss.

*Buffers count*, saved or not. Saving and loading a model gives it the rotary frequencies that its
configuration says; a model that was cast, as by ``model.to(torch.bfloat16)``, has rounded ones, and
computes other bits from the same weights.

*So does where a weight lies* within 64 bytes, which is where its file puts it. No case is known in which it
changes a bit (``tests/engines/transformers/test_facts.py``), and some BLAS reserve the right.
"""

import hashlib
import os
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson
import torch
import transformers
import xxhash

from milepost.disk import ModelFacts
from milepost.engines.cuts import Cuts
from milepost.engines.prefill import Numerics
from milepost.engines.transformers.code_digest import code_digest
from milepost.engines.transformers.driver import TransformersDriver
from milepost.engines.transformers.watch.inventory import Inventory, Role
from milepost.engines.transformers.watch.numeric_switches import SWITCH_NAMES, numeric_switches
from milepost.engines.transformers.watch.plain import by_value
from milepost.errors import UnsupportedModelError

__all__ = ["model_facts", "whole_weights_digest"]

# Libraries whose kernels take the place of transformers' own where they are installed.
_KERNEL_LIBRARIES = (
    "causal-conv1d", "flash-attn", "flash-linear-attention", "kernels", "mamba-ssm", "torchao", "triton",
    "bitsandbytes", "accelerate", "numpy", "safetensors",
)  # fmt: skip
# Environment variables that choose kernels, or how they round.
_VARIABLES = (
    "ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG", "DNNL_MAX_CPU_ISA", "KMP_DETERMINISTIC_REDUCTION",
    "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "MKL_NUM_THREADS", "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE", "ONEDNN_MAX_CPU_ISA", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)  # fmt: skip
_ALIGNMENT = 64
# Entries of a configuration that say where it comes from.
_NOTES = frozenset({"_name_or_path", "name_or_path", "_commit_hash", "transformers_version", "architectures"})


def model_facts(
    driver: TransformersDriver,
    inventory: Inventory,
    *,
    name: str,
    numerics: Numerics,
    cuts: Cuts,
    segment_tokens: int,
) -> ModelFacts:
    """Return what states of this model, in this engine and on this machine, hang on.

    Args:
        driver: Runs the model.
        inventory: Of the model.
        name: How people call it.
        numerics: What a warm run promises.
        cuts: Where prompts are cut.
        segment_tokens: Where KV is.

    Raises:
        UnsupportedModelError: its weights are not plain numbers.

    Complexity: O(bytes of weights); about 0.15 seconds a GB.
    """
    model = driver.model
    text_config = model.config.get_text_config(decoder=True)
    facts = {
        "engine": "transformers",
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "weights": whole_weights_digest(model, inventory),
        "code": code_digest(model),
        "config": _digest(_config(model.config.to_dict())),
        "dtype": str(model.dtype),
        "attention": str(text_config._attn_implementation),
        "experts": str(getattr(text_config, "_experts_implementation", None)),
        "numerics": str(numerics),
        "cuts": f"every {cuts.every}, grid {cuts.grid}, least {cuts.least}"
        + (f", states inside from {cuts.inside_from}" if cuts.are_states_inside else ""),
        "segment_tokens": str(segment_tokens),
        **_library_facts(),
        **_machine_facts(model.device),
    }
    switches = zip(SWITCH_NAMES, numeric_switches(model.device.type), strict=True)
    facts |= {f"torch's {switch}": str(value) for switch, value in switches}
    facts |= {variable: os.environ[variable] for variable in _VARIABLES if variable in os.environ}
    return ModelFacts(name=name, facts=facts)


def whole_weights_digest(model: torch.nn.Module, inventory: Inventory) -> str:
    """Digest every byte of every parameter and buffer, how it is laid out, and where it lies within 64 bytes;
    and the same of all that these are made into numbers by, as the scales of quantised weights.

    Raises:
        UnsupportedModelError: one of them is not plain numbers.
    """
    hasher = xxhash.xxh3_128()
    for name, tensor in _tensors(model, inventory):
        if type(tensor.data) is not torch.Tensor or tensor.is_meta or tensor.is_quantized:
            raise UnsupportedModelError(
                f"{name} is a {type(tensor.data).__qualname__}, whose numbers cannot all be read, so the "
                "model has no identity that outlives this process"
            )
        place = tensor.data_ptr() % _ALIGNMENT if tensor.numel() else 0
        said = (name, str(tensor.dtype), tuple(tensor.shape), tensor.stride(), str(tensor.device), place)
        hasher.update(repr(said).encode())
        hasher.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    hasher.update(repr(sorted(_values(model, inventory))).encode())
    return hasher.hexdigest()


def _tensors(model: torch.nn.Module, inventory: Inventory) -> Iterator[tuple[str, torch.Tensor]]:
    beside = inventory.beside(model)
    named = [(f"{path}.{key}", tensor) for (path, key), tensor in beside.items()]
    yield from sorted((*model.named_parameters(), *model.named_buffers(), *named), key=lambda each: each[0])


def _values(model: torch.nn.Module, inventory: Inventory) -> Iterator[tuple[str, str]]:
    """Yield what stands beside such tensors and is told by its value, as how many of them share a scale."""
    paths = {path for path, _ in inventory.beside(model)}
    for container in inventory.containers:
        if container.path in paths and container.role is not Role.MODULE:
            for key, value in container.items():
                if (words := by_value(value)) is not None:
                    yield f"{container.path}.{key}", words


def _library_facts() -> dict[str, str]:
    facts = {
        "milepost": metadata.version("milepost"),
        "torch": torch.__version__,
        "torch's build": _digest(torch.__config__.show().encode()),
        "transformers": transformers.__version__,
    }
    for library in _KERNEL_LIBRARIES:
        try:
            facts[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            facts[library] = "not installed"
    return facts


def _machine_facts(device: torch.device) -> dict[str, str]:
    facts = {
        "device": device.type,
        "CPU": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {_digest(_processor())}",
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts["GPU"] = f"{properties.name} {properties.major}.{properties.minor}"
        facts["CUDA"] = f"{torch.version.cuda} {torch.version.hip} cuDNN {torch.backends.cudnn.version()}"
    return facts


def _processor() -> bytes:
    """Return the model and the abilities of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return platform.processor().encode()
    told = {line.partition(b":")[0].strip(): line for line in reversed(lines)}
    return b"\n".join(
        told[name] for name in (b"model name", b"flags", b"Features", b"CPU part") if name in told
    )


def _config(values: dict[str, Any]) -> bytes:
    """Return a configuration's entries but for notes on where it comes from."""
    kept = {name: value for name, value in values.items() if name not in _NOTES}
    for name, value in kept.items():
        if isinstance(value, dict):
            kept[name] = _config(value).decode()
    return orjson.dumps(kept, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
