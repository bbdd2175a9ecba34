"""What is known of requests that are done, until those that go by it have taken it."""

from collections import OrderedDict
from typing import final

from milepost.vllm.request_state import RequestState
from milepost.vllm.tier_index import ServedPrompt

__all__ = ["ServedPrompts"]

# Each is taken a step after it was noted; those that vLLM asks nobody about must not pile up.
_MOST_KEPT = 1024


@final
class ServedPrompts:
    """See the module."""

    def __init__(self) -> None:
        self._by_request: OrderedDict[str, ServedPrompt] = OrderedDict()

    def note(self, request_id: str, request: RequestState) -> None:
        """Note a request that is done."""
        asked = request.lease.request
        self._by_request[request_id] = ServedPrompt(
            request.prompt.hashes, asked.num_tokens, asked.breakpoints
        )
        if len(self._by_request) > _MOST_KEPT:
            self._by_request.popitem(last=False)

    def take(self, request_id: str) -> ServedPrompt | None:
        """Return a request, once; None where it was not planned for, or too long ago."""
        return self._by_request.pop(request_id, None)
