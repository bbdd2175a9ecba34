"""vLLM's scheduler with made-up tokens in place of a model: the same decisions in a hundredth of the time."""

import copy
import zlib
from typing import Any

from benchmarks.vllm.servers.serving import Progress
from benchmarks.vllm.servers.settings import Setting
from benchmarks.vllm.servers.tier import Tier
from benchmarks.vllm.servers.transfers import Transfers
from benchmarks.vllm.traffic.asks import FIRST_TOKEN, LAST_TOKEN, TokenArray

__all__ = ["BareServer"]

# What a stop costs where a model runs: a few hundred tokens, on a GPU and with a tiny model on a CPU alike.
_STOP_TOKENS = 256


class BareServer:
    """A ``Server`` around a scheduler of vLLM.

    Args:
        vllm_config: What the scheduler is configured by.
        kv_cache_config: Groups of layers. Neither is changed.
        setting: Which scheduler, and what differs in its configuration.
        num_blocks: Size of the pool.
        block_tokens: Tokens of a block.
        match_unit: Tokens of a block hash, the block unless hits may lie inside it.
        vocabulary: Answers are drawn from these ids, the last included.
        asks_bitmask: Whether each step asks for the grammar's bitmask, as vLLM's own loop does.
        tier: What lies behind the pool.

    Attributes:
        scheduler: vLLM's.
        transfers: What was loaded from the tier and stored there.
    """

    def __init__(
        self,
        vllm_config: Any,
        kv_cache_config: Any,
        *,
        setting: Setting,
        num_blocks: int,
        block_tokens: int,
        match_unit: int,
        vocabulary: tuple[int, int] = (FIRST_TOKEN, LAST_TOKEN),
        asks_bitmask: bool = True,
        tier: Tier | None = None,
    ) -> None:
        from vllm.utils.hashing import get_hash_fn_by_name
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
        from vllm.v1.structured_output import StructuredOutputManager

        vllm_config, kv_cache_config = _copies(vllm_config, kv_cache_config, num_blocks)
        _apply(setting, vllm_config, kv_cache_config, block_tokens)
        if tier is not None:
            vllm_config.kv_transfer_config = tier.transfer_config(kv_cache_config)
        self.transfers = Transfers()
        hash_function = get_hash_fn_by_name(vllm_config.cache_config.prefix_caching_hash_algo)
        init_none_hash(hash_function)
        # Since 0.33 a hash may cover the tokens that a drafter reads after its block.
        lookahead = getattr(vllm_config, "num_hash_lookahead_tokens", 0)
        self._hasher = get_request_block_hasher(
            match_unit, hash_function, *([lookahead] if lookahead else [])
        )
        self.scheduler = vllm_config.scheduler_config.get_scheduler_cls()(
            vllm_config=vllm_config,
            kv_cache_config=kv_cache_config,
            structured_output_manager=StructuredOutputManager(vllm_config),
            block_size=block_tokens,
            hash_block_size=match_unit,
            log_stats=True,
        )
        self._vocabulary = vocabulary
        self._asks_bitmask = asks_bitmask
        self._requests: dict[str, Any] = {}
        self._cached_tokens: dict[str, int] = {}

    def submit(self, index: int, prompt: TokenArray, *, answer_tokens: int) -> None:
        """Take request ``index``."""
        request = self.request(index, prompt, answer_tokens=answer_tokens)
        self._requests[request.request_id] = request
        self.scheduler.add_request(request)

    def request(self, index: int, prompt: TokenArray, *, answer_tokens: int) -> Any:
        """Return a request with its block hashes. O(tokens)."""
        from vllm.sampling_params import SamplingParams
        from vllm.v1.request import Request

        return Request(
            request_id=str(index),
            prompt_token_ids=prompt.tolist(),
            sampling_params=SamplingParams(temperature=0.0, max_tokens=answer_tokens, ignore_eos=True),
            pooling_params=None,
            block_hasher=self._hasher,
        )

    def step(self) -> list[Progress]:
        """Schedule, make up the tokens, and let the scheduler note them."""
        scheduled = self.scheduler.schedule()
        if self._asks_bitmask:
            # As vLLM does while the model computes.
            self.scheduler.get_grammar_bitmask(scheduled)
        self.transfers.begin(scheduled.kv_connector_metadata)
        made_up = self.make_up(scheduled)
        if scheduled.kv_connector_metadata is not None:
            made_up.kv_connector_output = self.transfers.finish(scheduled.kv_connector_metadata)
        outputs = self.scheduler.update_from_output(scheduled, made_up)
        return [
            self._progress(output)
            for of_client in outputs.values()
            for output in of_client.outputs
            if output.new_token_ids
        ]

    def forget(self) -> None:
        """Empty the cache."""
        if not self.scheduler.reset_prefix_cache():
            raise RuntimeError("vLLM did not empty its cache")

    def make_up(self, scheduled: Any) -> Any:
        """Return what a model would: a token for every request that is past its prompt."""
        from vllm.v1.outputs import ModelRunnerOutput

        request_ids = list(scheduled.num_scheduled_tokens)
        requests = [self.scheduler.requests[request_id] for request_id in request_ids]
        return ModelRunnerOutput(
            req_ids=request_ids,
            req_id_to_index={request_id: at for at, request_id in enumerate(request_ids)},
            sampled_token_ids=[
                [self._answer_token(request)] if request.num_computed_tokens >= request.num_tokens else []
                for request in requests
            ],
        )

    def _answer_token(self, request: Any) -> int:
        """Return a token that hangs on the request and its length only, so that answers are the same in
        whatever order requests are served.
        """
        return self._token_at(request, request.num_tokens)

    def _token_at(self, request: Any, num_tokens: int) -> int:
        first, last = self._vocabulary
        mixed = zlib.crc32(f"{request.request_id}.{num_tokens}".encode())
        return first + mixed % (last + 1 - first)

    def _progress(self, output: Any) -> Progress:
        request = self._requests[output.request_id]
        # Said once, with the first token.
        if output.prefill_stats is not None:
            self._cached_tokens[output.request_id] = output.prefill_stats.num_cached_tokens
        cached_tokens = self._cached_tokens[output.request_id]
        if output.finished:
            del self._requests[output.request_id], self._cached_tokens[output.request_id]
        return Progress(
            index=int(output.request_id),
            answer=list(request.output_token_ids),
            cached_tokens=cached_tokens,
            finished=output.finished,
        )


