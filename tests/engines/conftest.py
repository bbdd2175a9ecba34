"""A tiny hybrid model and an engine over it, for the tests that need no other."""

import pytest
from tiny_engine import open_engine

from families import tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model("qwen3_5")


@pytest.fixture
def engine(model):
    opened = open_engine(model, policy="dense:64")
    yield opened
    opened.cache.check()
    assert not opened.cache._store.queue.pinned, "what no request needs any more is not held"
