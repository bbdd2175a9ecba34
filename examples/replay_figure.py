"""What each policy would reuse of a request log, at several memory sizes, as a figure.

    python examples/replay_figure.py [LOG]

LOG is a file of requests (docs/logs.md says what is read). Without one, traffic about documents is made up.
Nothing is run but the cache itself, without tensors. It writes reuse.png here, and you will see

    policy            50k      100k     200k
    learned           21.3%    39.3%    67.9%
    vllm              4.7%     15.3%    34.6%
    dense:2048        13.5%    32.0%    55.0%
    clairvoyant       34.5%    61.1%    77.5%
    wrote reuse.png
"""

import sys

from matplotlib.figure import Figure

from milepost import open_trace, simulate

POLICIES = ("learned", "vllm", "dense:2048", "clairvoyant")
CAPACITIES = (50_000, 100_000, 200_000)
# What a state costs, in tokens of KV: of your model, `milepost footprint MODEL` says it.
CHECKPOINT_KV_TOKENS = 1_536


def main() -> None:
    """Replay the log under every policy at every size, and draw what was reused."""
    log = sys.argv[1] if len(sys.argv) > 1 else "synthetic:documents,requests=150,seed=1"
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    print("policy           ", *(f"{capacity // 1_000}k".ljust(8) for capacity in CAPACITIES))
    for policy in POLICIES:
        reused = [
            simulate(
                open_trace(log),
                policy=policy,
                capacity_kv_tokens=capacity,
                checkpoint_kv_tokens=CHECKPOINT_KV_TOKENS,
            ).reused_fraction
            for capacity in CAPACITIES
        ]
        print(policy.ljust(17), *(f"{share:.1%}".ljust(8) for share in reused))
        # The clairvoyant knows what comes: a bound, and no competitor.
        axes.plot(CAPACITIES, reused, marker="o", label=policy, ls=":" if policy == "clairvoyant" else "-")
    axes.set(xlabel="memory, tokens of KV", ylabel="prompt tokens reused", xscale="log", ylim=(0, 1))
    axes.set_xticks(CAPACITIES, [f"{capacity // 1_000}k" for capacity in CAPACITIES], minor=False)
    axes.legend()
    figure.savefig("reuse.png", dpi=150)
    print("wrote reuse.png")


if __name__ == "__main__":
    main()
