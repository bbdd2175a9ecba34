#!/usr/bin/env bash
# What of SGLang waits for a GPU: bash benchmarks/sglang/gpu.sh MODEL [more of SGLang's flags], from a clone's
# root, with SGLang 0.5.22 or 0.5.23 installed for the python3 on the path. MODEL is a hybrid that SGLang runs
# with extra_buffer, such as Qwen/Qwen3.5-0.8B.
#
# Starts SGLang as it is and with Milepost, in turn, and asks both the same. Results lie in $OUT
# (gpu-results-sglang unless set): what each server answered, its log and its /metrics, and the comparison.
set -euo pipefail
model=$1
shift
out=${OUT:-gpu-results-sglang}
port=${PORT:-30000}
url=http://127.0.0.1:$port
mkdir -p "$out"
python3 -m pip install --quiet --editable .
nvidia-smi --query-gpu=name,driver_version --format=csv | tee "$out/machine.txt"
server=
trap '[ -z "$server" ] || kill "$server"' EXIT

for name in stock milepost; do
    backend=()
    [ $name = stock ] || backend=(--radix-cache-backend milepost)
    python3 -m sglang.launch_server --model-path "$model" --host 127.0.0.1 --port "$port" --enable-metrics \
        --mamba-radix-cache-strategy extra_buffer --max-running-requests 4 "${backend[@]}" "$@" \
        >"$out/$name.log" 2>&1 &
    server=$!
    until curl --silent --fail "$url/health_generate" >"$out/health.txt"; do
        kill -0 "$server" || { tail "$out/$name.log"; exit 1; }
        sleep 2
    done
    python3 -m benchmarks.sglang.served run "$url" --output "$out/$name.json"
    curl --silent --fail "$url/metrics" >"$out/$name.metrics"
    kill "$server"
    wait "$server" || true
    server=
done
python3 -m benchmarks.sglang.served compare "$out/stock.json" "$out/milepost.json" | tee "$out/comparison.txt"
