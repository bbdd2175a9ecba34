"""SGLang's own scheduling of prefills without a server: who joins a batch, and where a prompt is cut."""

from array import array
from types import SimpleNamespace

from sglang.srt.managers import scheduler as sglang_scheduler
from sglang.srt.managers.schedule_batch import Req
from sglang.srt.managers.schedule_policy import PrefillAdder
from sglang.srt.managers.scheduler import Scheduler
from sglang.srt.sampling.sampling_params import SamplingParams


class _Off:
    """Stands for the rest of a scheduler: every feature is off."""

    def __getattr__(self, name):
        return None


class _Running:
    """The requests that answer: none, for a request is done here once its prompt is computed."""

    reqs = ()
    batch_is_full = False

    def is_empty(self):
        return True


class BareScheduler(_Off):
    """Serves prompts in batches, with the method of SGLang's that forms them.

    Args:
        engine: What computes.
        chunk: Most tokens of a batch.
        most_requests: That have their memory at the same time.
    """

    def __init__(self, engine, monkeypatch, *, chunk, most_requests=6):
        self.engine = engine
        self.page_size, self.tree_cache = engine.page, engine.cache
        self.token_to_kv_pool_allocator, self.req_to_token_pool = engine.allocator, engine.pool
        self.chunked_prefill_size, self.max_prefill_tokens = chunk, 1 << 15
        self.max_prefill_bs = self.priority_scheduling_preemption_threshold = 0
        self.waiting_queue, self.chunked_req = [], None
        self.grammar_manager = SimpleNamespace(has_waiting_grammars=lambda: False)
        self.policy = SimpleNamespace(
            calc_priority=lambda *_, **__: None, shortest_prefill_chunk_limit=lambda *_: None
        )
        self.new_token_ratio_tracker = SimpleNamespace(current=0.5)
        self.tp_worker = SimpleNamespace(
            model_runner=SimpleNamespace(attn_backend=object(), prefill_aware_swa=False)
        )
        self.load_inquirer = SimpleNamespace(_get_num_pending_tokens=lambda **_: 0)
        self._most_requests = most_requests
        self._memory, self.num_computed, self.batches = {}, {}, []
        batch = SimpleNamespace(prepare_for_extend=lambda: None, return_logprob=False)
        monkeypatch.setattr(
            sglang_scheduler.ScheduleBatch, "init_new", lambda requests, *_, **__: self._note(batch, requests)
        )

    def get_prefill_adder_class(self):
        return PrefillAdder

    def get_num_allocatable_reqs(self, *_, **__):
        return self._most_requests - (self.chunked_req is not None)

    def add(self, name, tokens):
        """Have a prompt wait."""
        self.waiting_queue.append(
            Req(
                rid=name,
                origin_input_text="",
                origin_input_ids=array("q", tokens),
                sampling_params=SamplingParams(temperature=0, max_new_tokens=1),
            )
        )

    def step(self):
        """Form a batch and compute it; return whether there was one."""
        self._batch = []
        batch, _ = Scheduler._get_new_batch_prefill_raw(self, None, _Running())
        if batch is None:
            return False
        for req in self._batch:
            if req.rid not in self._memory:
                self._memory[req.rid] = self.engine.give_memory(req)
            start, end = req.prefix_len, req.extend_end
            self.engine.compute(self._memory[req.rid], end)
            self.num_computed[req.rid] = self.num_computed.get(req.rid, 0) + end - start
        self.batches.append([(req.rid, req.prefix_len, req.extend_end) for req in self._batch])
        self.engine.batch.chunked_req = self.chunked_req
        self.engine.launch()
        for req in self._batch:
            running = self._memory[req.rid]
            self.engine.after(running)
            if req.extend_end == len(req.origin_input_ids):
                assert req is not self.chunked_req
                self.engine.finish(running)
            else:
                assert req is self.chunked_req, f"{req.rid} is unfinished, and SGLang has forgotten it"
        return True

    def _note(self, batch, requests):
        self._batch = list(requests)
        return batch
