"""From a path, a hub id or a model in memory to a model that can be run, or an error that says why not."""

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as progress

from milepost.engines.text import Tokenizer
from milepost.engines.transformers.unwrapping import check_weights, unwrapped
from milepost.errors import ConfigurationError, ModelLoadError
from milepost.hub import uses_only_local_files

__all__ = ["OpenedModel", "load_config", "load_model"]

_DTYPES = {
    "auto": "auto",
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


_TOKENIZER_FILES = ("tokenizer*", "*vocab*", "merges.txt", "*.model", "*.tiktoken")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """A model in evaluation mode and its tokenizer, where it has one."""

    model: PreTrainedModel
    tokenizer: Tokenizer | None
    name: str
    revision: str | None


def load_model(
    source: str | Path | torch.nn.Module,
    *,
    tokenizer: Tokenizer | None = None,
    dtype: str = "auto",
    device: str | None = None,
    revision: str | None = None,
) -> OpenedModel:
    """Open a causal language model.

    Args:
        source: A folder with ``config.json`` and safetensors, a hub id, or a model in memory, which is used
            as it is and put in evaluation mode; of a wrapper around one, the model inside.
        tokenizer: Replaces the one that lies beside the model.
        dtype: ``auto`` (as stored), ``float32``, ``bfloat16`` or ``float16``.
        device: Where it runs; ``cuda`` where there is one, else ``cpu``.
        revision: Branch, tag or commit of a hub id.

    Raises:
        ConfigurationError: the dtype or the device is unknown, an option cannot apply to this source, or the
            source is no model at all.
        UnsupportedModelError: a wrapper does more than the model inside it, or the weights are not there.
        ModelLoadError: there is no such model, it is no causal language model, or its files are damaged.
    """
    if not isinstance(source, str | os.PathLike):
        _refuse_options(dtype=dtype if dtype != "auto" else None, device=device, revision=revision)
        in_memory = unwrapped(source)
        check_weights(in_memory)
        return OpenedModel(
            model=in_memory,
            tokenizer=tokenizer,
            name=in_memory.config.model_type,
            revision=_commit(in_memory),
        )
    if dtype not in _DTYPES:
        raise ConfigurationError(f"dtype={dtype!r}; give one of {', '.join(_DTYPES)}")
    where = _checked_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if not str(source):
        raise ConfigurationError("model is an empty string; give a folder, a hub id or a model")
    path = Path(source)
    is_local = uses_only_local_files(source, revision=revision)
    if path.exists():
        if revision is not None:
            raise ConfigurationError(
                f"revision={revision!r}, but {path} is a folder, and only a hub id has revisions"
            )
        _check_folder(path)
    try:
        # Only safetensors: a pickle runs code.
        config = AutoConfig.from_pretrained(str(source), revision=revision, local_files_only=is_local)
        options = {
            "dtype": _DTYPES[dtype],
            "revision": revision,
            "use_safetensors": True,
            "local_files_only": is_local,
        }
        # Some layers draw their first weights before they are given the stored ones.
        with torch.random.fork_rng(devices=[]), _progress_for_watchers():
            loaded: Any = _auto_class(config).from_pretrained(
                str(source), **options, output_loading_info=True, ignore_mismatched_sizes=True
            )
        model: PreTrainedModel = loaded[0].eval()
        # Some quantised models may not be moved, not even to where they are.
        if model.device != where:
            model = loaded[0].to(where)
    except Exception as error:  # whatever a broken configuration makes a model's own code raise
        raise ModelLoadError(f"cannot open model {str(source)!r}: {_first_line(error)}") from error
    # What was not read would be random numbers.
    if mismatched := sorted(str(key[0]) for key in loaded[1]["mismatched_keys"]):
        raise ModelLoadError(
            f"{str(source)!r}: {len(mismatched)} weights, such as {mismatched[0]}, have another shape than "
            "config.json says; they do not belong together: download both again"
        )
    if missing := sorted(loaded[1]["missing_keys"]):
        raise ModelLoadError(
            f"{str(source)!r} lacks {len(missing)} of the weights of {type(model).__name__}, such as "
            f"{missing[0]}; give a whole model, with its language-model head"
        )
    return OpenedModel(
        model=model,
        tokenizer=tokenizer or _load_tokenizer(source, revision, is_local),
        name=path.name,
        revision=_commit(model) or revision,
    )


def load_config(source: str | Path, *, revision: str | None = None) -> PreTrainedConfig:
    """Open the configuration of a model without its weights.

    Raises:
        ModelLoadError: there is none, or it is damaged.
    """
    is_local = uses_only_local_files(source, revision=revision)
    try:
        return AutoConfig.from_pretrained(str(source), revision=revision, local_files_only=is_local)
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        raise ModelLoadError(
            f"cannot open the configuration of {str(source)!r}: {_first_line(error)}"
        ) from error


@contextmanager
def _progress_for_watchers() -> Iterator[None]:
    """Show the bar of loading weights on a terminal only: in a file or a pipe it would stand as text."""
    shown = progress.is_progress_bar_enabled()
    if not sys.stderr.isatty():
        progress.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            progress.enable_progress_bar()


def _auto_class(config: PreTrainedConfig) -> Any:
    """Return what opens a model for text: some families have only a class that also takes images."""
    is_language_model = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    takes_images = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    return AutoModelForImageTextToText if takes_images and not is_language_model else AutoModelForCausalLM


def _refuse_options(**options: str | None) -> None:
    for name, value in options.items():
        if value is not None:
            raise ConfigurationError(
                f"{name}={value!r} cannot apply to a model that is in memory; change the model, or give its "
                "folder or hub id"
            )


def _commit(model: PreTrainedModel) -> str | None:
    """Return the commit that a hub says the model is of."""
    return getattr(model.config, "_commit_hash", None)


def _checked_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigurationError(f"device={name!r} cannot be used: {_first_line(error)}") from error
    return device


def _check_folder(path: Path) -> None:
    """Name damage that transformers would report in many lines or not at all."""
    config = path / "config.json"
    if path.is_file():
        owner = "; GGUF files are llama.cpp's" if path.suffix == ".gguf" else ""
        raise ModelLoadError(f"{path} is a file{owner}; give the folder of a transformers model, or a hub id")
    if not config.is_file() and (path / "adapter_config.json").is_file():
        raise ModelLoadError(
            f"{path} holds an adapter{_base_of(path)} and no model; load it with peft's "
            "AutoPeftModelForCausalLM.from_pretrained and give what that returns, or merge it and save the "
            "whole model"
        )
    if not config.is_file():
        raise ModelLoadError(
            f"{path} has no config.json; give the folder of a transformers model, or a hub id"
        )
    try:
        json.loads(config.read_text())
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{config} is not valid JSON ({error}); download it again") from error
    for shard in sorted(path.glob("*.safetensors")):
        _check_shard(shard)


def _base_of(adapter: Path) -> str:
    """Name the model that an adapter is for, where it says so."""
    try:
        base = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return f" for {base}" if base else ""


def _check_shard(shard: Path) -> None:
    """A safetensors file says in its header how long it must be; opening it reads no more than that."""
    try:
        with safe_open(shard, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise ModelLoadError(
            f"{shard} is not a whole safetensors file ({_first_line(error)}); copy it again"
        ) from error


def _load_tokenizer(source: str | Path, revision: str | None, is_local: bool) -> Tokenizer | None:
    """Return the tokenizer beside the model, None where there is none."""
    folder = Path(source)
    if folder.exists() and not any(any(folder.glob(pattern)) for pattern in _TOKENIZER_FILES):
        return None
    try:
        tokenizer = cast(
            Any, AutoTokenizer.from_pretrained(str(source), revision=revision, local_files_only=is_local)
        )
    except Exception as error:  # tokenizers raise plain Exceptions
        if folder.exists():
            raise ModelLoadError(f"the tokenizer in {folder} cannot be read: {_first_line(error)}") from error
        _log.warning("%s: no tokenizer, so prompts must be token ids: %s", source, _first_line(error))
        return None
    # Where there are no files, transformers makes one up that knows its special tokens and nothing else.
    return tokenizer if len(tokenizer) > len(tokenizer.all_special_ids) else None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # A heading says nothing without what follows it.
    return " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])
