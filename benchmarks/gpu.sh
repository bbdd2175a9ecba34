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
# What fails or takes too long is said, and the rest is measured all the same: a device is not lent twice.
failed=()
run() {
    local limit=$1 name=$2
    timeout "$limit" .venv-gpu/bin/python -m "${@:3}" | tee "$out/$name.txt" || failed+=("$name")
}

nvidia-smi --query-gpu=name,driver_version --format=csv | tee "$out/machine.txt"
# Capture: 32 states in one prefill of 8,192 tokens, and what strict prefill costs beside one uncut call.
run 120 capture benchmarks.capture --tokens 8192 --states 32 --dtype bfloat16 --turns 5
# A hit against its suffix, and answers from keys that grow in place.
run 120 resume benchmarks resume
# States to pinned memory of the host beside a prefill, and whether what comes back is the same.
run 60 transfers benchmarks.transfers
# The paper's experiment at full size; the file is written after each workload.
run 360 frontier benchmarks.frontier --full ${logs:+--logs "$logs"} --requests 60 --turns 1 --shares 0.2 1.0 \
    --output "$out/frontier.json"
[ ${#failed[@]} -eq 0 ] || { echo "failed, or took too long: ${failed[*]}" >&2; exit 1; }
