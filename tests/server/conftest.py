import httpx
import openai
import pytest
from running import running


@pytest.fixture(scope="module")
def server():
    with running() as started:
        yield started


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
def http(server):
    with httpx.Client(base_url=server.url) as made:
        yield made
