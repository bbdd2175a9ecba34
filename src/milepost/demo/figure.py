"""One picture of a comparison: what was recomputed, what it cost, and where the checkpoints sit."""

from pathlib import Path
from typing import Any

from milepost.demo.comparison import Comparison, PolicyRun
from milepost.report.palette import COLOURS, looks

__all__ = ["draw_comparison"]

_REUSED, _NEW = COLOURS["reused"].light, COLOURS["unseen"].light
_LOST = {
    "unseen": "never seen before",
    "alignment": "after the last grid position",
    "placement": "no checkpoint was placed there",
    "eviction": "its checkpoint was evicted",
}


def draw_comparison(comparison: Comparison, path: Path) -> None:
    """Write the picture to ``path`` (the suffix chooses the format)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 9), layout="constrained")
    FigureCanvasAgg(figure)
    (top_left, top_right), (bottom_left, bottom_right) = figure.subplots(2, 2)
    _draw_tokens(top_left, comparison)
    _draw_ttft(top_right, comparison)
    _draw_prompts(bottom_left, comparison)
    _draw_memory(bottom_right, comparison)
    figure.suptitle(
        f"{comparison.model}: {len(comparison.asks)} questions about "
        f"{len({ask.document for ask in comparison.asks})} documents, sessions interleaved, "
        f"{comparison.capacity_bytes / 1e6:.1f} MB for states and KV",
        fontsize=13,
    )
    figure.savefig(path, dpi=130)


def _draw_tokens(axes: Any, comparison: Comparison) -> None:
    """Where every prompt token went, policy by policy."""
    total = sum(ask.tokens.size for ask in comparison.asks)
    for row, run in enumerate(reversed(comparison.runs)):
        left = run.tokens_reused / total
        axes.barh(row, left, color=_REUSED, label="reused" if row == 0 else None)
        label = f"{left:.0%}" if left > 0.04 else ""
        axes.text(left / 2, row, label, ha="center", va="center", color=COLOURS["ink"].light)
        for cause, words in _LOST.items():
            share = sum(getattr(a.completion.report, cause) for a in run.answers) / total
            colour = COLOURS[cause].light
            axes.barh(row, share, left=left, color=colour, label=words if row == 0 else None)
            left += share
    axes.set_yticks(range(len(comparison.runs)), [run.policy for run in reversed(comparison.runs)])
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_title("Prompt tokens: reused, or recomputed and why")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=3, fontsize=8, frameon=False)


def _draw_ttft(axes: Any, comparison: Comparison) -> None:
    """Time to the first token of every request, sorted: the whole distribution, not two numbers of it."""
    looked = looks([run.policy for run in comparison.runs])
    for run in comparison.runs:
        ordered = sorted(a.completion.ttft_seconds * 1e3 for a in run.answers)
        shares = [(index + 1) / len(ordered) for index in range(len(ordered))]
        axes.step(
            ordered, shares, where="post", label=run.policy, color=looked[run.policy].colour, linewidth=1.8
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("time to first token, ms (capture included)")
    axes.set_ylabel("share of requests")
    axes.set_title("Time to first token")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def _draw_prompts(axes: Any, comparison: Comparison) -> None:
    """The last policy's prompts in order of arrival: reused, recomputed, and the checkpoints captured."""
    run = comparison.runs[-1]
    for row, answer in enumerate(run.answers):
        report = answer.completion.report
        axes.barh(row, report.reused, color=_REUSED, height=0.8)
        axes.barh(row, report.recomputed, left=report.reused, color=_NEW, height=0.8)
        positions = answer.completion.captured_positions
        axes.plot(
            positions,
            [row] * len(positions),
            "|",
            color=COLOURS["ink"].light,
            markersize=7,
            markeredgewidth=1.8,
        )
    axes.invert_yaxis()
    axes.set_xlabel("position in the prompt, tokens")
    axes.set_ylabel("request, in order of arrival")
    axes.set_title(f"'{run.policy}': resumed (blue), recomputed (grey), checkpoints captured (|)")


def _draw_memory(axes: Any, comparison: Comparison) -> None:
    """Bytes held against tokens recomputed: down and to the left is better."""
    looked = looks([run.policy for run in comparison.runs])
    for run in comparison.runs:
        axes.scatter(
            run.peak_bytes / 1e6,
            _recomputed_share(comparison, run),
            s=110,
            zorder=3,
            color=looked[run.policy].colour,
            marker=looked[run.policy].marker,
            label=f"{run.policy}: {run.peak_state_bytes / 1e6:.1f} MB of states",
        )
    budget = comparison.capacity_bytes / 1e6
    axes.axvline(
        budget, color=COLOURS["muted"].light, linestyle="--", linewidth=1, label=f"budget: {budget:.1f} MB"
    )
    axes.set_xlim(left=-0.03 * budget, right=budget * 1.1)
    axes.set_ylim(0, 1.1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("most memory held, states and KV, MB")
    axes.set_ylabel("prompt tokens recomputed")
    axes.set_title("Memory against work (down and left is better)")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", frameon=False, fontsize=9)


def _recomputed_share(comparison: Comparison, run: PolicyRun) -> float:
    return run.tokens_recomputed / sum(ask.tokens.size for ask in comparison.asks)
