"""What lossless compression saves on the way to disk, of states and of KV, and what it costs.

    python -m benchmarks.compression [--model FOLDER|FILE.gguf[@KEYS,VALUES] ...] [--dtype NAME ...] [--json]

Each model runs a prompt of source code; the states at every 512 tokens and the KV in segments of 256 are
packed as a server packs them, and encoded with and without compression. *Saved* is bytes in memory for each
byte of the file. Seconds are CPU seconds for each GB in memory, with compression and without. Every payload
is decoded and compared bit for bit. int8 is the KV as a cache of 8-bit integers with a scale for each token
and head would hold it; where a GGUF file is given, @KEYS,VALUES is how llama.cpp holds them, as q8_0,q8_0.

Without --model: the embedded model, and Qwen3.5 of a middle size with random weights. Target: 1.2 in
effective capacity (states and KV together) on the embedded model.
"""

import argparse
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.engines.mid_models import mid_model
from benchmarks.printing import Row, print_rows
from milepost.disk import Packed, PackedTensor
from milepost.disk.file_format import decode, encode

_NUM_TOKENS, _EVERY, _SEGMENT = 4_096, 512, 256
_TARGET = 1.2
_NAMES = {"key": "s" + "0" * 64, "identity": "0" * 64, "entry": "0" * 64}
_DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True, slots=True)
class _Sizes:
    raw_bytes: int
    stored_bytes: int
    seconds: dict[str, float]

    @property
    def saved(self) -> float:
        return self.raw_bytes / self.stored_bytes


def measure(models: Sequence[str], dtypes: Sequence[str]) -> list[Row]:
    """Return what is saved of each model's states and KV."""
    rows: list[Row] = []
    for name in models:
        for dtype in ("as stored",) if ".gguf" in name else dtypes:
            payloads = _payloads_of(name, dtype)
            label = f"{Path(name).name}, {dtype}"
            rows += [
                _row(f"{label}: {kind}", _sizes(payloads[kind]), target=None) for kind in ("states", "KV")
            ]
            if dtype != "as stored":
                quantised = [_quantised(each) for each in payloads["KV"]]
                rows.append(_row(f"{label}: KV in int8", _sizes(quantised), target=None))
            target = _TARGET if name == "embedded" else None
            rows.append(_row(f"{label}: both", _sizes(payloads["states"] + payloads["KV"]), target=target))
    return rows


def _payloads_of(name: str, dtype: str) -> dict[str, list[Packed]]:
    driver, tokens = _opened(name, dtype)
    states, kv = [], []
    live = driver.start(num_tokens=tokens.numel())
    for start in range(0, tokens.numel(), _SEGMENT):
        driver.advance(live, tokens[start : start + _SEGMENT])
        kv.append(driver.pack(driver.kv(live, start, start + _SEGMENT)))
        if (start + _SEGMENT) % _EVERY == 0:
            states.append(driver.pack(driver.capture(live)))
    return {"states": states, "KV": kv}


def _opened(name: str, dtype: str) -> tuple[Any, torch.Tensor]:
    """Return what runs a model, and a prompt in its tokens."""
    from milepost.engines.transformers.families import driver_for

    text = "\n\n".join(Path(module.__file__).read_text() for module in (argparse, logging))
    if ".gguf" in name:
        from milepost.engines.llamacpp.opening import open_driver
        from milepost.engines.llamacpp.tokenizer import GGUFTokenizer

        path, _, kinds = name.partition("@")
        key_type, _, value_type = kinds.partition(",")
        driver, _ = open_driver(
            path, is_strict=True, key_type=key_type or None, value_type=value_type or None
        )
        return driver, _prompt(GGUFTokenizer(driver.model), text, driver.vocabulary_size)
    if name == "mid":
        driver = driver_for(mid_model("qwen3_5", getattr(torch, dtype)))
        return driver, _prompt(None, text, driver.vocabulary_size)
    from milepost.embedded import resolve_model
    from milepost.engines.transformers.loading import load_model

    opened = load_model(resolve_model(name), dtype=dtype, device="cpu")
    driver = driver_for(opened.model)
    return driver, _prompt(opened.tokenizer, text, driver.vocabulary_size)


