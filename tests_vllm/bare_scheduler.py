"""A scheduler without a model: requests come and go, and a simulated worker stands for vLLM's."""

import random
from collections import deque

import torch
from simulated_worker import SimulatedWorker
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
from vllm.v1.request import Request, RequestStatus


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
        exports: Whether the layers export the state at a prompt's tail from inside its last chunk.
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
        exports=False,
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
        self._export_tokens = (prefix_match_unit or block_size) if exports else None
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
        return _kv_cache_config(num_blocks, block_size, num_state_groups, attention, self._export_tokens)

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


def _kv_cache_config(num_blocks, block_size, num_state_groups, attention, export_tokens) -> KVCacheConfig:
    specs = [
        kind(block_size=block_size, num_kv_heads=1, head_size=head_size, dtype=torch.float32)
        for kind, head_size in map(ATTENTION.__getitem__, attention)
    ]
    # Fields that vLLM has since 0.32.
    exports = {"num_prefill_checkpoint_blocks": 1, "prefill_checkpoint_alignment": export_tokens}
    state = MambaSpec(
        block_size=block_size,
        shapes=((16,),),
        dtypes=(torch.float32,),
        page_size_padded=128 * block_size,
        mamba_cache_mode="align",
        **(exports if export_tokens else {}),
    )
    assert {spec.page_size_bytes for spec in (state, *specs)} == {128 * block_size}
    groups = [KVCacheGroupSpec([f"state.{i}"], state) for i in range(num_state_groups)]
    groups += [KVCacheGroupSpec([f"attention.{i}"], spec) for i, spec in enumerate(specs)]
    return KVCacheConfig(num_blocks=num_blocks, kv_cache_tensors=[], kv_cache_groups=groups)
