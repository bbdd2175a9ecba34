"""Stands for vLLM's worker where no model runs, and keeps the books of every block.

It does what vLLM's does with block tables, copies and states. But where a real one computes, it writes down
*what would be in the block*: a KV slot holds the prefix that ends there, a state the prefix that it was
computed from. Before each step it compares what a request is about to read with what it must read. So a state
that was never computed, or is another prompt's, is caught without a model.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from vllm.v1.kv_cache_interface import MambaSpec
from vllm.v1.outputs import ModelRunnerOutput

NOTHING = 0
NULL_BLOCK = 0


@dataclass
class _Running:
    """A request as the worker knows it."""

    tokens: list
    blocks: list
    num_computed: int
    state_column: int | None = None
    num_known: int = 0
    prefixes: np.ndarray = field(default_factory=lambda: np.array([hash("start")], np.int64))

    def prefix(self, num_tokens: int) -> np.ndarray:
        """Return what stands for each prefix of up to ``num_tokens`` tokens, the empty one first. Not to be
        changed.
        """
        if num_tokens >= len(self.prefixes):
            self.prefixes = np.resize(self.prefixes, 2 * num_tokens + 1)
        if num_tokens > self.num_known:
            added = extended(int(self.prefixes[self.num_known]), self.tokens[self.num_known : num_tokens])
            self.prefixes[self.num_known + 1 : num_tokens + 1] = added
            self.num_known = num_tokens
        return self.prefixes[: num_tokens + 1]


def extended(prefix: int, tokens: Sequence[int]) -> list[int]:
    """Return what stands for the prefixes that go on from one by each of ``tokens``."""
    added = []
    for token in tokens:
        prefix = hash((prefix, token))
        added.append(prefix)
    return added


class SimulatedWorker:
    """See the module."""

    def __init__(self, kv_cache_config, *, block_size: int, seed: int) -> None:
        groups = [group.kv_cache_spec for group in kv_cache_config.kv_cache_groups]
        self._state_groups = [i for i, spec in enumerate(groups) if isinstance(spec, MambaSpec)]
        self._kv_groups = [i for i, spec in enumerate(groups) if not isinstance(spec, MambaSpec)]
        self._block_size = block_size
        state = groups[self._state_groups[0]] if self._state_groups else None
        self._export_tokens = getattr(state, "prefill_checkpoint_alignment", None)
        self._kv = np.full((kv_cache_config.num_blocks, block_size), NOTHING, np.int64)
        self._states = np.full(kv_cache_config.num_blocks, NOTHING, np.int64)
        self._requests: dict[str, _Running] = {}
        self._random = random.Random(seed)

    def execute(self, step, requests) -> ModelRunnerOutput:
        """Run one step; ``requests`` are the scheduler's."""
        for request_id in step.finished_req_ids:
            self._requests.pop(request_id, None)
        for new in step.scheduled_new_reqs:
            self._start(new.req_id, requests, [list(ids) for ids in new.block_ids], new.num_computed_tokens)
        cached = step.scheduled_cached_reqs
        for i, request_id in enumerate(cached.req_ids):
            new_ids = cached.new_block_ids[i]
            if request_id in cached.resumed_req_ids:
                blocks = [list(ids) for ids in new_ids]
                self._start(request_id, requests, blocks, cached.num_computed_tokens[i])
                continue
            running = self._requests[request_id]
            self._go_on(request_id, cached.num_computed_tokens[i])
            for group, ids in enumerate(new_ids or ()):
                running.blocks[group] += ids
        if step.kv_cache_block_copies:
            # All at once: what one copy writes, another does not read.
            self._copy(*np.array(step.kv_cache_block_copies).T)
        return self._forward(step)

    def _start(self, request_id, requests, blocks, num_computed) -> None:
        tokens = list(requests[request_id].all_token_ids)
        self._requests[request_id] = _Running(tokens, blocks, num_computed)

    def _go_on(self, request_id, num_computed) -> None:
        self._requests[request_id].num_computed = num_computed

    def _copy(self, sources, targets) -> None:
        self._kv[targets] = self._kv[sources]
        self._states[targets] = self._states[sources]

    def _state(self, block):
        """Return all that a block of a state holds."""
        return int(self._states[block])

    def _put_state(self, block, held) -> None:
        self._states[block] = held

    def _forward(self, step) -> ModelRunnerOutput:
        num_scheduled_tokens = step.num_scheduled_tokens
        # All reads come before all writes, as far as requests go: one step is one batch.
        for request_id, num_tokens in num_scheduled_tokens.items():
            self._read(request_id, num_tokens)
        sampled = []
        for request_id, num_tokens in num_scheduled_tokens.items():
            running = self._requests[request_id]
            self._write(running, num_tokens)
            is_sampled = running.num_computed + num_tokens >= len(running.tokens)
            sampled.append([self._random.randrange(4)] if is_sampled else [])
            running.tokens += sampled[-1]
            running.num_computed += num_tokens
        return model_output(list(num_scheduled_tokens), sampled)

    def _read(self, request_id, num_tokens) -> None:
        running = self._requests[request_id]
        start = running.num_computed
        expected = running.prefix(start + num_tokens)
        self._read_kv(request_id, start, expected)
        if running.state_column is None:
            running.state_column = (start - 1) // self._block_size
        if start:
            for group in self._state_groups:
                found = self._states[running.blocks[group][running.state_column]]
                assert found == expected[start], f"{request_id} reads a wrong state at {start}"

    def _read_kv(self, request_id, start, expected) -> None:
        num_blocks = -(-start // self._block_size)
        for group in self._kv_groups:
            blocks = self._requests[request_id].blocks[group][:num_blocks]
            found = self._kv[blocks].reshape(-1)[:start]
            assert np.array_equal(found, expected[1 : start + 1]), (
                f"{request_id} reads wrong KV before {start}"
            )

    def _write(self, running, num_tokens) -> None:
        start, end = running.num_computed, running.num_computed + num_tokens
        prefixes = running.prefix(end)
        self._write_kv(running, start, prefixes[start + 1 :])
        running.state_column = -(-end // self._block_size) - 1
        for group in self._state_groups:
            self._states[running.blocks[group][running.state_column]] = prefixes[end]
        if self._export_tokens is not None:
            self._export(running, *exported_by_the_worker(start, end, self._export_tokens, self._block_size))

    def _export(self, running, position, column) -> None:
        """Write the state at ``position``, inside the chunk that was computed, as layers do that can."""
        for group in self._state_groups if position else ():
            block = running.blocks[group][column]
            if block != NULL_BLOCK:
                self._states[block] = running.prefix(position)[position]

    def _write_kv(self, running, start, prefixes) -> None:
        positions = np.arange(start, start + len(prefixes))
        for group in self._kv_groups:
            blocks = np.array(running.blocks[group])[positions // self._block_size]
            self._kv[blocks, positions % self._block_size] = prefixes


def exported_by_the_worker(start, end, unit, block_size) -> tuple[int, int]:
    """Return what vLLM's own workers export of a chunk: the position, 0 if there is none, and its column."""
    from vllm.model_executor.layers.mamba.checkpoint import compute_mamba_prefill_checkpoints

    (offset,), (column,) = compute_mamba_prefill_checkpoints(
        [end],
        [end - start],
        hash_block_size=unit,
        mamba_block_size=block_size,
        checkpoint_alignment=unit,
        drop_eagle_block=False,
        cache_hit_alignment_tokens=unit,
    )
    return (start + offset if offset else 0), column


def model_output(request_ids, sampled) -> ModelRunnerOutput:
    """Return what vLLM's worker would."""
    return ModelRunnerOutput(
        req_ids=request_ids,
        req_id_to_index={each: i for i, each in enumerate(request_ids)},
        sampled_token_ids=sampled,
    )
