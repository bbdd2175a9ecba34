"""What was found, in plain words with numbers: the first thing that is read, and often the only one."""

from dataclasses import dataclass

from milepost.report.amounts import count, memory_in_words, percent, prefill_cost
from milepost.report.collect import OverlapEnd
from milepost.report.study import CLAIRVOYANT, PolicyView, TraceStudy

__all__ = ["Tile", "finding", "reading_of", "subject_of", "tiles"]

# Policies this close are not told apart by one trace.
_A_TIE = 0.002
_LITTLE = 0.005
_COSTS = {"seconds": "take", "flops": "cost", "tokens": "compute"}
_LOST_TO = {
    "alignment": "they lie after the last grid position",
    "placement": "no state was ever placed after them",
    "eviction": "their state was dropped for lack of memory",
}


@dataclass(frozen=True, slots=True)
class Tile:
    """One number large enough to be seen from the other side of the room."""

    value: str
    label: str


def subject_of(study: TraceStudy) -> PolicyView:
    """Return the view that the summary is about: the best competitor, the first asked for among equals."""
    ranked = study.ranked()
    best = ranked[0].policy if ranked else study.policies[0]
    return study.views[study.policies.index(best)]


def finding(study: TraceStudy) -> tuple[str, str]:
    """Return two sentences: who reused how much, and what that saves or what keeps it from more.

    What matters most stands between asterisks.
    """
    return _first_sentence(study), _second_sentence(study)


def tiles(study: TraceStudy) -> list[Tile]:
    """Return the numbers of the best policy at the focus."""
    view = subject_of(study)
    run = study.at_focus(view.policy)
    unit, cold, warm = study.cold.cost.unit, study.cold.summary(), view.prefill.summary()
    found = [Tile(percent(run.reused_fraction), f"of prompt tokens reused by {view.policy}")]
    if study.ceiling_fraction:
        found.append(
            Tile(
                percent(run.reused_fraction / study.ceiling_fraction),
                f"of the {percent(study.ceiling_fraction)} that endless memory could reuse",
            )
        )
    found.append(
        Tile(
            prefill_cost(warm.p50, unit),
            f"median prefill, {prefill_cost(cold.p50, unit)} without a cache",
        )
    )
    found.append(Tile(f"{run.mean_checkpoints_per_request:.2f}", "checkpoints stored a request"))
    return found


def reading_of(study: TraceStudy, name: str) -> str:
    """Return what to see in one of the figures, in a sentence or two."""
    return _READINGS[name](study)


def _first_sentence(study: TraceStudy) -> str:
    ranked = study.ranked()
    run = ranked[0] if ranked else study.at_focus(study.policies[0])
    given = _memory(study, study.focus_kv_tokens)
    if not study.ceiling_fraction:
        return (
            f"No policy could reuse anything: of {count(study.input_tokens)} prompt tokens in "
            f"{_requests(study)}, none repeat an earlier prompt's beginning as far as the grid reaches."
        )
    sentence = (
        f"With {given}, *{run.policy}* reuses *{percent(run.reused_fraction)}* of all prompt tokens; endless "
        f"memory could {percent(study.ceiling_fraction)}"
    )
    if len(ranked) < 2:
        return sentence + "."
    second = ranked[1]
    behind = run.reused_fraction - second.reused_fraction
    if behind < _A_TIE:
        return f"{sentence}, and {second.policy} does as well ({percent(second.reused_fraction)})."
    return f"{sentence}, and the next best policy, {second.policy}, reuses {percent(second.reused_fraction)}."


def _second_sentence(study: TraceStudy) -> str:
    view, unit = subject_of(study), study.cold.cost.unit
    cold, warm = study.cold.summary(), view.prefill.summary()
    told = [prefill_cost(each, unit) for each in (warm.p50, cold.p50, warm.p95, cold.p95)]
    sentence = (
        f"Half of the prefills then {_COSTS[unit]} at most {told[0]} ({told[1]} without a cache), and 95 % "
        f"at most {told[2]} ({told[3]})"
    )
    if not study.ceiling_fraction:
        return f"Every prefill begins at the first token: half {_COSTS[unit]} at most {told[0]}."
    total = view.losses.total()
    part = max(_LOST_TO, key=total.share)
    if total.share(part) < _LITTLE:
        return f"{sentence}; hardly a token that was seen before is computed again."
    return (
        f"{sentence}; {percent(total.share(part))} of all tokens are computed again because {_LOST_TO[part]}."
    )


