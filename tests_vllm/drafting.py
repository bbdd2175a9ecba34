"""A scheduler without a model, and a simulated worker that drafts: it proposes tokens, verifies them in the
next step, and accepts some.

What vLLM's worker does with states then (``vllm/v1/worker/mamba_utils.py``), column by column of the block
table, a column for each block of the request:

    before a step   where its last column is another than that of the step before, the state after the last
                    accepted token is copied there (``preprocess_mamba``)
    in the step     the state after each draft goes to a column of its own: the running one and the scratch
                    columns behind it
    after it        where what was accepted passes a block boundary, the state at the boundary is copied into
                    the column that ends there (``postprocess_mamba_align_gpu``)

A recurrent state is copied whole. The window of a convolution holds that of every draft, in one block, and is
shifted when it is copied. Both are simulated, and each is checked when it is read.

With asynchronous scheduling, a step is scheduled as if all drafts of the one before were accepted, and the
drafts themselves are known to the worker alone. How many are accepted is kept for each request, as the model
runner V2 does.
"""

from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from bare_scheduler import BareEngine
from simulated_worker import NOTHING, SimulatedWorker, extended, model_output
from vllm.v1.kv_cache_interface import MambaSpec
from vllm.v1.outputs import DraftTokenIds

# A token that a draft is padded with; it is never accepted.
PADDING = -1


@dataclass
class _Drafting:
    """What the worker remembers of a request's drafts."""

    num_accepted: int = 1
    num_rejected: int = 0
    proposed: list = field(default_factory=list)


@dataclass
class _Row:
    """One request in one step: ``known`` is where its drafts begin, ``prefixes`` go to their end."""

    request_id: str
    running: object
    start: int
    known: int
    drafts: list
    prefixes: np.ndarray
    column: int


