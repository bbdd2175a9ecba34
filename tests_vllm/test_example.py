"""``examples/inside_vllm.py`` runs as it stands, with Milepost's scheduler and with hits."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PROGRAM = """
import runpy, sys
from pathlib import Path
from benchmarks.vllm.models import MODELS

model = MODELS["falcon-h1"]
model.prepare_vllm()
arguments = model.engine_arguments(Path(sys.argv[1])) | {"max_model_len": 4096}
for given in ("enable_prefix_caching", "block_size"):
    arguments.pop(given)
runpy.run_path("examples/inside_vllm.py")["main"](**arguments)
"""


@pytest.mark.kernels
def test_the_example_shows_what_it_says(model_folder):
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(model_folder("falcon-h1"))],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=os.environ | {"PYTHONPATH": path, "VLLM_LOGGING_LEVEL": "WARNING"},
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-6000:]
    assert "custom scheduler class milepost.vllm.Scheduler" in said
    assert "runs as it is" not in said, "it fell back to stock"
    first, *others = re.findall(r"question \d: (\d+) of (\d+) tokens cached", done.stdout)
    assert int(first[0]) == 0
    assert len(others) == 7
    assert all(2 * int(cached) > int(total) for cached, total in others)