def _prompt(tokenizer: Any, text: str, vocabulary_size: int) -> torch.Tensor:
    """Return the first tokens of ``text``; of a model without a tokenizer, its bytes."""
    if tokenizer is None:
        return torch.tensor(list(text.encode()[:_NUM_TOKENS])) % vocabulary_size
    return torch.tensor(tokenizer.encode(text)[:_NUM_TOKENS])


def _quantised(packed: Packed) -> Packed:
    """Return KV as 8-bit integers, and the scales of them."""
    tensors: dict[str, PackedTensor] = {}
    for name, tensor in packed.tensors.items():
        data = torch.from_numpy(tensor.data.copy()).view(getattr(torch, tensor.dtype)).float()
        rows = data.view(-1, tensor.shape[-1])
        scales = rows.abs().amax(dim=-1, keepdim=True).clamp(min=1e-9) / 127
        for part, value in (("", (rows / scales).round().to(torch.int8)), (".scale", scales.half())):
            flat = value.reshape(-1).view(torch.uint8).numpy()
            dtype = str(value.dtype).removeprefix("torch.")
            tensors[name + part] = PackedTensor(dtype, tuple(value.shape), value.dtype.itemsize, flat)
    return replace(packed, tensors=tensors)


def _sizes(payloads: Sequence[Packed]) -> _Sizes:
    payloads = [each for each in payloads if each.num_bytes]
    seconds: dict[str, float] = dict.fromkeys(("encode", "encode raw", "decode", "decode raw"), 0.0)
    stored_bytes = 0
    for packed in payloads:
        # Take turns, so that whatever else the machine does falls on all alike.
        small = _timed("encode", seconds, lambda packed=packed: encode(packed, **_NAMES))
        raw = _timed("encode raw", seconds, lambda packed=packed: encode(packed, **_NAMES, compresses=False))
        read = _timed("decode", seconds, lambda small=small: decode(small, **_NAMES))
        _timed("decode raw", seconds, lambda raw=raw: decode(raw, **_NAMES))
        for name, tensor in packed.tensors.items():
            assert np.array_equal(tensor.data, read.tensors[name].data), "not what was packed"
        stored_bytes += len(small)
    return _Sizes(sum(packed.num_bytes for packed in payloads), stored_bytes, seconds)


def _timed(name: str, seconds: dict[str, float], work: Callable[[], Any]) -> Any:
    started = time.process_time()
    result = work()
    seconds[name] += time.process_time() - started
    return result


def _row(name: str, sizes: _Sizes, *, target: float | None) -> Row:
    per_gb = {each: seconds / sizes.raw_bytes * 1e9 for each, seconds in sizes.seconds.items()}
    return Row(
        name=name,
        measured=f"{sizes.saved:.3f}; s/GB written {per_gb['encode']:.1f} (raw {per_gb['encode raw']:.1f}), "
        f"read {per_gb['decode']:.1f} (raw {per_gb['decode raw']:.1f})",
        target="reported" if target is None else f">= {target}",
        reached=target is None or sizes.saved >= target,
        numbers={"saved": sizes.saved, "raw_bytes": sizes.raw_bytes, **per_gb},
    )


def _names(arguments: argparse.Namespace) -> Iterator[str]:
    yield from arguments.model or ("embedded", "mid")


def main() -> None:
    """Measure what the command line names, and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", action="append", metavar="NAME")
    parser.add_argument("--dtype", action="append", choices=_DTYPES)
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    arguments = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    rows = measure(list(_names(arguments)), arguments.dtype or list(_DTYPES))
    print_rows(rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
