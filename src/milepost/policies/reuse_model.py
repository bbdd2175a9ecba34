"""What the learned policy knows of the traffic: where requests diverge from earlier prompts, whether and when
they come, and what a byte is worth.
"""

from collections.abc import Sequence
from typing import Any, final

import numpy as np

from milepost.overlap import BoundaryModel, OverlapDistribution, OverlapModel, with_points
from milepost.policies.forecast import Forecast
from milepost.policies.generations import (
    continues,
    generation_after,
    generation_row,
    is_overlap,
    num_generation_rows,
)
from milepost.policies.older_branches import older_branch_point
from milepost.reuse import HazardTable, ReturnRates
from milepost.store import BranchPoint, Checkpoint, InsertResult, Node, Reranking, SeenPrompt

__all__ = ["ReuseModel"]

# Kinds of prompts: nobody has followed it; another has diverged from it; another has taken over most of it.
_FRESH, _BRANCHED, _CONTINUED = 0, 1, 2
_KIND_PRIORS = (1.0, 0.3, 0.1)
_BRANCH_PRIORS = (0.3,)
# Lengths by powers of two, from 64 tokens on.
_LENGTH_COLUMNS = 12
# All predictions are made anew whenever the evidence has doubled, up to 2**7 sharings, about as many as the
# overlap model remembers.
_LAST_VERSION = 7
_OUTDATED = -1
# How much each eviction says about the price, and each request for which nothing was stored or evicted.
_PRICE_WEIGHT = 0.05
# A capture is not quite free: a checkpoint adds at least this share of what a prompt can save at all. More is
# asked before the first sharing, when nobody knows what will be shared, and half of it after two.
_LEAST_GAIN = 1 / 128
_LEAST_GAIN_AT_FIRST = 1 / 16


