"""The comparison as one table."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from milepost.byte_size import format_bytes
from milepost.demo.comparison import Comparison

__all__ = ["comparison_table"]


def comparison_table(comparison: Comparison) -> Table:
    """Return one row a policy. The first row is the reference: every prompt computed from its first token."""
    reference = comparison.runs[0]
    total = sum(ask.tokens.size for ask in comparison.asks)
    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        title=(
            f"{len(comparison.asks)} prompts, {total:,} tokens, one budget of "
            f"{format_bytes(comparison.capacity_bytes)} for states and KV"
        ),
        caption=(
            "Identical: all answer tokens equal, and the logits after the prompt equal\nbit for bit, to "
            f"those of the first row ({comparison.numerics} numerics)." + _control(comparison)
        ),
    )
    table.add_column("policy")
    headings = [
        "states per\nprompt",
        "state\nbytes",
        "tokens\nrecomputed",
        "TTFT p50\nms",
        "p95\nms",
        "capture\noverhead",
        "outputs\nidentical",
    ]
    for heading in (*headings, "answers\nright") if comparison.num_known else headings:
        table.add_column(heading, justify="right")
    for run in comparison.runs:
        identical, answers = run.num_identical(reference), len(run.answers)
        colour = "green" if identical == answers else "bold red"
        table.add_row(
            run.policy,
            f"{run.checkpoints_per_prompt:.1f}",
            format_bytes(run.peak_state_bytes),
            f"{run.tokens_recomputed:,}",
            f"{run.ttft_seconds(50) * 1e3:.0f}",
            f"{run.ttft_seconds(95) * 1e3:.0f}",
            f"{run.capture_overhead:.1%}",
            f"[{colour}]{identical}/{answers}[/]",
            *([f"{run.num_right(comparison.asks)}/{comparison.num_known}"] if comparison.num_known else []),
        )
    return table


def _control(comparison: Comparison) -> str:
    right = comparison.num_right_from_lost_states
    if right is None:
        return ""
    return f"\nControl: resumed from zeroed states, {right}/{comparison.num_known} answers are right."
