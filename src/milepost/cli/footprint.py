"""``milepost footprint``."""

import json
from typing import Annotated

import typer

from milepost.cli.options import Calibrate, ConfigArgument, Json, KeyType, ValueType
from milepost.errors import ConfigurationError

__all__ = ["footprint"]


def footprint(
    model: ConfigArgument,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; as stored unless given.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Prompt length that FLOPs are given for.")] = 8192,
    calibrate: Calibrate = False,
    key_type: KeyType = None,
    value_type: ValueType = None,
    as_json: Json = False,
) -> None:
    """Say what a checkpoint, a token of KV and a prefill of a model cost, from its configuration alone; of a
    GGUF file the first two, measured on the model.

    Try: `milepost footprint Qwen/Qwen3.5-0.8B --calibrate`
    """
    from milepost.engines.opening import is_gguf, refuse_kv_types

    if is_gguf(model):
        from milepost.engines.llamacpp import describe as llamacpp

        if dtype is not None or calibrate:
            raise ConfigurationError(
                "a GGUF file says its number format itself, and its seconds are measured by "
                "`python -m benchmarks.llamacpp`; leave out --dtype and --calibrate"
            )
        facts = llamacpp.describe_footprint(model, key_type=key_type, value_type=value_type)
    else:
        refuse_kv_types(key_type=key_type, value_type=value_type)
        from milepost.embedded import resolve_model
        from milepost.engines.transformers import describe as transformers

        facts = transformers.describe_footprint(
            resolve_model(model), dtype=dtype, num_tokens=tokens, with_seconds=calibrate
        )
    if as_json:
        print(json.dumps(facts))
        return
    if facts["checkpoint_kv_tokens"] is None:
        facts["checkpoint_kv_tokens"] = "none: the model keeps no KV, so count in bytes"
    for name, value in facts.items():
        print(f"{name:28} {value:,}" if isinstance(value, int | float) else f"{name:28} {value}")