def _copies(vllm_config: Any, kv_cache_config: Any, num_blocks: int) -> tuple[Any, Any]:
    # A model's layers may hang on the first, so it is copied as far as it is written to.
    vllm_config = copy.copy(vllm_config)
    vllm_config.cache_config = copy.copy(vllm_config.cache_config)
    vllm_config.scheduler_config = copy.copy(vllm_config.scheduler_config)
    vllm_config.cache_config.num_gpu_blocks = num_blocks
    kv_cache_config = copy.deepcopy(kv_cache_config)
    kv_cache_config.num_blocks = num_blocks
    return vllm_config, kv_cache_config


def _apply(setting: Setting, vllm_config: Any, kv_cache_config: Any, block_tokens: int) -> None:
    retention_tokens = setting.retention_tokens(block_tokens)
    vllm_config.cache_config.prefix_cache_retention_interval = retention_tokens
    kv_cache_config.prefix_cache_retention_interval = retention_tokens
    vllm_config.scheduler_config.max_num_batched_tokens = setting.budget_tokens(block_tokens)
    vllm_config.scheduler_config.scheduler_cls = setting.scheduler
    # Where no model runs, the steps do not say what a stop costs.
    vllm_config.additional_config = {"milepost": {"stop_tokens": _STOP_TOKENS}}
