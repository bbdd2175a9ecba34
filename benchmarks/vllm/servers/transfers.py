"""The worker's half of vLLM's OffloadingConnector, without a GPU: jobs are done when their time has come.

In the order of vLLM's own worker: what has to be flushed is done before anything else; stores of the step
before are submitted then, and loads of this one; the model runs; stores of this step wait for the next.
Nothing is copied before a job ends, so whoever reads too early, or takes a block too early, reads what is
not there.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

__all__ = ["Piece", "Transfers"]


class Piece(NamedTuple):
    """One block on its way.

    Attributes:
        group: Its cache group.
        block: Its number in the pool.
        chunk: Where it lies in the tier.
        part: Which block of the chunk it is.
    """

    group: int
    block: int
    chunk: int
    part: int


class Transfers:
    """See the module.

    Args:
        blocks_per_chunk: Blocks of the pool in a chunk of the tier.
        steps_to_take: Returns how many steps the next job takes beside its own.
        load: Copies one block from the tier to the pool.
        store: Copies one block from the pool to the tier.
    """

    def __init__(
        self,
        *,
        blocks_per_chunk: int = 1,
        steps_to_take: Callable[[], int] = lambda: 0,
        load: Callable[[Piece], None] = lambda piece: None,
        store: Callable[[Piece], None] = lambda piece: None,
    ) -> None:
        self._blocks_per_chunk = blocks_per_chunk
        self._steps_to_take = steps_to_take
        self._copy = {True: load, False: store}
        self._unsubmitted: dict[int, Any] = {}
        # Each with the steps that are left to it.
        self._loads: dict[int, Any] = {}
        self._stores: dict[int, Any] = {}
        self._steps_left: dict[int, int] = {}
        self._done: dict[int, int] = {}
        self._received: set[str] = set()
        #: Blocks that were loaded, and stored.
        self.num_loaded = self.num_stored = 0

    def begin(self, metadata: Any) -> None:
        """Do what comes before the model runs."""
        if metadata is None:
            return
        flushed = metadata.jobs_to_flush or ()
        self._unsubmitted.update(
            (job_id, metadata.store_jobs.pop(job_id)) for job_id in flushed if job_id in metadata.store_jobs
        )
        self._submit(self._stores, self._unsubmitted)
        self._unsubmitted = {}
        for job_id in flushed:
            self._end(job_id)
        self._submit(self._loads, metadata.load_jobs)
        for job_id, job in metadata.load_jobs.items():
            if getattr(job, "sync", False):
                self._end(job_id)

    def finish(self, metadata: Any) -> Any:
        """Do what comes after; return what the worker tells the scheduler."""
        from vllm.distributed.kv_transfer.kv_connector.v1.offloading.common import OffloadingWorkerMetadata
        from vllm.v1.outputs import KVConnectorOutput

        if metadata is not None:
            self._unsubmitted.update(metadata.store_jobs)
        for job_id in list(self._steps_left):
            self._steps_left[job_id] -= 1
            if self._steps_left[job_id] < 0:
                self._end(job_id)
        done, self._done = self._done, {}
        received, self._received = self._received, set()
        return KVConnectorOutput(
            finished_recving=received or None,
            kv_connector_worker_meta=OffloadingWorkerMetadata(completed_jobs=done) if done else None,
        )

    def _submit(self, jobs: dict[int, Any], new: dict[int, Any]) -> None:
        for job_id, job in new.items():
            jobs[job_id] = job
            self._steps_left[job_id] = self._steps_to_take()

    def _end(self, job_id: int) -> None:
        if self._steps_left.pop(job_id, None) is None:
            return
        is_load = job_id in self._loads
        job = (self._loads if is_load else self._stores).pop(job_id)
        pool, tier = (job.dst_spec, job.src_spec) if is_load else (job.src_spec, job.dst_spec)
        pieces = list(self._pieces(pool, tier.chunk_ids.tolist()))
        for piece in pieces:
            self._copy[is_load](piece)
        self.num_loaded += is_load * len(pieces)
        self.num_stored += (not is_load) * len(pieces)
        self._done[job_id] = 1
        if is_load and not getattr(job, "sync", False):
            self._received.add(job.req_id)

    def _pieces(self, pool: Any, chunks: list[int]) -> Iterator[Piece]:
        blocks, per_chunk, first_chunk = iter(pool.block_ids.tolist()), self._blocks_per_chunk, 0
        for group, (size, first_block) in enumerate(zip(pool.group_sizes, pool.block_indices, strict=True)):
            offset = first_block % per_chunk
            for at in range(offset, offset + size):
                yield Piece(group, next(blocks), chunks[first_chunk + at // per_chunk], at % per_chunk)
            first_chunk += -(-(offset + size) // per_chunk) if size else 0
