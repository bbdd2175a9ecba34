"""Requests written by hand, and what they share worked out on paper."""

import numpy as np

from milepost.traces import TraceRequest


def request(*keys: int, num_tokens: int | None = None, block: int = 16, **labels) -> TraceRequest:
    labels = {"request_id": "r"} | labels
    return TraceRequest(
        keys=np.array(keys, np.int64), key_tokens=block, num_tokens=num_tokens or block * len(keys), **labels
    )


def four_requests() -> list[TraceRequest]:
    """248 tokens. B follows A for 64 of its 80, C for 32 of its 40, and D is A again."""
    return [request(1, 2, 3, 4), request(1, 2, 3, 4, 5), request(1, 2, 9, num_tokens=40), request(1, 2, 3, 4)]
