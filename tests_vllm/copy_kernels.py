"""Plain stand-ins for the two Triton kernels that move states of drafts; vLLM's CPU build has none.

They do what the kernels of ``vllm/v1/worker/mamba_utils.py`` do, request by request and state by state, with
``memmove`` at the addresses that those are given: a recurrent state is copied from the column of the draft
that was accepted last; the window of a convolution, which holds all drafts, is shifted by them.
"""

import ctypes
from collections import Counter
from typing import NamedTuple

COPIES: Counter = Counter()


class States(NamedTuple):
    """The block tables, and where the states of all layers lie; as the kernels take them."""

    tables: object
    table_stride: int
    base_addresses: object
    block_bytes: object
    element_bytes: object
    inner_sizes: object
    window_tokens: object
    groups: object
    num_rows: object
    row_bytes: object

    def block(self, state: int, row: int, column: int) -> int:
        """Return the address of a state in the block of a request."""
        table = int(self.tables[int(self.groups[state])])
        block_id = ctypes.c_int32.from_address(table + 4 * (row * self.table_stride + column)).value
        return int(self.base_addresses[state]) + block_id * int(self.block_bytes[state])

    def move(self, row: int, source: int, target: int, *, shift: int, is_row_first: bool) -> None:
        """Copy all states of a request from one column to another, past ``shift`` accepted drafts."""
        for state in range(len(self.base_addresses)):
            to, num_elements = self.block(state, row, target), int(self.inner_sizes[state])
            element_bytes, window = int(self.element_bytes[state]), int(self.window_tokens[state])
            if window == 0:
                ctypes.memmove(to, self.block(state, row, source + shift), num_elements * element_bytes)
                continue
            start = self.block(state, row, source)
            if is_row_first:
                for at in range(
                    0, int(self.num_rows[state]) * int(self.row_bytes[state]), int(self.row_bytes[state])
                ):
                    ctypes.memmove(
                        to + at, start + at + shift * element_bytes, (window - shift) * element_bytes
                    )
            else:
                token_bytes = num_elements * element_bytes
                ctypes.memmove(to, start + shift * token_bytes, (window - shift) * token_bytes)


def before_step(columns, sources, shifts, *rest, CONV_STATE_DIM_FIRST, **_):  # noqa: N803
    """Move the state of each request to the column that it runs in."""
    *states, mapping, num_requests = rest
    for index in range(num_requests):
        row = index if mapping is None else int(mapping[index])
        source, target = int(sources[row]), int(columns[row])
        if row >= 0 and source >= 0 and source != target:
            COPIES["before a step"] += 1
            States(*states).move(
                row, source, target, shift=int(shifts[row]), is_row_first=CONV_STATE_DIM_FIRST
            )


def after_step(
    accepted,
    columns,
    scheduled,
    computed,
    drafts,
    *rest,
    block_size,
    CONV_STATE_DIM_FIRST,  # noqa: N803
    **_,
):
    """Keep the state of each request that has passed a block boundary in the column that ends there."""
    *states, accepted_out, mapping, num_requests = rest
    assert mapping is None, "only the model runner V2 has one"
    for row in range(num_requests):
        running = int(computed[row]) + int(scheduled[row]) - int(drafts[row])
        boundary = (running + int(accepted[row]) - 1) // block_size * block_size
        if boundary < running:
            continue
        column, target = int(columns[row]), boundary // block_size - 1
        if column == target:
            accepted_out[row] = 1
        if column != target or boundary > running:
            COPIES["at a boundary"] += 1
            States(*states).move(
                row, column, target, shift=boundary - running, is_row_first=CONV_STATE_DIM_FIRST
            )


class _OnGrid:
    """What ``kernel[grid](...)`` is called of."""

    def __init__(self, function) -> None:
        self._function = function

    def __getitem__(self, grid):
        return self._function


def install() -> None:
    """Put them in the kernels' place."""
    from vllm.v1.worker import mamba_utils

    mamba_utils.precopy_mamba_align_fused_kernel = _OnGrid(before_step)
    mamba_utils.postprocess_mamba_fused_kernel = _OnGrid(after_step)
