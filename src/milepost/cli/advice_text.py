"""Advice for people: a table to compare, then what to copy for each engine."""

import math

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from milepost.byte_size import format_bytes
from milepost.recommend import EngineAdvice, Recommendation
from milepost.whole_table import print_whole

__all__ = ["print_advice"]

# Most policies shown, of those compared.
_NUM_POLICIES = 5


def print_advice(advice: Recommendation, console: Console) -> None:
    """Print a recommendation. Command lines are never wrapped, so that they can be copied."""
    warm_up = advice.num_warm_up_requests
    behind = f" (after {warm_up:,} to warm up)" if warm_up else ""
    console.print(
        f"{advice.trace}: {advice.num_requests:,} requests{behind} of {advice.input_tokens:,} tokens, of "
        f"which {advice.ceiling_fraction:.1%} could be reused at most; "
        f"{_memory(advice)}.",
        markup=False,
        highlight=False,
    )
    print_whole(_engines(advice), console)
    print_whole(_policies(advice), console)
    for engine in advice.engines:
        _print_instructions(engine, console)


def _memory(advice: Recommendation) -> str:
    """Return how much memory there is, and what a checkpoint takes of it."""
    in_bytes = "" if advice.memory_bytes is None else format_bytes(advice.memory_bytes)
    price = advice.checkpoint_kv_tokens
    if advice.capacity_kv_tokens is None or price is None:
        assert advice.checkpoint_bytes is not None
        return f"{in_bytes} for states of {format_bytes(advice.checkpoint_bytes)} each, and there is no KV"
    tokens = f"{advice.capacity_kv_tokens:,} tokens of KV"
    memory = f"{in_bytes} ({tokens})" if in_bytes else tokens
    if not price:
        return f"{memory}, and there is no state: KV alone is resumed from"
    return f"{memory}, a checkpoint costs {price:,.10g} of them"


def _engines(advice: Recommendation) -> Table:
    """Return what to expect of each engine, the one that has least left to compute first."""
    has_clairvoyant = advice.clairvoyant_fraction is not None
    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        caption_justify="left",
        caption=_legend(advice),
    )
    table.add_column("engine", no_wrap=True)
    headings = ["grid", "reused", "left", "faster", "states", "regret"]
    for heading in (*headings, *(["future"] if has_clairvoyant else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    for engine in sorted(advice.engines, key=_rank):
        table.add_row(engine.title, *_cells(engine, advice))
    return table


def _legend(advice: Recommendation) -> str:
    left = {
        "flops": "FLOPs of all prefills that are left",
        "seconds": f"seconds of prefill that are left of {advice.total_cost:,.0f}",
    }.get(advice.cost_unit, "tokens that are left to compute")
    future = "" if advice.clairvoyant_fraction is None else "; future: the same for who knows it"
    return (
        f"grid: states at multiples of this many tokens; left: {left}, without queueing and answers; "
        f"faster: all of them / those; states: kept for a request; regret: tokens that the best policy "
        f"reuses and this engine does not{future}"
    )


def _rank(engine: EngineAdvice) -> float:
    return math.inf if engine.prefill_cost is None else engine.prefill_cost


def _cells(engine: EngineAdvice, advice: Recommendation) -> list[str]:
    outcome, left = engine.outcome, engine.prefill_cost
    if outcome is None or left is None:
        return ["-"] * 6
    cells = [
        f"{engine.grid:,}",
        f"{outcome.reused_fraction:.1%}",
        f"{left:,.0f}" if advice.cost_unit == "seconds" else f"{1.0 - outcome.saved_cost_fraction:.1%}",
        f"{advice.total_cost / left:.1f}x" if left else "",
        f"{outcome.mean_checkpoints_per_request:.2f}",
        f"{engine.regret_to_best:.1%}",
    ]
    if engine.regret_to_clairvoyant is not None:
        cells.append(f"{engine.regret_to_clairvoyant:.1%}")
    return cells


def _policies(advice: Recommendation) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"best of {len(advice.policies)} policies", overflow="fold")
    table.add_column("reused", justify="right")
    table.add_column("states/request", justify="right")
    for policy in advice.policies[:_NUM_POLICIES]:
        table.add_row(
            Text(policy.policy),
            f"{policy.reused_fraction:.1%}",
            f"{policy.mean_checkpoints_per_request:.2f}",
        )
    return table


def _print_instructions(engine: EngineAdvice, console: Console) -> None:
    title = engine.title
    if engine.outcome is not None:
        title += f", replayed as {engine.outcome.policy}"
    console.print(Text(title, style="bold"))
    console.print("─" * min(len(title), console.width), highlight=False)
    for command in engine.instructions.commands:
        _print_verbatim(command, console)
    for name, content in engine.instructions.files:
        _print_verbatim(f"# {name}\n{content.rstrip()}", console)
    for note in engine.instructions.notes:
        console.print(f"- {note}", markup=False, highlight=False)
    console.print()


def _print_verbatim(text: str, console: Console) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
