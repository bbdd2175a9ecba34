"""``BareServer`` with drafts: some are what the answer is, so that answers are the same with and without."""

import random
from collections import deque
from typing import Any

from benchmarks.vllm.servers.bare_server import BareServer
from benchmarks.vllm.servers.serving import Progress

__all__ = ["DraftingServer"]

# Of drafts, those that are right; what comes after a wrong one is rejected.
_RIGHT = 0.8
_NO_TOKEN = 0


class DraftingServer(BareServer):
    """See the module; the arguments are those of ``BareServer``.

    Args:
        num_drafts: Drafts of a step, 0 for none.
        is_async: Schedule each step before the outcome of the one before is known.
    """

    def __init__(self, *arguments: Any, num_drafts: int, is_async: bool, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._num_drafts, self._is_async = num_drafts, is_async
        self._random = random.Random(0)
        self._in_flight: deque[tuple[Any, Any]] = deque()
        # How far each answer has come, which the scheduler learns a step later.
        self._num_tokens: dict[str, int] = {}

    def step(self) -> list[Progress]:
        """Schedule and make up the tokens; let the scheduler note those of this step or of the last."""
        scheduled = self.scheduler.schedule()
        if self._asks_bitmask:
            self.scheduler.get_grammar_bitmask(scheduled)
        self._in_flight.append((scheduled, self.make_up(scheduled)))
        if self._is_async and len(self._in_flight) == 1 and scheduled.total_num_scheduled_tokens:
            return []
        outputs = self.scheduler.update_from_output(*self._in_flight.popleft())
        if not self._is_async:
            self._propose(list(scheduled.num_scheduled_tokens))
        return [
            self._progress(output)
            for of_client in outputs.values()
            for output in of_client.outputs
            if output.new_token_ids
        ]

    def make_up(self, scheduled: Any) -> Any:
        """Return what a model would: the drafts that are right, and one token more."""
        made_up = super().make_up(scheduled)
        made_up.sampled_token_ids = [
            self._sample(request_id, scheduled) for request_id in scheduled.num_scheduled_tokens
        ]
        return made_up

    def _sample(self, request_id: str, scheduled: Any) -> list[int]:
        request = self.scheduler.requests[request_id]
        num_tokens = max(request.num_tokens, self._num_tokens.get(request_id, 0))
        if request.num_computed_tokens < request.num_tokens:
            return []
        drafts = scheduled.scheduled_spec_decode_tokens.get(request_id, ())
        num_right = next((at for at in range(len(drafts)) if self._random.random() > _RIGHT), len(drafts))
        self._num_tokens[request_id] = num_tokens + num_right + 1
        return [self._token_at(request, num_tokens + at) for at in range(num_right + 1)]

    def _propose(self, request_ids: list[str]) -> None:
        from vllm.v1.outputs import DraftTokenIds

        drafts = [[_NO_TOKEN] * self._num_drafts for _ in request_ids]
        self.scheduler.update_draft_token_ids(DraftTokenIds(request_ids, drafts))
