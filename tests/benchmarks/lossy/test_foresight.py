"""What one who knows the requests would make of states of either size."""

import numpy as np
import pytest
from benchmarks.lossy.foresight import foresight_row

from milepost.footprint import Footprint
from milepost.traces import TraceRequest

EXACT, SMALL = (Footprint(checkpoint_bytes=size, kv_bytes_per_token=1) for size in (400, 100))


def asked(*documents: int) -> list[TraceRequest]:
    """A document of 640 tokens each, and nothing behind it."""
    return [
        TraceRequest(
            request_id=str(at),
            keys=np.arange(640, dtype=np.int64) + 1_000 * document,
            key_tokens=1,
            num_tokens=640,
        )
        for at, document in enumerate(documents)
    ]


def test_what_fits_with_one_size_alone_is_the_difference() -> None:
    # The last token is always computed, so 576 tokens and a state: 976 for the exact one, and 676.
    requests = asked(0, 1, 0, 1)
    row = foresight_row("x", requests, capacity_kv_tokens=1_500, exact=EXACT, lossy=SMALL)
    assert row.numbers["reused_share"] == pytest.approx(2 * 576 / 2_560)
    assert row.numbers["exact_reused_share"] == pytest.approx(576 / 2_560)
    assert row.numbers["ratio"] == pytest.approx(0.5)


def test_where_all_fits_there_is_none() -> None:
    requests = asked(0, 1, 0, 1)
    row = foresight_row("x", requests, capacity_kv_tokens=10_000, exact=EXACT, lossy=SMALL)
    assert row.numbers["ratio"] == 1.0
