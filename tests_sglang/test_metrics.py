"""The account of the checkpoints is on SGLang's own ``/metrics``, and adds up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own: prometheus_client decides where it counts when it is imported.
CODE = """
from benchmarks.sglang import absent_torchvision; absent_torchvision.stand_in()
import json, re, sys
from benchmarks.sglang.bare_engine import BareEngine
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sglang.srt.utils.common import add_prometheus_middleware
from test_placement import ask

app = FastAPI()
add_prometheus_middleware(app)

def scraped():
    text = TestClient(app).get("/metrics").text
    lines = re.findall(r"^(milepost_\\w+?)(?:{.*})? (\\S+)$", text, re.M)
    return {name: float(value) for name, value in lines}

engine = BareEngine(options={"enable_metrics": True}, num_states=60, num_kv_tokens=1 << 16)
states = [scraped()]
hits = sum(ask(engine, n % 3, n)[0] for n in range(9))
states.append(scraped())
engine.flush()
idle = scraped()
ask(engine, 0, 99)
states.append(scraped())
other = BareEngine(options={"enable_metrics": True, "tp_size": 2}, context={"tp_rank": 1})
states.append(other.cache.metrics is None)
states.append(engine.manager.counts.planned)
states.append(idle)
print(json.dumps([hits, *states]), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def scraped(tmp_path_factory):
    folder = Path(__file__).parents[1]
    environment = {
        **os.environ,
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path_factory.mktemp("metrics")),
        "PYTHONPATH": os.pathsep.join(
            [str(folder / "src"), str(folder), str(folder / "tests_sglang"), os.environ.get("PYTHONPATH", "")]
        ),
    }
    command = [sys.executable, "-W", "ignore", "-c", CODE]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stderr.strip().splitlines()[-1])


def test_routers_may_ask_before_the_first_request(scraped):
    assert scraped[1]["milepost_smallest_reusable_prefix_tokens"] == 64


def test_every_token_of_every_prompt_is_accounted_for(scraped):
    hits, _, served = scraped[:3]
    assert served["milepost_requests_total"] == 9
    assert served["milepost_reused_tokens_total"] == hits > 0
    lost = ("placement", "eviction", "reset", "block_floor")
    parts = ("reused", "unseen", *(f"lost_to_{each}" for each in lost))
    of_parts = [served[f"milepost_{part}_tokens_total"] for part in parts]
    assert served["milepost_prompt_tokens_total"] == sum(of_parts)
    assert served["milepost_checkpoints_hit_total"] == 6
    assert served["milepost_checkpoints_held"] > 0


def test_a_flush_is_told_apart_from_evictions(scraped):
    served, flushed = scraped[2:4]
    assert served["milepost_lost_to_reset_tokens_total"] == 0
    assert flushed["milepost_lost_to_reset_tokens_total"] > 2500
    assert (
        flushed["milepost_lost_to_eviction_tokens_total"] == served["milepost_lost_to_eviction_tokens_total"]
    )
    assert flushed["milepost_checkpoints_planned_total"] == scraped[5]


def test_after_a_flush_nothing_is_held_though_no_request_comes(scraped):
    served, idle = scraped[2], scraped[6]
    assert served["milepost_checkpoints_held"] > 0
    assert idle["milepost_checkpoints_held"] == 0


def test_one_rank_of_a_model_tells(scraped):
    assert scraped[4] is True