class DraftingWorker(SimulatedWorker):
    """See the module.

    Args:
        num_drafts: Most drafts of a step.
        least_drafts: Fewest that are proposed.
        is_async: Whether the step before is still to be taken in by the scheduler.
    """

    def __init__(self, kv_cache_config, *, num_drafts, least_drafts, is_async, **options) -> None:
        super().__init__(kv_cache_config, **options)
        self._num_drafts, self._least_drafts, self._is_async = num_drafts, least_drafts, is_async
        self._windows = np.full((kv_cache_config.num_blocks, num_drafts + 1), NOTHING, np.int64)
        self._drafting: dict[str, _Drafting] = {}
        self._previous: set[str] = set()
        self.num_accepted = self.num_rejected = 0

    def proposals(self) -> DraftTokenIds:
        """Return the drafts for the next step of those that were in the last."""
        ids = [each for each in self._previous if each in self._drafting]
        return DraftTokenIds(ids, [list(self._drafting[each].proposed) for each in ids])

    def _start(self, request_id, requests, blocks, num_computed) -> None:
        super()._start(request_id, requests, blocks, num_computed)
        self._drafting[request_id] = _Drafting()

    def _go_on(self, request_id, num_computed) -> None:
        in_flight = self._is_async and request_id in self._previous
        not_told = self._drafting[request_id].num_rejected if in_flight else 0
        assert num_computed - not_told == self._requests[request_id].num_computed, (
            f"{request_id} is scheduled at {num_computed}, of which {not_told} drafts were rejected, and has "
            f"come to {self._requests[request_id].num_computed}"
        )

    def _copy(self, sources, targets) -> None:
        super()._copy(sources, targets)
        self._windows[targets] = self._windows[sources]

    def _state(self, block):
        return super()._state(block), self._windows[block].copy()

    def _put_state(self, block, held) -> None:
        state, self._windows[block] = held
        super()._put_state(block, state)

    def _forward(self, step):
        rows = [self._row(step, request_id) for request_id in step.num_scheduled_tokens]
        for row in rows:
            self._read_kv(row.request_id, row.start, row.prefixes)
            self._read_state(row)
        for row in rows:
            self._write_kv(row.running, row.start, row.prefixes[row.start + 1 :])
            self._write_states(row)
        sampled = [self._sample(row) for row in rows]
        self._previous = set(step.num_scheduled_tokens)
        return model_output(list(step.num_scheduled_tokens), sampled)

    def _row(self, step, request_id) -> _Row:
        running, num_tokens = self._requests[request_id], step.num_scheduled_tokens[request_id]
        scheduled = step.scheduled_spec_decode_tokens.get(request_id, [])
        drafts, start = self._drafts(request_id, scheduled), running.num_computed
        known = start + num_tokens - len(drafts)
        assert known <= len(running.tokens), f"{request_id} computes tokens that are not there yet"
        assert not drafts or known == start + 1 == len(running.tokens), f"{request_id} drafts in its prompt"
        prefixes = running.prefix(known)
        prefixes = np.append(prefixes, np.array(extended(int(prefixes[-1]), drafts), np.int64))
        column = -(-(start + num_tokens) // self._block_size) - 1
        return _Row(request_id, running, start, known, drafts, prefixes, column)

    def _drafts(self, request_id, scheduled) -> list:
        if not self._is_async:
            return list(scheduled)
        # Placeholders: the drafts are the worker's. A request that was left out of a step has none.
        proposed = self._drafting[request_id].proposed if request_id in self._previous else []
        return [*proposed, *[PADDING] * len(scheduled)][: len(scheduled)]

    def _read_state(self, row) -> None:
        running, drafting = row.running, self._drafting[row.request_id]
        before = running.state_column
        if before is None:
            before = (row.start - 1) // self._block_size
        if row.start and before != row.column:
            self._move(running, before, row.column, shift=drafting.num_accepted - 1)
            drafting.num_accepted = 1
        running.state_column = row.column
        if not row.start:
            return
        at, expected = drafting.num_accepted - 1, row.prefixes[row.start]
        for group in self._state_groups:
            blocks = running.blocks[group]
            assert self._states[blocks[row.column + at]] == expected, (
                f"{row.request_id} reads a wrong state at {row.start}"
            )
            assert self._windows[blocks[row.column], at] == expected, (
                f"{row.request_id} reads a wrong window at {row.start}"
            )

    def _write_states(self, row) -> None:
        for group in self._state_groups:
            after = row.prefixes[row.known :]
            columns = row.running.blocks[group][row.column : row.column + len(after)]
            # The first block stands for none.
            num_blocks = sum(map(bool, columns))
            assert num_blocks == len(after), f"{row.request_id} has no block for the state of a draft"
            self._states[columns] = after
            self._windows[columns[0]] = NOTHING
            self._windows[columns[0], : len(after)] = after

    def _sample(self, row) -> list:
        """Accept some drafts, sample one more token, and keep the state at a boundary that was passed."""
        running, drafting = row.running, self._drafting[row.request_id]
        is_sampled = row.known >= len(running.tokens)
        num_taken = self._num_taken(row.drafts) if is_sampled else 0
        sampled = [*row.drafts[:num_taken], self._random.randrange(4)] if is_sampled else []
        drafting.num_accepted, drafting.num_rejected = num_taken + 1, len(row.drafts) - num_taken
        drafting.proposed = self._propose() if is_sampled else []
        self.num_accepted += num_taken
        self.num_rejected += drafting.num_rejected
        running.tokens += sampled
        running.num_computed = row.known + num_taken
        self._keep_boundary(row, drafting)
        return sampled

    def _num_taken(self, drafts) -> int:
        most = drafts.index(PADDING) if PADDING in drafts else len(drafts)
        return most if self._random.random() < 0.4 else self._random.randint(0, most)

    def _propose(self) -> list:
        num = self._random.randint(self._least_drafts, self._num_drafts)
        return [self._random.randrange(4) for _ in range(num)]

    def _keep_boundary(self, row, drafting) -> None:
        boundary = row.running.num_computed // self._block_size * self._block_size
        if boundary < row.known:
            return
        column, shift = boundary // self._block_size - 1, boundary - row.known
        if column != row.column or shift:
            self._move(row.running, row.column, column, shift=shift)
        if column == row.column:
            drafting.num_accepted = 1

    def _move(self, running, source, target, *, shift) -> None:
        for group in self._state_groups:
            blocks = running.blocks[group]
            self._states[blocks[target]] = self._states[blocks[source + shift]]
            shifted = self._windows[blocks[source], shift:].copy()
            self._windows[blocks[target]] = NOTHING
            self._windows[blocks[target], : len(shifted)] = shifted


class DraftingEngine(BareEngine):
    """``BareEngine`` with drafts.

    Args:
        method: "ngram", whose drafts are known to the scheduler; or "mtp", whose caches hang on the token
            after a block, so that hashes look ahead or hits lose their last block.
        num_drafts: Most drafts of a step.
        is_async: As in ``BareEngine``.
        speculative: More of vLLM's speculative configuration.
        worker_cls: Makes the worker, of the arguments of ``DraftingWorker``.
    """

    def __init__(
        self,
        model,
        *,
        method="ngram",
        num_drafts=3,
        is_async=False,
        speculative=None,
        worker_cls=DraftingWorker,
        **options,
    ) -> None:
        self._num_drafts, self._is_async = num_drafts, is_async
        given = {"method": method, "num_speculative_tokens": num_drafts}
        if method == "ngram":
            given["prompt_lookup_max"] = 3
        # Where it schedules ahead, vLLM counts on as many as there may be.
        is_full = is_async or method != "ngram"
        super().__init__(
            model,
            is_async=is_async,
            speculative_config=given | (speculative or {}),
            worker_cls=partial(
                worker_cls,
                num_drafts=num_drafts,
                least_drafts=num_drafts if is_full else 0,
                is_async=is_async,
            ),
            **options,
        )

    @property
    def worker(self) -> DraftingWorker:
        """The simulated worker."""
        return self._worker

    def _caches(self, *arguments):
        caches = super()._caches(*arguments)
        for group in caches.kv_cache_groups:
            if isinstance(group.kv_cache_spec, MambaSpec):
                spec = replace(group.kv_cache_spec, num_speculative_blocks=self._num_drafts)
                group.kv_cache_spec = spec
        return caches

    def _finish_step(self) -> None:
        super()._finish_step()
        if not self._is_async:
            self.scheduler.update_draft_token_ids(self._worker.proposals())
