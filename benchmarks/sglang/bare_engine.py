"""SGLang's cache, pools, requests and chunks without a model: what its scheduler and its kernels do to them
is done here, on small tensors in the CPU's memory.

Instead of computing, each chunk writes *signatures*. A state slot that captures ``p`` tokens of a prompt gets
a number that only this prefix has, and each token's KV its own; so a request that resumes from a state or KV
of any other prefix is found out.
"""

import types
from array import array
from dataclasses import dataclass, field
from zlib import crc32

import torch
from sglang.srt.configs.mamba_utils import Mamba2CacheParams, Mamba2StateShape
from sglang.srt.managers.schedule_batch import FINISH_LENGTH, Req, ScheduleBatch
from sglang.srt.managers.scheduler_components.invariant_checker import SchedulerInvariantChecker
from sglang.srt.managers.scheduler_components.pool_stats_observer import PoolStats
from sglang.srt.mem_cache.allocator import TokenToKVPoolAllocator
from sglang.srt.mem_cache.allocator.paged import PagedTokenToKVPoolAllocator
from sglang.srt.mem_cache.base_prefix_cache import EvictParams
from sglang.srt.mem_cache.cache_init_params import CacheInitParams
from sglang.srt.mem_cache.common import checkpoint_kv_cache, release_kv_cache
from sglang.srt.mem_cache.memory_pool import HybridLinearKVPool, HybridReqToTokenPool
from sglang.srt.mem_cache.registry import TreeCacheBuildContext, create_tree_cache
from sglang.srt.model_executor.forward_batch_info import ForwardMode
from sglang.srt.runtime_context import get_parallel
from sglang.srt.sampling.sampling_params import SamplingParams
from sglang.srt.server_args import ServerArgs, set_global_server_args_for_scheduler

from milepost.sglang import plugin
from milepost.sglang.hooks import plan_request, run_batch

ATTENTION_LAYERS, NUM_LAYERS = (3,), 4
MOST_TOKENS = 1 << 18


class WrongStateError(AssertionError):
    """A request was given the state, or the KV, of another prefix."""


@dataclass
class Running:
    """A request that has its memory."""

    req: Req
    hit: int
    tracked: list[int] = field(default_factory=list)

    @property
    def is_prefilled(self):
        return self.req.prefix_len >= len(self.req.origin_input_ids)


