import psutil
import pytest
import torch

from milepost.server.admission import free_bytes

CPU = torch.device("cpu")


@pytest.fixture
def container(tmp_path):
    def write(limit, used):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")
        return tmp_path

    return write


def test_a_containers_limit_counts(container):
    assert free_bytes(CPU, container=container(3_000_000, 1_000_000)) == 1_000_000
    assert free_bytes(CPU, container=container(3_000_000, 4_000_000)) == 0


def test_without_a_limit_the_machine_counts(container, tmp_path):
    half = psutil.virtual_memory().total // 2
    for root in (container("max", 1_000_000), container(1 << 60, 0), tmp_path / "nowhere"):
        assert half // 100 < free_bytes(CPU, container=root) <= half
