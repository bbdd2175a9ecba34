"""From a path, a hub id or a model in memory to a model that can be run, or an error that says why not."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from milepost.engines.transformers.text import Tokenizer
from milepost.errors import ConfigurationError, ModelLoadError

__all__ = ["OpenedModel", "load_model"]

_DTYPES = {
    "auto": "auto",
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """A model in evaluation mode and its tokenizer, where it has one."""

    model: PreTrainedModel
    tokenizer: Tokenizer | None
    name: str


def load_model(
    source: str | Path | PreTrainedModel,
    *,
    tokenizer: Tokenizer | None = None,
    dtype: str = "auto",
    device: str | None = None,
    revision: str | None = None,
) -> OpenedModel:
    """Open a causal language model.

    Args:
        source: A folder with ``config.json`` and safetensors, a hub id, or a model in memory (used as it is,
            in evaluation mode).
        tokenizer: Replaces the one that lies beside the model.
        dtype: ``auto`` (as stored), ``float32``, ``bfloat16`` or ``float16``.
        device: Where it runs; ``cuda`` where there is one, else ``cpu``.
        revision: Branch, tag or commit of a hub id.

    Raises:
        ConfigurationError: the dtype or the device is unknown.
        ModelLoadError: there is no such model, it is no causal language model, or its files are damaged.
    """
    if isinstance(source, PreTrainedModel):
        return OpenedModel(model=source.eval(), tokenizer=tokenizer, name=source.config.model_type)
    if dtype not in _DTYPES:
        raise ConfigurationError(f"dtype={dtype!r}; give one of {', '.join(_DTYPES)}")
    path = Path(source)
    if path.exists():
        _check_folder(path)
    try:
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        # Only safetensors: a pickle runs code.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(source), dtype=_DTYPES[dtype], revision=revision, use_safetensors=True
        )
        model: PreTrainedModel = loaded.to(where).eval()
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelLoadError(f"cannot open model {str(source)!r}: {_first_line(error)}") from error
    return OpenedModel(
        model=model,
        tokenizer=tokenizer or _load_tokenizer(source, revision),
        name=path.name,
    )


def _check_folder(path: Path) -> None:
    """Name damage that transformers would report in many lines or not at all."""
    config = path / "config.json"
    if not config.is_file():
        raise ModelLoadError(
            f"{path} has no config.json; give the folder of a transformers model, or a hub id"
        )
    try:
        json.loads(config.read_text())
    except ValueError as error:
        raise ModelLoadError(f"{config} is not valid JSON ({error}); download it again") from error
    for shard in sorted(path.glob("*.safetensors")):
        _check_shard(shard)


def _check_shard(shard: Path) -> None:
    """A safetensors file says in its header how long it must be."""
    with shard.open("rb") as stream:
        size = shard.stat().st_size
        header_length = int.from_bytes(stream.read(8), "little")
        try:
            if size < 8 + header_length:
                raise ValueError("its header is cut off")
            header = json.loads(stream.read(header_length))
            header.pop("__metadata__", None)
            needed = 8 + header_length + max((t["data_offsets"][1] for t in header.values()), default=0)
        except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
            raise ModelLoadError(
                f"{shard} is not a whole safetensors file ({error}); copy it again"
            ) from error
    if size < needed:
        raise ModelLoadError(f"{shard} is truncated: {size:,} of {needed:,} bytes; copy it again")


def _load_tokenizer(source: str | Path, revision: str | None) -> Tokenizer | None:
    try:
        AutoConfig.from_pretrained(str(source), revision=revision)
        return cast(Any, AutoTokenizer.from_pretrained(str(source), revision=revision))
    except (OSError, ValueError, KeyError, ImportError):
        return None


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
