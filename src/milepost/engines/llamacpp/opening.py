"""From a GGUF file to what engines over it share: loaded, probed, measured, and fingerprinted."""

import reprlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from milepost.counts import as_count
from milepost.engines.cuts import Capture, Cuts
from milepost.engines.digests import engine_fingerprint
from milepost.engines.generation_settings import GenerationSettings
from milepost.engines.llamacpp.context import Context, ContextOptions
from milepost.engines.llamacpp.driver import LlamaDriver
from milepost.engines.llamacpp.facts import model_facts
from milepost.engines.llamacpp.footprint import measured_footprint
from milepost.engines.llamacpp.identity import FileAdmission, files_digest, model_files
from milepost.engines.llamacpp.kv_types import KVTypes
from milepost.engines.llamacpp.library import Model
from milepost.engines.llamacpp.probe import probe
from milepost.engines.llamacpp.settings import GenerationSource
from milepost.engines.llamacpp.tokenizer import GGUFTokenizer
from milepost.engines.llamacpp.transfer import Memory, Transfer
from milepost.engines.ownership import Ownership
from milepost.engines.prefill import Numerics
from milepost.engines.served_model import ServedModel
from milepost.engines.text import Tokenizer
from milepost.errors import ConfigurationError, UnsupportedModelError

__all__ = ["SEGMENT_TOKENS", "open_driver", "serve_model"]

# KV is stored in pieces of this many tokens.
SEGMENT_TOKENS = 256
# A call takes about as many tokens as llama.cpp's own default.
_CALL_TOKENS = 512
# A call of one token takes about as long as this many of a long one: 5 to 15 in three families on a CPU.
_STOP_TOKENS = 16


def serve_model(
    model: str | Path,
    *,
    numerics: str,
    segment_tokens: int | None = None,
    tokenizer: Tokenizer | None = None,
    dtype: str = "auto",
    device: str | None = None,
    revision: str | None = None,
    generation_config: Mapping[str, Any] | transformers.GenerationConfig | None = None,
    key_type: str | None = None,
    value_type: str | None = None,
) -> ServedModel:
    """Load, probe and measure a model; arguments and errors as in ``Engine.open``.

    Args:
        model: A GGUF file; of a model in several, the first.
        numerics: ``strict`` or ``fast``.
        segment_tokens: KV is stored in pieces of this; 256 unless given.
        tokenizer: Replaces the one in the file.
        dtype: ``auto``; the file says how weights are stored.
        device: None; llama-cpp-python was built for one.
        revision: None; a file has no revisions.
        generation_config: Settings that take the place of the file's own.
        key_type: Number format of cached keys; see ``kv_types``.
        value_type: Number format of cached values.
    """
    if not isinstance(numerics, str) or numerics not in set(Numerics):
        raise ConfigurationError(f"numerics={numerics!r}; give one of {', '.join(Numerics)}")
    _refuse(dtype=dtype if dtype != "auto" else None, device=device, revision=revision)
    if tokenizer is not None and not (hasattr(tokenizer, "encode") and hasattr(tokenizer, "decode")):
        raise ConfigurationError(f"tokenizer={reprlib.repr(tokenizer)} has no encode and decode")
    segment = (
        SEGMENT_TOKENS if segment_tokens is None else as_count("segment_tokens", segment_tokens, least=2)
    )
    mode = Numerics(numerics)
    driver, digest = open_driver(
        model, is_strict=mode is Numerics.STRICT, key_type=key_type, value_type=value_type
    )
    try:
        report = probe(driver, is_strict=mode is Numerics.STRICT)
        return ServedModel(
            driver=driver,
            ownership=Ownership(),
            admission=FileAdmission(driver.model, digest),
            probe=report,
            tokenizer=GGUFTokenizer(driver.model) if tokenizer is None else tokenizer,
            footprint=measured_footprint(report, segment_tokens=segment),
            numerics=mode,
            cuts=driver.cuts,
            capture=Capture(is_inside=False, reason="llama.cpp keeps the last state of a call alone"),
            rows=driver.rows,
            segment_tokens=segment,
            # Decoding a token at a time rounds otherwise than a prefill.
            keeps_answers=mode is Numerics.FAST,
            generation_settings=GenerationSettings(
                GenerationSource(driver.model), overrides=generation_config
            ),
            fingerprint=engine_fingerprint(owner=driver.owner.hex(), numerics=mode, segment_tokens=segment),
            describe=partial(model_facts, driver, numerics=mode, segment_tokens=segment),
        )
    except BaseException:
        driver.release()
        raise


