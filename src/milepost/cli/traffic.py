"""What the commands that replay recorded traffic make of their options."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import typer
from rich.console import Console

from milepost.byte_size import format_bytes, parse_bytes
from milepost.cli.options import DEFAULT_REPLAY_POLICIES
from milepost.errors import ConfigurationError
from milepost.extras import require_extra
from milepost.footprint import Footprint
from milepost.simulator import Setting, WarmUp, nominal_footprint
from milepost.traces import LogFacts

__all__ = ["build_settings", "config_of", "parse_after", "report_log", "unique"]

_AMOUNT = re.compile(r"([0-9][0-9_,]*|[0-9]*\.[0-9]+)([kM]?)")
_MULTIPLES = {"": 1, "k": 1_000, "M": 1_000_000}


@dataclass(frozen=True, slots=True)
class _Budget:
    """Capacities and the footprint they are counted in."""

    capacities: tuple[int, ...]
    footprint: Footprint


def build_settings(
    *,
    policies: Sequence[str] | None,
    capacity_kv_tokens: Sequence[str] | None,
    capacity: Sequence[str] | None,
    checkpoint_kv_tokens: float | None,
    model: str | None,
) -> list[Setting]:
    """Return every policy at every capacity, capacities first.

    Raises:
        typer.BadParameter: options are missing or contradict each other.
        ConfigurationError: one has a bad value.
    """
    budget = _budget(capacity_kv_tokens, capacity, checkpoint_kv_tokens, model)
    return [
        Setting(policy=policy, capacity_kv_tokens=tokens, footprint=budget.footprint)
        for tokens, policy in product(
            budget.capacities, unique(policy.strip() for policy in policies or DEFAULT_REPLAY_POLICIES)
        )
    ]


def unique(items: Iterable[str]) -> tuple[str, ...]:
    """Return ``items`` in their order, each once."""
    return tuple(dict.fromkeys(items))


def parse_after(after: str | None) -> WarmUp | None:
    """Return what ``--after`` says.

    Raises:
        typer.BadParameter: it is no amount.
    """
    try:
        return None if after is None else WarmUp.parse(after)
    except ConfigurationError as error:
        raise typer.BadParameter(str(error), param_hint="--after") from error


def report_log(name: str, log: LogFacts, console: Console) -> None:
    """Say what a log held beside its requests: models, refusals, images, lines that were skipped."""
    for note in log.notes():
        console.print(f"{name}: {note}", markup=False, highlight=False, soft_wrap=True)


def _budget(
    capacity_kv_tokens: Sequence[str] | None,
    capacity: Sequence[str] | None,
    checkpoint_kv_tokens: float | None,
    model: str | None,
) -> _Budget:
    if (model is None) == (checkpoint_kv_tokens is None):
        raise typer.BadParameter(
            "say what a checkpoint costs: either --checkpoint-kv-tokens C (a middling hybrid model: 1536) "
            "or --model MODEL"
        )
    if not capacity_kv_tokens and not capacity:
        raise typer.BadParameter("say how much memory there is: --capacity-kv-tokens N, or --capacity SIZE")
    if capacity and model is None:
        raise typer.BadParameter(
            "--capacity is in bytes, and what a token takes is known only of a --model; give "
            "--capacity-kv-tokens N instead"
        )
    footprint = _footprint_of(model) if model is not None else nominal_footprint(checkpoint_kv_tokens or 0.0)
    if capacity_kv_tokens and not footprint.kv_bytes_per_token:
        raise typer.BadParameter(
            f"--capacity-kv-tokens counts memory in tokens of KV, and {model} keeps none: each of its states "
            f"takes {format_bytes(footprint.checkpoint_bytes)}; give --capacity SIZE, such as 4GiB"
        )
    unit_bytes = Setting(policy="", capacity_kv_tokens=0, footprint=footprint).unit_bytes
    capacities = [
        *(_parse_tokens(text) for text in capacity_kv_tokens or ()),
        *(parse_bytes(text) // unit_bytes for text in capacity or ()),
    ]
    return _Budget(tuple(dict.fromkeys(capacities)), footprint)


def _parse_tokens(text: str) -> int:
    """Return the number of tokens in ``text``: ``400000``, ``400_000``, ``400k``, ``1.5M``."""
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(
            f"{text!r} is not a number of tokens; write 400000, 400k or 1M", param_hint="--capacity-kv-tokens"
        )
    amount = match[1].replace("_", "").replace(",", "")
    return int(float(amount) * _MULTIPLES[match[2]] if "." in amount else int(amount) * _MULTIPLES[match[2]])


def _footprint_of(model: str) -> Footprint:
    return Footprint.from_config(config_of(model))


def config_of(model: str) -> object:
    """Return the configuration that ``model`` names, as :class:`~milepost.footprint.Footprint` reads it: what
    the hub has, or the path itself where it is one, unless transformers has to complete it.

    Raises:
        MissingExtraError: it is no path, and transformers is not installed.
    """
    is_path = Path(model).exists()
    if is_path and find_spec("transformers") is None:
        return model
    purpose = f"model={model!r} is no file or folder; give the path of a config.json, or a hub id, which"
    require_extra("transformers", "transformers", purpose=purpose)
    from milepost.engines.transformers.completed_config import completed_config
    from milepost.engines.transformers.loading import load_config

    return completed_config(model) if is_path else load_config(model)
