"""A scheduler without a model: requests come and go, and a simulated worker keeps the books of every block.

The worker does what vLLM's does with block tables, copies and states. But where a real one computes, it
writes down *what would be in the block*: a KV slot holds the prefix that ends there, a state the prefix that
it was computed from. Before each step it compares what a request is about to read with what it must read. So
a state that was never computed, or is another prompt's, is caught without a model.
"""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from vllm.engine.arg_utils import EngineArgs
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import get_hash_fn_by_name
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.kv_cache_interface import (
    FullAttentionSpec,
    KVCacheConfig,
    KVCacheGroupSpec,
    MambaSpec,
    MLAAttentionSpec,
)
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

NOTHING = 0


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

    def _write_kv(self, running, start, prefixes) -> None:
        positions = np.arange(start, start + len(prefixes))
        for group in self._kv_groups:
            blocks = np.array(running.blocks[group])[positions // self._block_size]
            self._kv[blocks, positions % self._block_size] = prefixes


def model_output(request_ids, sampled) -> ModelRunnerOutput:
    """Return what vLLM's worker would."""
    return ModelRunnerOutput(
        req_ids=request_ids,
        req_id_to_index={each: i for i, each in enumerate(request_ids)},
        sampled_token_ids=sampled,
    )


class BareEngine:
    """A scheduler, the simulated worker, and vLLM's loop around both.

    Args:
        scheduler_cls: What ``--scheduler-cls`` would name; None for vLLM's own.
        model: Folder of any hybrid model; nothing but its configuration is read.
        attention: A group for each, of kind "full" or "mla".
        is_async: Schedule each step before the outcome of the one before is known.
        bitmask: When the loop asks for the bitmask: "always" while the model computes, as vLLM does;
            "late", once the step before has come in, as it does where a grammar waits for tokens; "never", as
            an embedder may; "sometimes", at random.
        worker_cls: Makes the worker, of the arguments of ``SimulatedWorker``; that one unless given.
    """

    def __init__(
        self,
        model,
        *,
        scheduler_cls=None,
        num_blocks=100,
        block_size=64,
        prefix_match_unit=None,
        num_state_groups=3,
        attention=("full",),
        max_num_seqs=8,
        max_num_batched_tokens=512,
        scheduling_policy="fcfs",
        is_async=False,
        bitmask="sometimes",
        seed=0,
        worker_cls=None,
        **arguments,
    ) -> None:
        # A clock says nothing where no model runs.
        arguments.setdefault("additional_config", {"milepost": {"stop_tokens": 4}})
        config = EngineArgs(
            model=str(model),
            block_size=block_size,
            max_model_len=8192,
            enable_prefix_caching=arguments.pop("enable_prefix_caching", True),
            enforce_eager=True,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            prefix_match_unit=prefix_match_unit,
            scheduling_policy=scheduling_policy,
            scheduler_cls=scheduler_cls,
            **arguments,
        ).create_engine_config()
        config.scheduler_config.async_scheduling = is_async
        config.cache_config.block_size = config.cache_config.mamba_block_size = block_size
        config.cache_config.num_gpu_blocks = num_blocks
        self.config = config
        self.kv_cache_config = self._caches(num_blocks, block_size, num_state_groups, attention)
        hash_size = prefix_match_unit or block_size
        make = config.scheduler_config.get_scheduler_cls()
        self.scheduler = make(
            vllm_config=config,
            kv_cache_config=self.kv_cache_config,
            structured_output_manager=_NoGrammar(),
            block_size=block_size,
            hash_block_size=hash_size,
            log_stats=False,
        )
        hash_function = get_hash_fn_by_name("sha256")
        init_none_hash(hash_function)
        # Since 0.33 a hash may cover the tokens that a drafter reads after its block.
        lookahead = getattr(config, "num_hash_lookahead_tokens", 0)
        self._hasher = get_request_block_hasher(hash_size, hash_function, *([lookahead] if lookahead else []))
        make_worker = worker_cls or SimulatedWorker
        self._worker = make_worker(self.kv_cache_config, block_size=block_size, seed=seed)
        self._in_flight: deque = deque()
        self._depth = 2 if is_async else 1
        self._bitmask = bitmask
        self._chance = random.Random(seed)
        self._num_added = 0
        self.num_preemptions = 0
        self.num_cached_tokens: dict[str, int] = {}

    def _caches(self, num_blocks, block_size, num_state_groups, attention) -> KVCacheConfig:
        return _kv_cache_config(num_blocks, block_size, num_state_groups, attention)

    def add(self, tokens, *, max_tokens=1, priority=0, cache_salt=None, extra_args=None, **sampling) -> str:
        """Queue a request; return its id."""
        self._num_added += 1
        request_id = f"r{self._num_added}"
        parameters = SamplingParams(
            max_tokens=max_tokens, temperature=0, ignore_eos=True, extra_args=extra_args, **sampling
        )
        request = Request(
            request_id=request_id,
            prompt_token_ids=list(tokens),
            sampling_params=parameters,
            pooling_params=None,
            priority=priority,
            arrival_time=float(self._num_added),
            cache_salt=cache_salt,
            block_hasher=self._hasher,
        )
        self.scheduler.add_request(request)
        return request_id

    def abort(self, request_id) -> None:
        """End a request early."""
        self.scheduler.finish_requests([request_id], RequestStatus.FINISHED_ABORTED)

    def step(self) -> int:
        """Schedule and run one step; return its number of tokens."""
        step = self.scheduler.schedule()
        self.num_preemptions += len(step.preempted_req_ids or ())
        output = self._worker.execute(step, self.scheduler.requests)
        if self._bitmask == "always" or (self._bitmask == "sometimes" and self._chance.random() < 0.7):
            self.scheduler.get_grammar_bitmask(step)
        self._in_flight.append((step, output))
        while len(self._in_flight) >= self._depth:
            self._finish_step()
        if self._bitmask == "late":
            self.scheduler.get_grammar_bitmask(step)
        return step.total_num_scheduled_tokens

    def run(self, *, most_idle_steps=10) -> None:
        """Run until nothing is left to do."""
        num_idle = 0
        while self.scheduler.has_requests() or self._in_flight:
            num_idle = num_idle + 1 if self.step() == 0 else 0
            while self._in_flight and not self.scheduler.has_unfinished_requests():
                self._finish_step()
            assert num_idle <= most_idle_steps, "the scheduler hangs"

    def settle(self) -> None:
        """Take in the outcome of every step that has run."""
        while self._in_flight:
            self._finish_step()

    def _finish_step(self) -> None:
        step, output = self._in_flight.popleft()
        for outputs in self.scheduler.update_from_output(step, output).values():
            for each in outputs.outputs:
                if each.prefill_stats is not None:
                    self.num_cached_tokens[each.request_id] = each.prefill_stats.num_cached_tokens


class _NoGrammar:
    """Stands for vLLM's structured outputs, which nothing here asks for."""

    def accept_tokens(self, request, token_ids) -> bool:
        return True

    def should_advance(self, request) -> bool:
        return False

    def validate_tokens(self, request, token_ids) -> list:
        return token_ids


# Both take as many bytes: MLA keeps one vector of a token, others a key and a value.
ATTENTION = {"full": (FullAttentionSpec, 16), "mla": (MLAAttentionSpec, 32)}


def _kv_cache_config(num_blocks, block_size, num_state_groups, attention) -> KVCacheConfig:
    specs = [
        kind(block_size=block_size, num_kv_heads=1, head_size=head_size, dtype=torch.float32)
        for kind, head_size in map(ATTENTION.__getitem__, attention)
    ]
    state = MambaSpec(
        block_size=block_size,
        shapes=((16,),),
        dtypes=(torch.float32,),
        page_size_padded=128 * block_size,
        mamba_cache_mode="align",
    )
    assert {spec.page_size_bytes for spec in (state, *specs)} == {128 * block_size}
    groups = [KVCacheGroupSpec([f"state.{i}"], state) for i in range(num_state_groups)]
    groups += [KVCacheGroupSpec([f"attention.{i}"], spec) for i, spec in enumerate(specs)]
    return KVCacheConfig(num_blocks=num_blocks, kv_cache_tensors=[], kv_cache_groups=groups)
