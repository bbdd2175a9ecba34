"""The recurrences that may be run in pieces: what they are called, and which axes count tokens."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from milepost.engines.transformers.inside.recording import current_recording

__all__ = ["RECURRENCES", "Recurrence", "in_pieces"]


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

    Without a recording, and where it is not asked for a state, it is called as it is.
    """
    names = tuple(inspect.signature(function).parameters)

    def run(*args: Any, **options: Any) -> Any:
        recording = current_recording()
        arguments = dict(zip(names, args, strict=False)) | options
        asks = recurrence.asks_for_state
        if recording is None or (asks is not None and not arguments.get(asks)):
            return function(**arguments)
        state, states, outputs = arguments.get(recurrence.initial_state), [], []
        for start, end in pairwise((0, *recording.offsets, recording.num_tokens)):
            piece = {name: arguments[name] for name in recurrence.token_axes if name in arguments}
            for name, tensor in piece.items():
                if tensor is not None:
                    piece[name] = tensor.narrow(recurrence.token_axes[name], start, end - start)
            output, state = function(**{**arguments, **piece, recurrence.initial_state: state})
            outputs.append(output)
            states.append(state)
        recording.note_recurrence(states[:-1])
        return torch.cat(outputs, dim=recurrence.output_axis), state

    return run