class BareEngine:
    """Serves prompts of token ids.

    Args:
        backend: None for SGLang as it is.
        num_states: Slots for states, those of running requests among them.
        num_kv_tokens: Tokens of KV.
        page: Tokens of a page.
        chunk: Most tokens of a prefill chunk.
        options: More of ``ServerArgs``.
        context: More of ``TreeCacheBuildContext``.
        params: More of ``CacheInitParams``.
        signs: Whether signatures are written and checked; not where time is measured.
        replica: Of several servers behind one controller (``--dp-size``).
    """

    def __init__(
        self,
        backend="milepost",
        *,
        num_states=16,
        num_kv_tokens=1 << 14,
        page=1,
        chunk=2048,
        most_requests=8,
        options=(),
        context=(),
        params=(),
        eviction_policy="lru",
        core=None,
        signs=True,
        replica=None,
    ):
        plugin.register()
        self.chunk = chunk
        self.signs = signs
        arguments = ServerArgs(
            model_path="dummy",
            page_size=page,
            radix_cache_backend=backend,
            chunked_prefill_size=chunk,
            **dict(options),
        )
        arguments._mamba_cache_chunk_size = max(64, page)
        arguments.max_mamba_cache_size = num_states
        set_global_server_args_for_scheduler(arguments)
        get_parallel().override_permanently(dp_rank=replica)
        self.pool = _state_pool(num_states, most_requests)
        kv = HybridLinearKVPool(
            size=num_kv_tokens,
            dtype=torch.float32,
            page_size=page,
            head_num=1,
            head_dim=2,
            full_attention_layer_ids=list(ATTENTION_LAYERS),
            device="cpu",
            enable_memory_saver=False,
            mamba_pool=self.pool.mamba_pool,
        )
        kind = TokenToKVPoolAllocator if page == 1 else PagedTokenToKVPoolAllocator
        paged = {} if page == 1 else {"page_size": page}
        self.allocator = kind(
            size=num_kv_tokens, dtype=torch.float32, device="cpu", kvcache=kv, need_sort=False, **paged
        )
        self.page = page
        given = CacheInitParams(
            req_to_token_pool=self.pool,
            token_to_kv_pool_allocator=self.allocator,
            page_size=page,
            disable=False,
            enable_mamba_extra_buffer=True,
            eviction_policy=eviction_policy,
            chunked_prefill_size=chunk,
            tree_core_backend=core,
        )
        for name, value in dict(params).items():
            setattr(given, name, value)
        of_context = {
            "is_hybrid_swa": False,
            "is_hybrid_ssm": True,
            "enable_hierarchical_cache": False,
            "disable_radix_cache": False,
            "tp_worker": None,
            "model_config": None,
            "tp_size": 1,
            "tp_rank": 0,
            "tp_group": None,
        }
        self.cache = create_tree_cache(
            TreeCacheBuildContext(server_args=arguments, params=given, **{**of_context, **dict(context)})
        )
        config = types.SimpleNamespace(hf_text_config=types.SimpleNamespace())
        self.batch = types.SimpleNamespace(
            req_to_token_pool=self.pool, tree_cache=self.cache, model_config=config
        )
        #: Requests whose turn comes next.
        self.waiting = []
        self.num_restored = 0
        self._num_requests = 0

    @property
    def manager(self):
        return getattr(self.cache, "checkpoint_manager", None)

    def start(self, tokens, *, salt=None, extra_key=None, most_new_tokens=1, custom_params=None):
        """Return a new request that has been matched, and has its memory."""
        self._num_requests += 1
        req = Req(
            rid=f"request {self._num_requests}",
            origin_input_text="",
            origin_input_ids=array("q", tokens),
            sampling_params=SamplingParams(
                temperature=0, max_new_tokens=most_new_tokens, custom_params=custom_params
            ),
            extra_key=extra_key,
        )
        req.cache_salt = salt
        return self.admit(req)

    def admit(self, req):
        """Match a request and give it its memory, as the scheduler does."""
        req.init_next_round_input(self.cache)
        req.lock = self.cache.lock(req.last_node)
        return self.give_memory(req)

    def give_memory(self, req):
        """Give a request that was matched and locked its memory, and its state that of the match."""
        running = Running(req, req.prefix_len)
        self._make_room_for_states()
        self.pool.alloc([req])
        found = self.cache.prefix_device_indices(req)
        if len(found):
            self.pool.write((req.kv.req_pool_idx, slice(0, len(found))), found[: running.hit])
        self._restore(req, running.hit)
        return running

    def step(self, running, most_tokens=None):
        """Compute a chunk of a request's prompt; where one is there already, the next."""
        req = running.req
        start, total = req.prefix_len, len(req.origin_input_ids)
        end = min(start + (most_tokens or self.chunk), total)
        if end < total:
            end = end // self.page * self.page
        self.compute(running, self._stop(req, start, end))
        self.batch.chunked_req = req if req.extend_end < total else None
        self.launch()
        self.after(running)

    def compute(self, running, end):
        """Do what a model does with a request's next chunk, up to ``end``, as part of a batch."""
        req, start = running.req, running.req.prefix_len
        self._write_kv(req, start, end)
        req.extend_end = end
        req.kv.kv_committed_len = req.kv.kv_allocated_len = end
        entry = ScheduleBatch._mamba_radix_cache_v2_req_prepare_for_extend(self.batch, req)
        if entry.track_mask:
            # Until 0.5.22 the slot itself, after that where it stands among the request's own.
            is_slot = entry._fields[1] == "track_index"
            slot = entry[1] if is_slot else req.kv.mamba_ping_pong_track_buffer[entry[1]]
            self._capture(req, slot, req.kv.mamba_last_track_seqlen)
            running.tracked.append(req.kv.mamba_last_track_seqlen)
        self.batch.forward_mode = ForwardMode.EXTEND

    def after(self, running):
        """Have the cache keep what it keeps of a chunk that was computed."""
        req, end = running.req, running.req.extend_end
        if end < len(req.origin_input_ids) or req.sampling_params.max_new_tokens > 1:
            checkpoint_kv_cache(req, self.cache)
        else:
            req.prefix_len = end

    def _stop(self, req, start, end):
        """Return where the chunk ends that would end at ``end``, as the hooks of the scheduler have it: here
        no other prompt is unfinished.
        """
        if self.manager is None:
            return end
        plan_request(self.cache, req, end, may_stop=True)
        return self.manager.stop_in(req.rid, start, end) or end

    def launch(self):
        """Do what SGLang's scheduler does between the launch of a batch and its results."""
        scheduler = types.SimpleNamespace(tree_cache=self.cache, waiting_queue=self.waiting)
        run_batch(lambda *_: None, scheduler, self.batch)

    def decode(self, running, answer):
        """Let a prefilled request answer, and track states as decoding does."""
        req = running.req
        for token in answer:
            length = req.kv.kv_committed_len
            req.output_ids.append(token)
            req.refresh_fill_ids()
            self._write_kv(req, length, length + 1)
            req.kv.kv_committed_len = req.kv.kv_allocated_len = length + 1
            if (length + 1) % 256 == 0:
                at = req.kv.mamba_next_track_idx
                self._capture(req, req.kv.mamba_ping_pong_track_buffer[at], length + 1)
                req.kv.mamba_prev_track_seqlen = req.kv.mamba_last_track_seqlen
                req.kv.mamba_last_track_seqlen, req.kv.mamba_last_track_idx = length + 1, at
                req.kv.mamba_next_track_idx = self.pool.get_mamba_ping_pong_other_idx(at)

    def finish(self, running):
        """Give a request's memory back, and have the cache keep what it keeps."""
        req = running.req
        req.finished_reason = FINISH_LENGTH(length=len(req.output_ids))
        req.finished_len = len(req.output_ids)
        release_kv_cache(req, self.cache, checkpoint=True)

    def abort(self, running):
        """Give a request's memory back before it is done; nothing of it is kept."""
        if not running.req.kv.kv_allocated_len:
            # SGLang gives a request its memory with its first chunk.
            self.step(running)
        running.req.finished_reason = FINISH_LENGTH(length=0)
        running.req.finished_len = 0
        release_kv_cache(running.req, self.cache, checkpoint=False)

    def serve(self, tokens, *, answer=(), cuts=None, **options):
        """Serve one prompt; return how many tokens were found, and where states were captured.

        Args:
            tokens: The prompt.
            answer: Tokens that it answers.
            cuts: Lengths of its chunks; full ones unless given.
            options: As for :meth:`start`.
        """
        lengths = iter(cuts or ())
        running = self.start(tokens, most_new_tokens=len(answer) + 1, **options)
        while not running.is_prefilled:
            self.step(running, next(lengths, None))
        self.decode(running, answer)
        self.finish(running)
        return running.hit, running.tracked

    def flush(self):
        """Empty the cache, as ``/flush_cache`` does while nothing runs."""
        self.cache.reset()
        self.pool.clear()
        self.allocator.clear()

    def positions(self):
        """Return how deep each state in the tree is, ascending; of SGLang's tree in Python alone."""
        from sglang.srt.mem_cache.unified_cache.components import ComponentType

        found, pending = [], [(self.cache.tree_core.root_node, 0)]
        while pending:
            node, depth = pending.pop()
            for child in node.children.values():
                deeper = depth + len(child.key)
                if child.component_data[ComponentType.MAMBA].value is not None:
                    found.append((deeper, child.id))
                pending.append((child, deeper))
        return sorted(found)

    def check(self):
        """Raise where SGLang's tree, or the manager's account of it, is out of order."""
        self.cache.sanity_check()
        if self.manager is not None:
            self.manager.check()
            assert {node for _, node in self.positions()} == self.manager.nodes_with_states

    def check_leaks(self):
        """Raise where SGLang's own checker finds a slot that is neither free nor in the tree; with no request
        running.
        """
        checker = SchedulerInvariantChecker.__new__(SchedulerInvariantChecker)
        checker.is_hybrid_swa, checker.is_hybrid_ssm = False, True
        checker.tree_cache, checker.req_to_token_pool = self.cache, self.pool
        checker.token_to_kv_pool_allocator = self.allocator
        checker.pool_stats_observer = types.SimpleNamespace(
            session_held_tokens=lambda: 0, session_held_mamba_slots=lambda: 0
        )
        is_leaking, messages = checker._check_all_pools(self._pool_stats())
        assert not is_leaking, messages

    def _pool_stats(self):
        return PoolStats(
            full_num_used=0,
            full_token_usage=0.0,
            full_available_size=self.allocator.available_size(),
            full_evictable_size=self.cache.full_evictable_size(),
            mamba_available_size=self.pool.mamba_allocator.available_size(),
            mamba_evictable_size=self.cache.mamba_evictable_size(),
        )

    def _make_room_for_states(self):
        """A running request takes a slot for its state and two to capture others."""
        missing = 3 - self.pool.mamba_allocator.available_size()
        if missing > 0:
            self.cache.evict_for_alloc(EvictParams(num_tokens=0, mamba_num=missing))

    def _write_kv(self, req, start, end):
        slots = self._alloc_kv(req, start, end)
        self.pool.write((req.kv.req_pool_idx, slice(start, end)), slots.to(torch.int32))
        if not self.signs:
            return
        tokens = req.full_untruncated_fill_ids
        keys = self._keys()
        keys[slots] = torch.tensor(tokens[start:end], dtype=torch.float32).reshape(-1, 1, 1)

    def _alloc_kv(self, req, start, end):
        needed = -(-(end - start) // self.page) * self.page + self.page
        if self.allocator.available_size() < needed:
            self.cache.evict_for_alloc(EvictParams(num_tokens=needed - self.allocator.available_size()))
        if self.page == 1:
            return self.allocator.alloc(end - start)
        last = (
            self.pool.req_to_token[req.kv.req_pool_idx, start - 1 : start].to(torch.int64)
            if start
            else torch.tensor([-1])
        )
        before, after = torch.tensor([start]), torch.tensor([end])
        return self.allocator.alloc_extend(before, before, after, after, last, end - start)

    def _keys(self):
        return self.allocator.get_kvcache().get_key_buffer(ATTENTION_LAYERS[0])

    def _capture(self, req, slot, num_tokens):
        if self.signs:
            self._states()[0, slot] = _signature(req, num_tokens)

    def _states(self):
        return self.pool.mamba_pool.mamba_cache.temporal

    def _restore(self, req, hit):
        """Check what the request is given."""
        if not hit:
            return
        self.num_restored += 1
        if not self.signs:
            req.kv.mamba_cow_src_index = None
            return
        found = float(self._states()[0, req.kv.mamba_cow_src_index].flatten()[0])
        if found != _signature(req, hit):
            raise WrongStateError(f"{req.rid} resumes at {hit} from the state of another prefix")
        req.kv.mamba_cow_src_index = None
        row = self.pool.req_to_token[req.kv.req_pool_idx, :hit].to(torch.int64)
        if self._keys()[row, 0, 0].tolist() != [float(token) for token in req.origin_input_ids[:hit]]:
            raise WrongStateError(f"{req.rid} resumes at {hit} with the KV of another prefix")


def _signature(req, num_tokens):
    """Return a number that only this prefix has; exact in a 32-bit float."""
    prefix = array("q", list(req.full_untruncated_fill_ids[:num_tokens] or req.origin_input_ids[:num_tokens]))
    return float(crc32(prefix.tobytes() + repr((req.extra_key, req.cache_salt)).encode()) % (1 << 24))


def _state_pool(num_states, most_requests):
    shape = Mamba2StateShape.create(
        tp_world_size=1,
        intermediate_size=16,
        n_groups=1,
        num_heads=1,
        head_dim=4,
        state_size=4,
        conv_kernel=4,
    )
    layers = [layer for layer in range(NUM_LAYERS) if layer not in ATTENTION_LAYERS]
    return HybridReqToTokenPool(
        size=most_requests,
        mamba_size=num_states,
        mamba_spec_state_size=most_requests,
        max_context_len=MOST_TOKENS,
        device="cpu",
        enable_memory_saver=False,
        cache_params=Mamba2CacheParams(shape=shape, layers=layers),
        mamba_layer_ids=layers,
        enable_mamba_extra_buffer=True,
        speculative_num_draft_tokens=None,
    )
