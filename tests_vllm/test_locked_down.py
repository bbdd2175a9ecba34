"""The scheduler where nothing can be written: kernels are compiled anew, and one warning says so."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import milepost

NOWHERE = "/dev/null/no-folder"
PROGRAM = """
from milepost.vllm.scheduler import *
from milepost.policies import parse_policy
parse_policy("learned")
print("ready")
"""


def test_the_scheduler_and_its_policy_are_ready_with_one_warning(tmp_path):
    source = Path(milepost.__file__).parent
    shutil.copytree(source, tmp_path / "milepost", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (tmp_path / "milepost", *(tmp_path / "milepost").rglob("*")):
        if folder.is_dir():
            # Not even root can make a folder where a file is.
            (folder / "__pycache__").touch()
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    locked = {"PYTHONPATH": path, "HOME": NOWHERE, "NUMBA_CACHE_DIR": NOWHERE}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
        env={name: value for name, value in os.environ.items() if name != "XDG_CACHE_HOME"} | locked,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "ready"
    assert done.stderr.count("KernelCacheWarning") == 1
