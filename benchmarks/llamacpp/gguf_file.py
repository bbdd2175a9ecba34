"""Random models as GGUF files, made on the fly."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np

from benchmarks.llamacpp.families import Sizes, Tensor, family

__all__ = ["CHAT_TEMPLATE", "write_gguf"]

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_CONTEXT_LENGTH = 1 << 17
_FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7}
_BYTES = 256
# Kinds of tokens: ordinary, unknown, control, byte.
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
_SPECIAL = ("<unk>", "<s>", "</s>")
_ROLES = ("<|user|>", "<|assistant|>", "<|system|>")
# Pieces of words that SentencePiece may merge.
_WORDS = ("t", "h", "e", "th", "the", "▁", "▁t", "▁th", "▁the", "a", "n", "an", "and", "▁a", "▁an", "▁and")


def write_gguf(
    path: Path,
    name: str,
    *,
    sizes: Sizes | None = None,
    weights: str = "f32",
    seed: int = 0,
    says: dict[str, Any] | None = None,
) -> Path:
    """Write a random model and return its path.

    Args:
        path: Where.
        name: Its family, one of ``FAMILIES``.
        sizes: How large; 1 to 4 million parameters unless given.
        weights: Number format of its matrices: ``f32``, ``f16``, ``q8_0`` or ``q4_0``.
        seed: Of its weights.
        says: More keys of the file, or others.
    """
    sizes = sizes or Sizes()
    made = family(name, sizes)
    writer = gguf.GGUFWriter(str(path), name)
    keys = {
        f"{name}.{key}": value
        for key, value in {
            "context_length": _CONTEXT_LENGTH,
            "embedding_length": sizes.width,
            "block_count": sizes.layers,
            "vocab_size": sizes.vocabulary,
            **made.keys,
        }.items()
    }
    for key, value in {**keys, "general.file_type": _FILE_TYPES[weights], **(says or {})}.items():
        _add_key(writer, key, value)
    _add_vocabulary(writer, sizes.vocabulary)
    random = np.random.default_rng(seed)
    for tensor in made.tensors:
        _add_tensor(writer, tensor, random, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_key(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_uint32(key, value)


def _add_vocabulary(writer: gguf.GGUFWriter, number: int) -> None:
    """A vocabulary of SentencePiece's kind that knows every byte, some pieces of words, and fillers."""
    words = [*_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(_BYTES)), *_ROLES, *_WORDS]
    kinds = [_UNKNOWN, _CONTROL, _CONTROL] + [_BYTE] * _BYTES + [_CONTROL] * len(_ROLES)
    words += [f"filler{index}" for index in range(len(words), number)]
    kinds += [_NORMAL] * (number - len(kinds))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores(
        [float(len(word)) if kind == _NORMAL else 0.0 for word, kind in zip(words, kinds, strict=True)]
    )
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)


def _add_tensor(writer: gguf.GGUFWriter, tensor: Tensor, random: np.random.Generator, weights: str) -> None:
    drawn = random.standard_normal(tensor.shape, dtype=np.float32)
    if tensor.kind == "values":
        values = tensor.mean + tensor.spread * drawn
        writer.add_tensor(tensor.name, -np.exp(values) if tensor.is_decay else values)
        return
    values = drawn * np.float32(tensor.gain * tensor.shape[-1] ** -0.5)
    if weights == "f16":
        writer.add_tensor(tensor.name, values.astype(np.float16))
    elif weights == "f32" or tensor.shape[-1] % 32:
        writer.add_tensor(tensor.name, values)
    else:
        kind = gguf.GGMLQuantizationType[weights.upper()]
        writer.add_tensor(tensor.name, gguf.quants.quantize(values, kind), raw_dtype=kind)
