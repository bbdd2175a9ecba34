import pytest
from running import complete

DOCUMENT = " ".join(f"Line {number} says {number * 7919 % 1000}." for number in range(60))


@pytest.fixture
def busy(server):
    """A server that has answered questions about one document, and refused one."""
    for question in range(3):
        assert complete(server, f"{DOCUMENT} What does line {question} say?").status_code == 200
    assert complete(server, "Hello", temperature=-1).status_code == 400
    server.wait_until_idle()
    return server
