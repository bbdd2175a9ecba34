#!/usr/bin/env bash
# What waits for a GPU, in about ten minutes of one: bash benchmarks/gpu.sh [LOGS] from a clone's root, on a
# machine with an NVIDIA driver, Python 3.11 and the wheels of PyTorch for CUDA.
#
# LOGS is the folder of the paper's logs; without it the frontier runs on made-up traffic alone. Results lie in
# $OUT (gpu-results unless set): text as it was printed, and frontier.json, which milepost report draws.
set -euo pipefail
logs=${1:-}
out=${OUT:-gpu-results}
mkdir -p "$out"
python3 -m venv --system-site-packages .venv-gpu
.venv-gpu/bin/pip install --quiet --editable '.[serve,report]' flash-linear-attention causal-conv1d
run() { timeout "$1" .venv-gpu/bin/python -m "${@:2}"; }

nvidia-smi --query-gpu=name,driver_version --format=csv | tee "$out/machine.txt"
# Capture: 32 states in one prefill of 8,192 tokens, and what strict prefill costs beside one uncut call.
run 120 benchmarks.capture --tokens 8192 --states 32 --dtype bfloat16 --turns 5 | tee "$out/capture.txt"
# A hit against its suffix, and answers from keys that grow in place.
run 120 benchmarks resume | tee "$out/resume.txt"
# States to pinned memory of the host beside a prefill, and whether what comes back is the same.
run 60 benchmarks.transfers | tee "$out/transfers.txt"
# The paper's experiment at full size.
run 360 benchmarks.frontier --full ${logs:+--logs "$logs"} --requests 60 --turns 1 --shares 0.2 1.0 \
    --output "$out/frontier.json" | tee "$out/frontier.txt"
