"""The numbers behind each figure, for those who would rather read them, or cannot see."""

from collections.abc import Sequence
from dataclasses import dataclass

from milepost.report.amounts import count, memory, percent, prefill_cost, short
from milepost.report.collect import PARTING_ORDINALS, LogHistogram, OverlapEnd
from milepost.report.figures.overlaps import KIND_WORDS
from milepost.report.palette import PARTS
from milepost.report.study import TraceStudy
from milepost.simulator import NOMINAL_KV_BYTES_PER_TOKEN, SimulationResult

__all__ = ["Table", "overview", "table_of"]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text. The first cell of each row names it.

    Attributes:
        caption: What it is.
        columns: Their names.
        rows: As many cells each.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def table_of(study: TraceStudy, name: str) -> Table:
    """Return the table of a figure."""
    return _TABLES[name](study)


def overview(studies: Sequence[TraceStudy]) -> Table:
    """Return one row a trace: what each policy reused of it at the focus."""
    rows = [
        (
            study.trace,
            memory(study.focus_kv_tokens, study.kv_bytes_per_token),
            *(percent(study.at_focus(policy).reused_fraction) for policy in study.policies),
            percent(study.ceiling_fraction),
        )
        for study in studies
    ]
    return Table("Prompt tokens reused", ["trace", "memory", *studies[0].policies, "ceiling"], rows)


def _frontier(study: TraceStudy) -> Table:
    kv_bytes, has_kv = study.kv_bytes_per_token, study.results[0].has_kv
    rows = [
        [
            run.policy,
            memory(run.capacity_kv_tokens, kv_bytes),
            count(run.capacity_kv_tokens),
            percent(run.reused_fraction, digits=2),
            count(run.reused_tokens),
            count(run.peak_kv_tokens) if has_kv else memory(run.peak_kv_tokens, kv_bytes),
            f"{run.mean_checkpoints_per_request:.3f}",
            *(percent(getattr(run.lost, part) / run.input_tokens, digits=2) for part in _LOSSES),
        ]
        for run in study.results
    ]
    columns = ["policy", "memory", "in KV tokens", "reused", "tokens reused"]
    columns.append("peak KV tokens" if has_kv else "peak memory")
    columns += ["checkpoints per request", *(f"lost: {part}" for part in _LOSSES)]
    caption = (
        f"{count(study.input_tokens)} prompt tokens in {count(study.num_requests)} requests; "
        f"{_price(study.results[0])}; ceiling "
        f"{percent(study.ceiling_fraction, digits=2)}"
    )
    if not kv_bytes or not has_kv:
        # Memory is known in one of the two measures.
        left_out = 2 if kv_bytes else 1
        for cells in (columns, *rows):
            del cells[left_out]
    return Table(caption, columns, rows)


def _price(run: SimulationResult) -> str:
    if not run.has_kv:
        taken = memory(run.checkpoint_kv_tokens, NOMINAL_KV_BYTES_PER_TOKEN)
        return f"a checkpoint takes {taken}, and there is no KV"
    if not run.checkpoint_kv_tokens:
        return "there is no state: KV alone is resumed from"
    return f"a checkpoint costs {short(run.checkpoint_kv_tokens, digits=4)} tokens of KV"


def _overlaps(study: TraceStudy) -> Table:
    overlaps = study.overlaps
    rows: list[tuple[str, ...]] = []
    for words, by_kind in (("from start", overlaps.from_start), ("from end", overlaps.from_end)):
        rows += _distance_rows(words, by_kind)
    for least, following, number in zip(
        PARTING_ORDINALS, [*PARTING_ORDINALS[1:], 0], overlaps.ordinals, strict=True
    ):
        name = (
            str(least)
            if following == least + 1
            else f"{least} to {following - 1}"
            if following
            else f"{least} on"
        )
        known = ("0", count(number), "0") if least > 1 else ("0", "0", count(number))
        rows.append((f"at branch points: prompt {name} to diverge there", *known))
    caption = f"{count(overlaps.num_shared)} overlaps; {count(overlaps.num_unshared)} requests shared nothing"
    return Table(caption, ["distance in tokens", *(KIND_WORDS[kind] for kind in OverlapEnd)], rows)


def _distance_rows(words: str, by_kind: dict[OverlapEnd, LogHistogram]) -> list[tuple[str, ...]]:
    bounds: dict[tuple[float, float], dict[OverlapEnd, int]] = {}
    for kind, histogram in by_kind.items():
        for each in histogram.bins():
            bounds.setdefault((each.low, each.high), {})[kind] = each.count
    return [
        (f"{words}: {_between(low, high)}", *(count(numbers.get(kind, 0)) for kind in OverlapEnd))
        for (low, high), numbers in sorted(bounds.items())
    ]


def _between(low: float, high: float) -> str:
    """Return the whole numbers in ``[low, high)``."""
    if not high:
        return "0"
    first, last = -int(-low // 1), -int(-high // 1) - 1
    return count(first) if last <= first else f"{count(first)} to {count(last)}"


def _placements(study: TraceStudy) -> Table:
    rows = []
    for view in study.views:
        rows += [
            (
                f"{view.policy}, request {count(prompt.number)}",
                count(prompt.num_tokens),
                count(prompt.resume_position),
                count(prompt.reached_position),
                count(prompt.overlap_depth),
                _listed(prompt.placed),
            )
            for prompt in view.sample.prompts
        ]
    columns = ["prompt", "tokens", "resumed at", "once kept to", "diverged at", "checkpoints placed at"]
    return Table("The sampled prompts; positions in tokens from the start", columns, rows)


def _listed(positions: Sequence[int]) -> str:
    shown = ", ".join(count(position) for position in positions[:_MOST_LISTED])
    more = len(positions) - _MOST_LISTED
    return (f"{shown} and {count(more)} more" if more > 0 else shown) or "none"


def _losses(study: TraceStudy) -> Table:
    rows = []
    for view in study.views:
        windows = [*view.losses.windows, view.losses.total()]
        for window in windows:
            last = window.first_request + window.num_requests
            rows.append(
                (
                    f"{view.policy}, requests {count(window.first_request + 1)} to {count(last)}",
                    count(window.num_tokens),
                    *(percent(window.share(part), digits=2) for part in PARTS),
                )
            )
    return Table("Shares of the prompt tokens; the last row of each policy is all of them",
                 ["requests", "tokens", *PARTS], rows)  # fmt: skip


def _prefill(study: TraceStudy) -> Table:
    cold = study.cold.summary()
    unit = study.cold.cost.unit
    rows = []
    for name, estimates in study.prefills:
        summary = estimates.summary()
        rows.append(
            (
                name,
                *(prefill_cost(amount, unit) for amount in (summary.p50, summary.p95, summary.mean)),
                *(
                    percent(amount / reference) if reference else ""
                    for amount, reference in (
                        (summary.p50, cold.p50),
                        (summary.p95, cold.p95),
                        (summary.mean, cold.mean),
                    )
                ),
            )
        )
    columns = ["policy", "p50", "p95", "mean", "p50 of cold", "p95 of cold", "mean of cold"]
    return Table("Estimated prefill, and as a share of a prefill without a cache", columns, rows)


_LOSSES = ("unseen", "placement", "eviction", "alignment")
_MOST_LISTED = 12
_TABLES = {
    "frontier": _frontier,
    "overlaps": _overlaps,
    "placements": _placements,
    "losses": _losses,
    "prefill": _prefill,
}
