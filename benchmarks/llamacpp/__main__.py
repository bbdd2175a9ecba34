"""The llama.cpp engine against llama-cpp-python's own class, on random models of 17 to 25 million parameters.

    OMP_NUM_THREADS=1 python -m benchmarks.llamacpp [--json]

Width 512, 8 layers, f32, made on the fly. Prompt tokens evaluated are counted; all else is CPU seconds on one
thread, as medians (and quartiles) of ratios of ways that take turns. Five minutes.
"""

import tempfile
from pathlib import Path

from benchmarks.llamacpp.evaluated import measure_evaluated
from benchmarks.llamacpp.families import Sizes
from benchmarks.llamacpp.gguf_file import write_gguf
from benchmarks.llamacpp.timing import measure_capture, measure_decode, measure_hit, measure_prefill
from benchmarks.printing import Row, run_and_print

_SIZES = Sizes(width=512, layers=8, vocabulary=4_096)
_FAMILIES = ("qwen35", "mamba2", "lfm2")


def measure() -> list[Row]:
    """Return all rows."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in _FAMILIES:
            path = write_gguf(Path(folder) / f"{name}.gguf", name, sizes=_SIZES)
            for part in (measure_evaluated, measure_decode, measure_prefill, measure_hit, measure_capture):
                rows += part(path, name)
    return rows


if __name__ == "__main__":
    run_and_print(measure)