@final
class ReuseModel:
    """What is learned from the requests, for both halves of the policy."""

    def __init__(self) -> None:
        self.overlap = OverlapModel()
        self.boundaries = BoundaryModel()
        self.prompts: HazardTable[SeenPrompt] = HazardTable(
            kind_priors=_KIND_PRIORS, rows=2 * num_generation_rows(), columns=_LENGTH_COLUMNS
        )
        self.branch_points: HazardTable[BranchPoint] = HazardTable(
            kind_priors=_BRANCH_PRIORS, rows=num_generation_rows()
        )
        self.returns = ReturnRates(num_generation_rows())
        self.first_branch_cell = self.prompts.index.size
        self._version = 0
        self.scales_version = 0
        # Both indices side by side, as the scales of the cells.
        self.scales = np.empty(self.first_branch_cell + self.branch_points.index.size)
        # As a list, since they are looked up one at a time.
        self.rates: list[float] = []
        self._gather()
        #: Worth of a byte: expected saving per request, of what was evicted lately.
        self.price = 0.0
        self._layouts: tuple[tuple[int, int], ...] = ()
        self._has_evicted = False
        self._latest = SeenPrompt(0)

    @property
    def least_gain(self) -> float:
        """Share of what a prompt can save that one checkpoint has to add."""
        return max(_LEAST_GAIN, _LEAST_GAIN_AT_FIRST / (1.0 + self.overlap.num_shared / 2.0))

    def fresh_rate(self, num_tokens: int, generation: int, *, has_branches: bool = False) -> float:
        """Return the rate of requests that follow a prompt just seen, those left out that diverge at watched
        branch points, where it ``has_branches``.
        """
        return float(self.prompts.index[self._hazard_class(num_tokens, generation, has_branches, _FRESH), 0])

    def expected_returns(self, generation: int, *, proven: bool = False) -> float:
        """Return how many requests a prompt just seen will bring; ``proven``, by the evidence alone."""
        return self.returns.expected(generation_row(generation), proven=proven)

    def branch_rate(self, branch_point: BranchPoint, *, visited_now: bool) -> float:
        """Return the rate of requests that diverge at a watched branch point."""
        table = self.branch_points
        if visited_now:
            return float(table.index[table.hazard_class(0, generation_row(branch_point.visits)), 0])
        return float(table.index[branch_point.hazard_class, branch_point.age_bin])

    @property
    def new_branch_rate(self) -> float:
        """Rate of requests that diverge where two have for the first time just now."""
        return float(self.branch_points.index[self.branch_points.hazard_class(0, generation_row(0)), 0])

    def is_branch_point(self, depth: int, earlier_tokens: int, num_tokens: int, *, num_visits: int) -> bool:
        """Say whether a place is to be watched where a prompt of ``num_tokens`` has left an earlier one.

        Near the end of the earlier prompt it may as well go on from that. But where another one has left
        before, at the same token, neither does.
        """
        overlap = self.overlap
        return overlap.is_divergence(depth, earlier_tokens) or (
            num_visits > 0 and overlap.is_divergence(depth, num_tokens)
        )

    def predict(self, num_tokens: int, breakpoints: tuple[int, ...]) -> OverlapDistribution:
        """Return where the next request will diverge from a prompt."""
        expected = self.overlap.predict(num_tokens)
        if breakpoints:
            expected = self._with_breakpoints(expected, num_tokens, breakpoints)
        return expected

    def remembered(self, expected: OverlapDistribution) -> Forecast:
        """Return what was predicted just now as it is kept with a prompt."""
        return Forecast(expected, self._version, [])

    def forecast(self, prompt: SeenPrompt) -> Forecast:
        """Return where the next request will diverge from a prompt that is remembered, predicted once for
        each version of the evidence.
        """
        found = prompt.forecast
        assert found is None or isinstance(found, Forecast)
        if found is None or found.version < self._version:
            forecast = self.remembered(self.predict(prompt.num_tokens, prompt.breakpoints))
            forecast.meet([] if found is None else found.branch_points)
            found = prompt.forecast = forecast
        return found

    def _with_breakpoints(
        self, expected: OverlapDistribution, num_tokens: int, breakpoints: tuple[int, ...]
    ) -> OverlapDistribution:
        """Return the mixture of what is expected anyway with divergence at the boundaries of a prompt."""
        known = [
            (depth, share) for depth, share in self.boundaries.predict(breakpoints) if depth < num_tokens
        ]
        rest = max(0.0, 1.0 - sum(share for _, share in known))
        return OverlapDistribution(*with_points(expected.depths, expected.weights * rest, known))

    def observe(self, inserted: InsertResult) -> Reranking:
        """Learn from one request; return the checkpoints whose worth has changed. O(log n) amortised."""
        if not self._has_evicted and not self._latest.owned:
            # Where nothing comes and nothing has to go, memory is worth less than was thought.
            self.price -= self.price * _PRICE_WEIGHT
        self._has_evicted, self._latest = False, inserted.prompt
        version = self._version
        changed: list[Checkpoint] = []
        moved = self._age(changed)
        new, earlier = inserted.prompt, inserted.earlier
        if earlier is not None:
            generation = generation_after(earlier, inserted.overlap_depth)
            if generation is not None:
                new.generation = generation
                self.returns.note_return(generation_row(earlier.generation))
                self._credit(inserted, earlier)
                older = older_branch_point(inserted)
                if older is not None:
                    self._visit(older)
        self.returns.note_prompt(generation_row(new.generation))
        points = (node.branch_point for node in inserted.path)
        watched = [point for point in points if point is not None and point.is_tracked]
        new.has_branches = bool(watched)
        self.forecast(new).meet(watched)
        self.watch(new)
        for old, passed_tokens in inserted.passed.items():
            self._pass(old, passed_tokens)
            changed += old.owned.values()
        return Reranking(changed, moved, everything=self._version > version)

    def watch(self, prompt: SeenPrompt) -> None:
        """Expect that a prompt seen just now is followed."""
        self.prompts.track(prompt, self._class_of(prompt, _FRESH))

    def extend(self, prompt: SeenPrompt) -> None:
        """Expect anew where others diverge from a prompt that goes on."""
        if isinstance(prompt.forecast, Forecast):
            prompt.forecast.version = _OUTDATED
        if prompt.is_tracked:
            self.prompts.reclassify(prompt, self._class_of(prompt, _FRESH))

    def export(self) -> dict[str, Any]:
        """Return what was learned of the traffic, as plain numbers: no prompt, and nothing of one."""
        return {
            "overlap": self.overlap.export(),
            "boundaries": self.boundaries.export(),
            "prompts": self.prompts.export(),
            "junctions": self.branch_points.export(),
            "returns": self.returns.export(),
            "price": self.price,
            "layouts": [list(each) for each in self._layouts],
        }

    def restore(self, exported: dict[str, Any]) -> None:
        """Take over what :meth:`export` gave, before the first request; raise ``ValueError`` where that
        cannot be.
        """
        self.overlap.restore(exported["overlap"])
        self.boundaries.restore(exported["boundaries"])
        self.prompts.restore(_told_apart(exported["prompts"], num_cells=self.prompts.index.size))
        self.branch_points.restore(exported["junctions"])
        self.returns.restore(exported["returns"])
        self.price = max(0.0, float(exported["price"]))
        # Files of before told of none.
        for grid_tokens, checkpoint_bytes in exported.get("layouts", ()):
            self.note_layout(grid_tokens=int(grid_tokens), checkpoint_bytes=int(checkpoint_bytes))
        self._version = min(_LAST_VERSION, self.overlap.num_shared.bit_length())
        self._gather()

    def merge(self, exports: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return one export of several, all learned in caches of one layout: see
        :mod:`milepost.policies.merged_lessons`.
        """
        return {
            "overlap": self.overlap.merge([each["overlap"] for each in exports]),
            "boundaries": self.boundaries.merge([each["boundaries"] for each in exports]),
            "prompts": self.prompts.merge([each["prompts"] for each in exports]),
            "junctions": self.branch_points.merge([each["junctions"] for each in exports]),
            "returns": self.returns.merge([each["returns"] for each in exports]),
            "price": sum(each["price"] for each in exports) / len(exports),
            "layouts": exports[0]["layouts"],
        }

    @property
    def layouts(self) -> tuple[tuple[int, int], ...]:
        """The layouts that it was learned in: see :meth:`note_layout`. More than one where they changed."""
        return self._layouts

    def note_layout(self, *, grid_tokens: int, checkpoint_bytes: int) -> None:
        """Note what depths and worths are measured in from now on: the tokens between two positions where a
        checkpoint may sit, and what one takes.
        """
        layout = (grid_tokens, checkpoint_bytes)
        if layout not in self._layouts:
            self._layouts = (*self._layouts, layout)

    def forget(self, node: Node) -> None:
        """Stop watching what only ``node`` told of."""
        if not node.owner.owned and node.owner.passed_tokens <= node.start:
            self.prompts.release(node.owner)
            node.owner.forecast = None
        if node.branch_point is not None:
            self.branch_points.release(node.branch_point)
            node.branch_point.covered_by = None

    def note_price(self, worth: float) -> None:
        """Learn what an evicted byte was worth."""
        self.price += (worth - self.price) * (_PRICE_WEIGHT if self.price else 1.0)
        self._has_evicted = True

    def _age(self, changed: list[Checkpoint]) -> list[tuple[SeenPrompt, int]]:
        """Let one request pass; return the prompts that belong to another cell now, with those cells."""
        moved: list[tuple[SeenPrompt, int]] = []
        for prompt in self.prompts.advance():
            if prompt.owned:
                moved.append((prompt, prompt.cell))
            else:
                # It has nothing to be ranked by it, and forecasts are large.
                prompt.forecast = None
        aged = [branch_point.covered_by for branch_point in self.branch_points.advance()]
        changed += [checkpoint for checkpoint in aged if checkpoint is not None]
        if self.prompts.solve_if_due() | self.branch_points.solve_if_due():
            self._gather()
        return moved

    def _credit(self, inserted: InsertResult, earlier: SeenPrompt) -> None:
        """Count the request as a use of the branch point where it diverged, or else of the earlier prompt."""
        branch_point, depth = inserted.branch_point, inserted.overlap_depth
        if branch_point is not None and branch_point.is_tracked:
            self._visit(branch_point)
            return
        self.prompts.note_use(earlier)
        num_tokens = max(earlier.num_tokens, depth)
        if earlier.breakpoints:
            boundary = self.boundaries.at(earlier.breakpoints, depth)
            expected = 0.0
            if boundary is not None:
                plain = self.remembered(self.predict(earlier.num_tokens, ()))
                expected = plain.chance(boundary, boundary + self.boundaries.width, 0)
            self.boundaries.observe(earlier.breakpoints, depth, expected=expected)
        self.overlap.observe(depth, num_tokens)
        if self.overlap.num_shared == 1 << self._version and self._version < _LAST_VERSION:
            # What was predicted from half of the evidence is not worth much.
            self._version += 1
        if not inserted.is_diverging:
            return
        assert branch_point is not None
        if self.is_branch_point(
            depth, num_tokens, inserted.prompt.num_tokens, num_visits=branch_point.visits
        ):
            self._visit(branch_point)
        else:
            branch_point.visits += 1

    def _visit(self, branch_point: BranchPoint) -> None:
        """Count the request as a use of the branch point, where that is watched; watch it from now on."""
        table = self.branch_points
        table.note_use(branch_point)
        branch_point.visits += 1
        table.track(branch_point, table.hazard_class(0, generation_row(branch_point.visits - 1)))

    def _pass(self, old: SeenPrompt, passed_tokens: int) -> None:
        """Take from ``old`` what a later prompt has passed through."""
        old.passed_tokens = max(old.passed_tokens, passed_tokens)
        if not is_overlap(old.num_tokens - old.passed_tokens) and not old.owned:
            self.prompts.release(old)
        elif continues(passed_tokens, old.num_tokens):
            self.prompts.reclassify(old, self._class_of(old, _CONTINUED))
        elif is_overlap(passed_tokens) and old.hazard_class < self._class_of(old, _CONTINUED):
            self.prompts.reclassify(old, self._class_of(old, _BRANCHED))

    def _class_of(self, prompt: SeenPrompt, kind: int) -> int:
        return self._hazard_class(prompt.num_tokens, prompt.generation, prompt.has_branches, kind)

    def _hazard_class(self, num_tokens: int, generation: int, has_branches: bool, kind: int) -> int:
        length = max(0, num_tokens.bit_length() - 6)
        # Who diverges at a branch point is counted there. So prompts that have one bring fewer by themselves,
        # and would make those seem asked for less that have none.
        row = generation_row(generation) + (num_generation_rows() if has_branches else 0)
        return self.prompts.hazard_class(kind, row, length)

    def _gather(self) -> None:
        self.scales[: self.first_branch_cell] = self.prompts.index.reshape(-1)
        self.scales[self.first_branch_cell :] = self.branch_points.index.reshape(-1)
        self.rates = self.scales.tolist()
        self.scales_version += 1


def _told_apart(exported: dict[str, Any], *, num_cells: int) -> dict[str, Any]:
    """Return the counts of prompts for a table of ``num_cells``. Those of an older version, which did not
    tell prompts with branch points from others, count as of prompts without.
    """
    if len(exported["uses"]) * 2 != num_cells:
        return exported
    older = {
        name: np.array(exported[name]).reshape(len(_KIND_PRIORS), num_generation_rows(), -1)
        for name in ("uses", "exposure")
    }
    told_apart = {
        name: np.concatenate((each, np.zeros_like(each)), 1).ravel().tolist() for name, each in older.items()
    }
    return {**exported, **told_apart}
