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
from benchmarks.sglang.replay import (
    MILEPOST,
    POOLS,
    STOCK_SETTINGS,
    WORKLOADS,
    Pools,
    pools_of,
    prompts_in,
    replay,
)


def measure(workloads: dict[str, tuple[str, float]], num_requests: int) -> list[Row]:
    """Return a row for each workload and pool."""
    rows = []
    for name, (notation, wanted) in workloads.items():
        prompts = prompts_in(notation, num_requests)
        rows += [_row(name, wanted, pools_of(prompts, pool), prompts) for pool in POOLS]
    return rows


def _row(name: str, wanted: float, pools: Pools, prompts: Sequence) -> Row:
    stock = {setting.label: replay(setting, pools, prompts).fraction for setting in STOCK_SETTINGS}
    reuse = replay(MILEPOST, pools, prompts)
    planned = reuse.fraction
    best = max(stock, key=stock.get)
    default = stock[STOCK_SETTINGS[0].label]
    ratio = planned / stock[best] if stock[best] else float("inf")
    is_tight = pools.num_states <= 24
    target = wanted if is_tight else 1.0
    return Row(
        name=f"{name}, {pools.num_states} state slots, {pools.num_kv_tokens:,} tokens of KV",
        measured=f"{planned:.1%}; SGLang {default:.1%}, best {stock[best]:.1%} ({best}): {ratio:.2f}; "
        f"{reuse.num_stops} chunks more",
        target=f">= {target:.2f} of the best",
        reached=ratio >= target,
        numbers={
            "planned": planned,
            "stock": default,
            "best_stock": stock[best],
            "best_setting": best,
            "ratio": ratio,
            "num_stops": reuse.num_stops,
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
    parser.add_argument("--workload", choices=sorted(WORKLOADS), action="append", help="all unless given")
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    arguments = parser.parse_args()
    workloads = {name: WORKLOADS[name] for name in arguments.workload or WORKLOADS}
    if arguments.trace:
        workloads = {arguments.trace: (arguments.trace, 1.0)}
    print_rows(measure(workloads, arguments.requests), as_json=arguments.json)


if __name__ == "__main__":
    main()
