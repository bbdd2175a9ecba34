"""``milepost probe``."""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import typer

from milepost.cli.options import Json, KeyType, ModelArgument, ValueType

__all__ = ["probe"]

# 1 is any error and 2 wrong usage, so a model on which nothing could be tested has a number of its own.
_EXIT_CODES = {"passed": 0, "refused": 1, "undecided": 3}


def probe(
    model: ModelArgument, key_type: KeyType = None, value_type: ValueType = None, as_json: Json = False
) -> None:
    """Prove on a model that it resumes exactly, or say why it cannot be used. Takes about ten short prefills.

    The verdict is *passed* (exit code 0), *refused* (1), or *undecided* (3): a lost state did not show, so
    nothing was tested. Only a model that passed is served. A GGUF file is probed on llama.cpp.

    Try: `milepost probe Qwen/Qwen3.5-0.8B`
    """
    from milepost.embedded import resolve_model

    report = _measured(resolve_model(model), key_type=key_type, value_type=value_type)
    if as_json:
        print(json.dumps(_as_json(asdict(report))))
    else:
        _print(asdict(report))
        if report.refusal is not None:
            print(f"{report.family} is {report.verdict}: {report.refusal}", file=sys.stderr)
        for part in report.not_tested:
            print(f"not tested: zeroing {part} alone does not show above rounding", file=sys.stderr)
    raise typer.Exit(_EXIT_CODES[report.verdict])


def _measured(model: Any, *, key_type: str | None, value_type: str | None) -> Any:
    from milepost.engines.opening import is_gguf, refuse_kv_types

    if is_gguf(model):
        from milepost.engines.llamacpp import opening, probe

        driver, _ = opening.open_driver(model, is_strict=True, key_type=key_type, value_type=value_type)
        return probe.measure_resume(driver, is_strict=True)
    refuse_kv_types(key_type=key_type, value_type=value_type)
    from milepost.engines.transformers.families import driver_for
    from milepost.engines.transformers.loading import load_model
    from milepost.engines.transformers.probe import measure_resume

    return measure_resume(driver_for(load_model(model).model))


def _as_json(value: Any) -> Any:
    """JSON has no word for what is not finite, which is what broken logits are away from each other."""
    if isinstance(value, Mapping):
        return {name: _as_json(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print(facts: Mapping[str, Any], *, under: str = "") -> None:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            _print(value, under=f"{under}{name}.")
        else:
            print(f"{under + name:28} {value}")
