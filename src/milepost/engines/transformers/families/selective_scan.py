r"""Mamba-1 mixers (mamba, falcon_mamba, jamba, zamba): the scan of several tokens starts from zeros.

Neither upstream's loop nor the kernels it may be replaced by take an initial state. They need not: the
recurrence is linear in it, so its share is added to what a scan from zeros returns. With steps
:math:`\Delta`,

.. math::
    s_t = e^{A \Delta_t} s_{t-1} + \Delta_t B_t u_t \quad\Rightarrow\quad
    s_t = s_t^{\text{from zeros}} + e^{A (\Delta_1 + \dots + \Delta_t)} s_0,
    \qquad y_t = C_t^\top s_t + D u_t.

The exponent is never positive, so nothing overflows. This adds about a tenth to upstream's loop, on any
segment but the first; single tokens are upstream's own.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import partial
from itertools import repeat
from typing import Any

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from milepost.engines.transformers.cache_argument import cache_among
from milepost.engines.transformers.inside.recording import current_recording
from milepost.engines.transformers.inside.recurrences import Recurrence, in_pieces
from milepost.engines.transformers.patch import ForwardPatch
from milepost.engines.transformers.rebinding import with_globals

__all__ = ["patches", "seeded_scan"]

_SCAN = "mamba_selective_scan"
# e^-64 is far below rounding. Left to underflow, exponentials take ten times as long on a CPU.
_LEAST_EXPONENT = -64.0

# Initial states of the scans that the running forward call is about to make, in their order.
_initial_states: ContextVar[Iterator[torch.Tensor | None]] = ContextVar("initial_states")
_RECURRENCE = Recurrence(
    token_axes=dict.fromkeys(("inputs", "steps", "input_matrix", "output_matrix", "z"), -1),
    output_axis=-1,
    initial_state="initial_state",
    asks_for_state="return_last_state",
)


def patches(model: PreTrainedModel) -> Iterable[ForwardPatch]:
    """Yield a patch for every mixer of ``model``."""
    for module in model.modules():
        upstream = type(module).forward
        innermost = inspect.unwrap(upstream)
        if _SCAN not in innermost.__code__.co_names:
            continue
        scan = partial(_next_scan, innermost.__globals__[_SCAN])
        yield ForwardPatch(module, partial(_forward, with_globals(upstream, **{_SCAN: scan})))


def seeded_scan(
    scan: Callable[..., Any],
    initial_state: torch.Tensor,
    *operands: torch.Tensor,
    z: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    **options: Any,
) -> Any:
    """Run ``scan``, which starts from zeros, as if it started from ``initial_state``.

    Shapes, with b sequences, c channels, l tokens and a state of n: ``initial_state`` [b, c, n]; ``operands``
    are the inputs u [b, c, l], the steps [b, c, l], A [c, n], B and C [b, n, l]; ``z`` [b, c, l];
    ``delta_bias`` [c]. Returns what ``scan`` returns. O(b c l n).
    """
    _, steps, state_matrix, _, output_matrix = operands
    outputs, last_state = scan(
        *operands, delta_bias=delta_bias, delta_softplus=delta_softplus, return_last_state=True, **options
    )
    elapsed = steps if delta_bias is None else steps + delta_bias.to(steps.dtype)[..., None]
    elapsed = (functional.softplus(elapsed) if delta_softplus else elapsed).float().cumsum(dim=-1)
    share = torch.zeros_like(elapsed)
    carries = []
    # One entry of the state at a time: a tensor over all of them would leave the processor's cache.
    for index, state in enumerate(initial_state.float().unbind(dim=-1)):
        decay = (elapsed * state_matrix[:, index, None]).clamp_(min=_LEAST_EXPONENT).exp_()
        carried = decay.mul_(state[..., None])
        share.addcmul_(carried, output_matrix[:, None, index].float())
        carries.append(carried[..., -1])
    outputs = outputs + share
    if z is not None:
        outputs = outputs * functional.silu(z)
    return (outputs, last_state + torch.stack(carries, dim=-1)) if return_last_state else outputs


def _forward(
    forward_from_state: Callable[..., Any],
    upstream: Callable[..., Any],
    mixer: Any,
    hidden_states: torch.Tensor,
    **options: Any,
) -> Any:
    cache = cache_among(options)
    state = None if cache is None else cache.layers[mixer.layer_idx].recurrent_states[0]
    # Upstream is right about a first segment and about a single token.
    is_first = state is None and current_recording() is None
    if is_first or hidden_states.shape[1] == 1:
        return upstream(hidden_states, **options)
    # zamba scans head by head: [batch, heads, channels, state].
    states = repeat(None) if state is None else [state] if state.ndim == 3 else state.unbind(dim=1)
    token = _initial_states.set(iter(states))
    try:
        return forward_from_state(mixer, hidden_states, **options)
    finally:
        _initial_states.reset(token)


def _next_scan(scan: Callable[..., Any], *operands: Any, **options: Any) -> Any:
    run = in_pieces(partial(_scan_from_state, scan), _RECURRENCE)
    return run(*operands, initial_state=next(_initial_states.get()), **options)


def _scan_from_state(
    scan: Callable[..., Any],
    inputs: torch.Tensor,
    steps: torch.Tensor,
    state_matrix: torch.Tensor,
    input_matrix: torch.Tensor,
    output_matrix: torch.Tensor,
    *,
    initial_state: torch.Tensor | None,
    **options: Any,
) -> Any:
    operands = (inputs, steps, state_matrix, input_matrix, output_matrix)
    return (
        scan(*operands, **options)
        if initial_state is None
        else seeded_scan(scan, initial_state, *operands, **options)
    )
