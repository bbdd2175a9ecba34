"""What SGLang and the plug-in reuse, in pools from tight to ample.

    python -m benchmarks.sglang [--trace LOG] [--requests N] [--json]

SGLang counts with the best of its settings, chosen after the fact for each pool. No model is run.
"""

import argparse
import logging
import warnings
from collections.abc import Sequence

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)

from benchmarks.sglang import absent_torchvision

absent_torchvision.stand_in()

from benchmarks.printing import Row, print_rows
from benchmarks.sglang.replay import MILEPOST, STOCK_SETTINGS, Pools, prompts_of, reused_fraction
from milepost.traces import open_trace

_WORKLOADS = {
    "documents": ("synthetic:documents,requests={},seed=1", 1.3),
    "chat": ("synthetic:chat,requests={},seed=1", 1.0),
    "agents": ("synthetic:agents,requests={},seed=1", 1.0),
}
_CHUNK_TOKENS = 8192
# Slots for states; KV for so many average prompts.
_POOLS = ((10, 60), (24, 60), (60, 8), (90, 200))


def measure(workloads: dict[str, tuple[str, float]], num_requests: int) -> list[Row]:
    """Return a row for each workload and pool."""
    rows = []
    for name, (notation, wanted) in workloads.items():
        prompts = prompts_of([*open_trace(notation.format(num_requests)).first(num_requests)])
        average = sum(map(len, prompts)) // len(prompts)
        # The longest prompt has to fit.
        least_kv = max(map(len, prompts)) + 1024
        for num_states, num_prompts in _POOLS:
            pools = Pools(num_states, max(least_kv, num_prompts * average), _CHUNK_TOKENS)
            rows.append(_row(name, wanted, pools, prompts))
    return rows


def _row(name: str, wanted: float, pools: Pools, prompts: Sequence) -> Row:
    stock = {setting.label: reused_fraction(setting, pools, prompts) for setting in STOCK_SETTINGS}
    planned = reused_fraction(MILEPOST, pools, prompts)
    best = max(stock, key=stock.get)
    default = stock[STOCK_SETTINGS[0].label]
    ratio = planned / stock[best] if stock[best] else float("inf")
    is_tight = pools.num_states <= 24
    target = wanted if is_tight else 1.0
    return Row(
        name=f"{name}, {pools.num_states} state slots, {pools.num_kv_tokens:,} tokens of KV",
        measured=f"{planned:.1%}; SGLang {default:.1%}, best {stock[best]:.1%} ({best}): {ratio:.2f}",
        target=f">= {target:.2f} of the best",
        reached=ratio >= target,
        numbers={
            "planned": planned,
            "stock": default,
            "best_stock": stock[best],
            "best_setting": best,
            "ratio": ratio,
            "num_states": pools.num_states,
            "num_kv_tokens": pools.num_kv_tokens,
        },
    )


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", help="a log in place of the made-up workloads")
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--workload", choices=sorted(_WORKLOADS), action="append", help="all unless given")
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    arguments = parser.parse_args()
    workloads = {name: _WORKLOADS[name] for name in arguments.workload or _WORKLOADS}
    if arguments.trace:
        workloads = {arguments.trace: (arguments.trace, 1.0)}
    print_rows(measure(workloads, arguments.requests), as_json=arguments.json)


if __name__ == "__main__":
    main()
