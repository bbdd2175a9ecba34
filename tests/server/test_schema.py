"""Every path, with what its schema allows and what it does not: no failure, and no answer untold."""

import pytest
import schemathesis
from fake_driver import fake_engine
from hypothesis import HealthCheck, settings
from running import MODEL, running
from schemathesis import checks

from chat_tokenizer import chat_tokenizer
from milepost.server.app import build_app
from milepost.server.settings import ServeSettings
from milepost.server.worker import Worker

# Of a random length, an answer would take all of the context.
_MOST = 2


@pytest.fixture(scope="module")
def served():
    with running() as server:
        yield server


# The paths and bodies are those of any server; no model is needed to know them.
_WORKER = Worker(fake_engine(tokenizer=chat_tokenizer()), admission=None)
schema = schemathesis.openapi.from_dict(build_app(_WORKER, ServeSettings.checked(model_name=MODEL)).openapi())

_CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


@schema.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_that_the_schema_tells_of(case, served):
    body = case.body
    if isinstance(body, dict):
        if isinstance(body.get("model"), str):
            # The names of models are no part of a schema.
            body["model"] = MODEL
        for name in ("max_tokens", "max_completion_tokens", "max_output_tokens", "n"):
            if isinstance(body.get(name), int) and body[name] > _MOST:
                body[name] = _MOST
        if case.path.startswith("/v1/chat"):
            body.setdefault("max_tokens", _MOST)
        if case.path.startswith("/v1/responses"):
            body.setdefault("max_output_tokens", _MOST)
    case.call_and_validate(base_url=served.url, checks=_CHECKS, timeout=60)
