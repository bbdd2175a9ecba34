"""``python -m milepost.lm_eval``: the harness's own command line, with one model more."""

import json
import os
import subprocess
import sys

import pytest
import torch
from small_evaluation import byte_model, save, write_task

from milepost.lm_eval import register


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("lm_eval")
    save(byte_model(), made / "model")
    return write_task(made)


def run(folder, *arguments, model="milepost", options="capacity=64MiB"):
    return subprocess.run(
        [
            sys.executable, "-m", "milepost.lm_eval", "run", "--model", model, "--tasks", "asked",
            "--model_args", f"pretrained={folder / 'model'},dtype=float32,{options}",
            "--include_path", str(folder), "--output_path", str(folder / model), *arguments,
        ],
        capture_output=True, text=True, check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "datasets")},
    )  # fmt: skip


def test_the_harness_runs_with_milepost_as_its_model_and_says_what_was_saved(folder):
    done = run(folder, "--batch_size", "4", options="capacity=64MiB,segment_tokens=64")
    assert done.returncode == 0, done.stderr
    assert "|asked|" in done.stdout
    assert "24 requests on 6 contexts" in done.stderr.splitlines()[-1]
    assert ("device=cuda:0" in done.stderr) == (not torch.cuda.is_available())
    (results,) = (folder / "milepost").rglob("results*.json")
    written = json.loads(results.read_text())
    assert written["config"]["milepost_savings"]["num_requests"] == 24
    assert 0 <= written["results"]["asked"]["acc,none"] <= 1


def test_what_is_wrong_is_said_in_a_line(folder):
    done = run(folder, "--device", "cpu", options="capacity=1KiB")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: CapacityError: ")


def test_registering_leaves_the_harnesss_own_models_there():
    from lm_eval.api.registry import get_model

    for _ in range(2):
        register()
    assert get_model("milepost").__name__ == "MilepostLM"
    assert get_model("hf").__name__ == "HFLM"