def _read_frontier(study: TraceStudy) -> str:
    best = study.ranked()
    if not best:
        return "Only the clairvoyant was asked; nothing that can be run is compared with it."
    if len(study.capacities_kv_tokens) > 1:
        said = "Higher is better, and further left is cheaper. "
    else:
        said = "Longer is better; several capacities would show what memory buys. "
    if CLAIRVOYANT in study.policies:
        foreseen = study.at_focus(CLAIRVOYANT).reused_fraction
        points = 100 * (foreseen - best[0].reused_fraction)
        said += (
            f"A policy that knows the future reuses {percent(foreseen)} at "
            f"{_memory(study, study.focus_kv_tokens)}: {best[0].policy} is {abs(points):.1f} points "
        )
        # It takes one prompt and one victim at a time, which in memory for one or two is no bound.
        said += "from it. " if points >= 0 else "above it, which plans one prompt at a time. "
    least = _least_memory_as_good(study)
    return said + least


def _least_memory_as_good(study: TraceStudy) -> str:
    """Say where the best policy matches, with less memory, what the second has with more."""
    ranked = study.ranked()
    if len(ranked) < 2 or len(study.capacities_kv_tokens) < 2:
        return ""
    best, largest = ranked[0].policy, study.capacities_kv_tokens[-1]
    others = [study.result(run.policy, largest) for run in ranked[1:]]
    rival = max(others, key=lambda run: run.reused_tokens)
    for capacity in study.capacities_kv_tokens[:-1]:
        if study.result(best, capacity).reused_tokens >= rival.reused_tokens:
            return (
                f"With {_memory(study, capacity)}, {best} reuses at least what {rival.policy} does with "
                f"{_memory(study, largest)}."
            )
    return ""


def _read_overlaps(study: TraceStudy) -> str:
    overlaps = study.overlaps
    if not overlaps.num_shared:
        return "No prompt begins like an earlier one, so there is nothing to learn from."
    partings = overlaps.num_ending(OverlapEnd.KNOWN_PLACE) + overlaps.num_ending(OverlapEnd.NEW_PLACE)
    shared = overlaps.num_shared / (overlaps.num_shared + overlaps.num_unshared)
    near = sum(histogram.share_below(256) * histogram.total for histogram in overlaps.from_end.values())
    said = (
        f"{percent(shared, digits=0)} of the requests share something with an earlier one; "
        f"{percent(near / overlaps.num_shared, digits=0)} of these overlaps reach to within 256 tokens of "
        "its end"
    )
    if not partings:
        return said + ", and no two prompts diverge."
    known = overlaps.num_ending(OverlapEnd.KNOWN_PLACE) / partings
    where = "are at a place where others diverged before"
    return f"{said}. Of {count(partings)} partings, {percent(known, digits=0)} {where}."


def _read_placements(study: TraceStudy) -> str:
    is_all = len(study.views[0].sample.prompts) == study.num_requests
    which = "Each bar is a prompt" if is_all else "Each bar is a prompt of a random sample"
    return (
        f"{which}, the same for every policy, in order of arrival. The less orange, the better: it was seen "
        "before, but no state was there to resume from, or none any more."
    )


def _read_losses(study: TraceStudy) -> str:
    windows = study.views[0].losses
    view = subject_of(study)
    said = (
        f"Each step is {count(windows.window_requests)} request{'s' if windows.window_requests > 1 else ''}. "
        "Grey cannot be helped; orange is a state in the wrong place, red a state dropped too soon."
    )
    total = view.losses.total()
    return f"{said} {percent(total.share('unseen'))} of all tokens are new to any cache."


def _read_prefill(study: TraceStudy) -> str:
    unit = study.cold.cost.unit
    how = {
        "seconds": "Seconds come from the prefills that were measured; waiting for a turn is not in them.",
        "flops": "Work comes from the model's configuration, attention's quadratic part included.",
        "tokens": "Every token counts the same here; name a model for FLOPs, or time prefills for seconds.",
    }[unit]
    view = subject_of(study)
    saved = 1 - view.prefill.summary().mean / study.cold.summary().mean
    return f"{how} Over all requests, {view.policy} saves {percent(saved)} of the prefill."


_READINGS = {
    "frontier": _read_frontier,
    "overlaps": _read_overlaps,
    "placements": _read_placements,
    "losses": _read_losses,
    "prefill": _read_prefill,
}


def _memory(study: TraceStudy, kv_tokens: float) -> str:
    return memory_in_words(kv_tokens, study.kv_bytes_per_token)


def _requests(study: TraceStudy) -> str:
    return f"{count(study.num_requests)} request{'' if study.num_requests == 1 else 's'}"
