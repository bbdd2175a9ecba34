"""Results of replays as tables for people: one for each trace and capacity, its best row marked."""

from collections.abc import Sequence
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from milepost.byte_size import format_bytes
from milepost.simulator import NOMINAL_KV_BYTES_PER_TOKEN, SimulationResult

__all__ = ["result_tables"]

_BEST = "*"
# Longer notations are folded where the terminal is narrow.
_POLICY_WIDTH = 12
# Two short lines each, so that a table fits eighty columns: what was reused and stored, then what was lost.
_TIME = "time\n(s)"
_HEADINGS = (
    "\nreused",
    "of\nceiling",
    "stored/\nrequest",
    "never\nseen",
    "not\nplaced",
    "\nevicted",
    "off\ngrid",
)


def result_tables(results: Sequence[SimulationResult]) -> list[Table]:
    """Return a table for each run of results of the same trace and memory."""
    return [_table(list(point)) for _, point in groupby(results, key=_point_of)]


def _point_of(result: SimulationResult) -> tuple[str, int, float]:
    return result.trace, result.capacity_kv_tokens, result.checkpoint_kv_tokens


def _table(point: list[SimulationResult]) -> Table:
    first = point[0]
    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        title_justify="left",
        title_style="bold",
        title=Text(f"{first.trace}, {_memory(first)}"),
        caption_justify="left",
        caption=Text(
            f"{first.num_requests:,} requests{_behind(first)}, {first.input_tokens:,} tokens, "
            f"at most {first.ceiling_fraction:.1%} reusable;\n"
            f"{_price(first)}" + (f" ({_BEST} most reused)" if len(point) > 1 else "")
        ),
    )
    timed = any(result.seconds is not None for result in point)
    table.add_column("")
    longest = max(len(result.policy) for result in point)
    table.add_column("policy", overflow="fold", vertical="bottom", min_width=min(longest, _POLICY_WIDTH))
    for heading in _HEADINGS + ((_TIME,) if timed else ()):
        table.add_column(heading, justify="right", vertical="bottom", no_wrap=True)
    most_reused = max(result.reused_tokens for result in point)
    for result in point:
        # Of one policy alone there is no best.
        is_best = len(point) > 1 and result.reused_tokens == most_reused
        mark, style = (_BEST, "green") if is_best else ("", None)
        table.add_row(mark, *_cells(result, timed=timed), style=style)
    return table


def _behind(result: SimulationResult) -> str:
    return f" after {result.num_warm_up_requests:,} to warm up" if result.num_warm_up_requests else ""


def _memory(result: SimulationResult) -> str:
    if result.has_kv:
        return f"{result.capacity_kv_tokens:,} tokens of KV"
    return f"{format_bytes(result.capacity_kv_tokens * NOMINAL_KV_BYTES_PER_TOKEN)} for states"


def _price(result: SimulationResult) -> str:
    if not result.has_kv:
        num_bytes = result.checkpoint_kv_tokens * NOMINAL_KV_BYTES_PER_TOKEN
        return f"a checkpoint takes {format_bytes(num_bytes)}, and there is no KV"
    if not result.checkpoint_kv_tokens:
        return "there is no state: KV alone is resumed from"
    return f"a checkpoint costs {result.checkpoint_kv_tokens:,.10g} tokens of KV"


def _cells(result: SimulationResult, *, timed: bool) -> list[str | Text]:
    lost = result.lost
    cells: list[str | Text] = [
        # Notations have brackets of no meaning to the table.
        Text(result.policy),
        f"{result.reused_fraction:.1%}",
        f"{result.reused_fraction / result.ceiling_fraction:.1%}" if result.ceiling_fraction else "-",
        f"{result.mean_checkpoints_per_request:.2f}",
        *(
            f"{tokens / result.input_tokens:.1%}"
            for tokens in (lost.unseen, lost.placement, lost.eviction, lost.alignment)
        ),
    ]
    if timed:
        cells.append("-" if result.seconds is None else f"{result.seconds:.2f}")
    return cells
