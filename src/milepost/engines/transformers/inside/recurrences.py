"""The recurrences that may be run in pieces: what they are called, and which axes count tokens."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from milepost.engines.transformers.inside.recording import current_recording
from milepost.errors import UnsupportedModelError

__all__ = ["RECURRENCES", "Recurrence", "in_pieces"]

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrence:
    """How a recurrence is called.

    Attributes:
        token_axes: The axis that counts tokens, of each argument that has one.
        output_axis: The same of what it returns.
        initial_state: The argument that it goes on from.
        asks_for_state: The argument that has it return its last state too; None where it always does.
    """

    token_axes: Mapping[str, int]
    output_axis: int
    initial_state: str
    asks_for_state: str | None


_DELTA_RULE = Recurrence(
    token_axes=dict.fromkeys(("query", "key", "value", "g", "beta"), 1),
    output_axis=1,
    initial_state="initial_state",
    asks_for_state="output_final_state",
)
RECURRENCES: Mapping[str, Recurrence] = {
    "torch_chunk_gated_delta_rule": _DELTA_RULE,
    "chunk_kimi_delta_attention": _DELTA_RULE,
    "mamba2_chunk_scan": Recurrence(
        token_axes=dict.fromkeys(("hidden_states", "dt", "B", "C"), 1),
        output_axis=1,
        initial_state="initial_states",
        asks_for_state="return_final_states",
    ),
}
"""By the name that transformers has for them, whatever kernel stands behind it."""


def in_pieces(function: Callable[..., Any], recurrence: Recurrence) -> Callable[..., Any]:
    """Return ``function``, called in pieces while a recording wants states from inside of its tokens.

    Without a recording, where it is not asked for a state, and for other tokens than the recording's (a
    module beside the model's own layers) it is called as it is. What is given by position stays so: kernels
    that stand behind upstream's function have other names for it.

    Raises:
        UnsupportedModelError: while recording, it is given more by position than its signature names.
    """
    names = tuple(
        each.name for each in inspect.signature(function).parameters.values() if each.kind in _BY_POSITION
    )
    axes, asks = recurrence.token_axes, recurrence.asks_for_state

    def run(*args: Any, **options: Any) -> Any:
        recording = current_recording()
        if recording is None:
            return function(*args, **options)
        if len(args) > len(names):
            raise UnsupportedModelError("its recurrence is a function that does not name what it is given")
        arguments = dict(zip(names, args, strict=False)) | options
        sequences = {name: tensor for name in axes if (tensor := arguments.get(name)) is not None}
        is_recorded = asks is None or arguments.get(asks)
        if not is_recorded or not recording.is_of(sequences, axes):
            return function(*args, **options)
        state, states, outputs = arguments.get(recurrence.initial_state), [], []
        for start, end in pairwise((0, *recording.offsets, recording.num_tokens)):
            piece = {name: each.narrow(axes[name], start, end - start) for name, each in sequences.items()}
            piece[recurrence.initial_state] = state
            by_position = [piece.pop(name, each) for name, each in zip(names, args, strict=False)]
            output, state = function(*by_position, **options | piece)
            outputs.append(output)
            states.append(state)
        recording.note_recurrence(states[:-1])
        return torch.cat(outputs, dim=recurrence.output_axis), state

    return run
