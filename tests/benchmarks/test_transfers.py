"""Of ``benchmarks.transfers`` without a GPU: it says that there is none, and counts what came back wrong."""

import pytest
import torch

from benchmarks import transfers
from families import tiny_model
from milepost.engines.host_memory import PackedParts
from milepost.engines.transformers.families import driver_for
from milepost.engines.transformers.snapshot import zero_state


def test_without_a_cuda_device_it_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["transfers"])

    with pytest.raises(SystemExit, match="no CUDA device"):
        transfers.main()


@pytest.mark.parametrize("is_control", [False, True], ids=["as-it-is", "control"])
def test_states_that_come_back_otherwise_are_counted(is_control):
    driver = driver_for(tiny_model("mamba2"))

    class Losing(PackedParts):
        def reload(self, held):
            return zero_state(super().reload(held))

    tokens = torch.arange(128) % 50
    for memory, wrong in ((PackedParts, 0), (Losing, 2)):
        row = transfers._fetched(driver, tokens, 2, memory(driver.pack, driver.unpack), is_control=is_control)
        assert row.numbers == {"wrong": wrong}
        assert row.reached == ((wrong > 0) == is_control)