def open_driver(
    path: str | Path, *, is_strict: bool, key_type: str | None = None, value_type: str | None = None
) -> tuple[LlamaDriver, str]:
    """Load a GGUF file and return what runs it, not probed yet, and the digest of the model.

    Raises:
        ModelLoadError: it cannot be loaded.
        UnsupportedModelError: it is no text model, or keeps what cannot be told apart.
        ConfigurationError: llama.cpp keeps no keys or values in such a format, of any model or of this one.
    """
    kv_types = KVTypes.checked(key_type, value_type)
    model = Model(path, is_repacked=not is_strict)
    if not model.is_text_decoder:
        raise UnsupportedModelError(f"{model.family}: it predicts no next token; open a language model")
    if model.window:
        raise UnsupportedModelError(
            f"{model.family}: some of its layers look back {model.window:,} tokens only, and llama.cpp keeps "
            "those where a resumed run would not find them; use the transformers engine"
        )
    kv_types.require_heads(key_head=model.head_size("key"), value_head=model.head_size("value"))
    cuts = Cuts(every=_CALL_TOKENS, grid=1, least=2 if is_strict else 1, stop_tokens=_STOP_TOKENS)
    options = ContextOptions(
        most_tokens=_CALL_TOKENS + 2 * cuts.least, kv_types=kv_types, num_threads=torch.get_num_threads()
    )
    digest = files_digest(model_files(model.path))
    owner = engine_fingerprint(
        file=digest,
        kv_types=kv_types,
        is_repacked=model.is_repacked,
        llama_cpp=model.library.__version__,
        system=model.library.llama_print_system_info().decode(errors="replace"),
    )
    transfer = _transfer(model, options, owner)
    driver = LlamaDriver(
        model, options=options, transfer=transfer, cuts=cuts, is_strict=is_strict, owner=owner
    )
    return driver, digest


def _transfer(model: Model, options: ContextOptions, owner: bytes) -> Transfer:
    """Run a few tokens, and see what is kept of them: all, a part, or nothing more than of fewer."""
    context = Context(model, options, num_cells=0, num_sequences=2)
    no_state = context.save(1, state_alone=True)
    sizes: list[tuple[int, int]] = []
    for start, end in ((0, 8), (8, 24)):
        tokens = [token % model.vocabulary_size for token in range(start, end)]
        context.decode(tokens, sequences=0, positions=range(start, end))
        sizes.append((context.save(0).size, context.save(0, state_alone=True).size))
    context.close()
    (_, few_state), (many_all, many_state) = sizes
    if many_all == many_state:
        memory = Memory.KV if many_state > few_state else Memory.STATE
    elif many_state == few_state:
        memory = Memory.BOTH
    else:
        raise UnsupportedModelError(
            f"{model.family}: what it keeps beside KV takes {few_state:,} bytes after 8 tokens and "
            f"{many_state:,} after 24; only states of one size can be told apart from it"
        )
    return Transfer(memory=memory, owner=owner, no_state=no_state)


def _refuse(**options: str | None) -> None:
    for name, value in options.items():
        if value is not None:
            raise ConfigurationError(
                f"{name}={value!r} cannot apply to a GGUF file, which has one number format and no "
                "revisions, and runs where llama-cpp-python was built for; leave it out"
            )
