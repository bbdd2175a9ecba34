#!/usr/bin/env bash
# torch 2.13.0 (CPU, x86 with AVX2, one thread). Seen in November 2026.
#
# A batch holds one and the same row several times, in float32. After `softplus` or `sigmoid` its rows are not equal
# any more: what fills a whole vector register goes through one code, the rest at the tensor's end through
# another, and the two round differently. Eight rows of five numbers come out unequal in half of the draws. The same with a product by a matrix of two rows (`linear`, 64 to 2): unequal in most draws with
# 3 to 15 rows, never with 16. Mamba's and gated delta nets' steps are made of both: softplus of a number a
# head, and a projection to as many numbers as there are heads.
#
# Why it surprises: an element-wise function gives other bits for the same number in another place of the
# tensor. What a request computes hangs on the slot that it has in a batch, with all the others equal to it.
#
# Seen (draws of 200 in which the rows are not all equal; 2, 4, 8, 16, 32 rows):
#   softplus, 5 numbers a row   0 83 97 0 0
#   sigmoid, 5 numbers a row    0 20 33 0 0
#   exp, 5 numbers a row        0 0 0 0 0
#   linear, 64 to 2             0 164 169 0 0
#
# Exits 1 if the behaviour is another: equal rows everywhere, or unequal ones after `exp`.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
ATEN_CPU_CAPABILITY=avx2 "$work/venv/bin/python" - <<'PYTHON'
import sys
import warnings

warnings.simplefilter("ignore")
import torch

torch.set_num_threads(1)
random = torch.Generator().manual_seed(0)
matrix = torch.randn(2, 64, generator=random)
DRAWS, COUNTS = 200, (2, 4, 8, 16, 32)


def num_unequal(function, width, count):
    """Return in how many draws a batch of equal rows has unequal ones after ``function``."""
    found = 0
    for _ in range(DRAWS):
        batch = torch.randn(1, width, generator=random).repeat(count, 1)
        result = function(batch)
        found += not all(torch.equal(row, result[0]) for row in result)
    return found


seen = {}
for name, function, width in (
    ("softplus, 5 numbers a row", torch.nn.functional.softplus, 5),
    ("sigmoid, 5 numbers a row", torch.sigmoid, 5),
    ("exp, 5 numbers a row", torch.exp, 5),
    ("linear, 64 to 2", lambda batch: torch.nn.functional.linear(batch, matrix), 64),
):
    seen[name] = [num_unequal(function, width, count) for count in COUNTS]
    print(f"{name:27}", *seen[name])

print("kernels:", torch.backends.cpu.get_cpu_capability())
as_seen = not any(seen["exp, 5 numbers a row"]) and all(
    numbers[COUNTS.index(8)] > 20 for name, numbers in seen.items() if not name.startswith("exp")
)
sys.exit(not as_seen)
PYTHON
