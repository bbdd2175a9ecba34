"""Stock vLLM at its best against the plugin: same model, same pool, same requests, runs by turns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.vllm.child import call
from benchmarks.vllm.comparing.choice import Question, best_of_each
from benchmarks.vllm.comparing.run import Measurement, RunSpec
from benchmarks.vllm.servers.settings import MILEPOST, OTHERWISE_CUT, STOCK, Setting, candidates
from benchmarks.vllm.traffic.asks import Workload

__all__ = ["Comparison", "compare", "first_spec"]

# Until vLLM has said what it chooses.
_GUESSED_BLOCK_TOKENS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The runs of each setting, by its label, of one workload at one concurrency. Stock is the first.

    Attributes:
        controls: Runs of stock vLLM that batch or cut prompts otherwise, and so show how often a near-tie of
            two tokens falls the other way with no plugin near.
    """

    workload: Workload
    concurrency: int
    runs: dict[str, list[Measurement]]
    controls: tuple[Measurement, ...]

    @property
    def stock(self) -> Measurement:
        """The first run of stock vLLM as it is."""
        return self.runs[STOCK.label][0]

    @property
    def plugin(self) -> Measurement | None:
        """The first run of the plugin, None where it has not run."""
        return self.runs[MILEPOST.label][0] if MILEPOST.label in self.runs else None

    @property
    def best_stock(self) -> Measurement:
        """The run of stock vLLM, in whatever setting, that cached most."""
        stock = [runs[0] for label, runs in self.runs.items() if label != MILEPOST.label]
        return max(stock, key=lambda run: run.cached_tokens)

    def fastest(self, label: str) -> Measurement:
        """Return the turn of a setting with the least CPU time: what else a machine does only adds to it."""
        return min(self.runs[label], key=lambda run: run.cpu_seconds)

    def throughput_ratio(self, label: str) -> float:
        """Return the tokens a CPU second of a setting over those of stock, each in its fastest turn."""
        return self.fastest(label).tokens_per_cpu_second / self.fastest(STOCK.label).tokens_per_cpu_second


def compare(
    workload: Workload,
    *,
    model: str,
    folder: Path,
    concurrencies: Sequence[int] = (1, 4),
    num_turns: int = 3,
    with_plugin: bool = True,
    watch: Callable[[str], None] = lambda _: None,
) -> list[Comparison]:
    """Run ``workload`` in every setting, and return a comparison for each concurrency. Takes minutes.

    Args:
        workload: What to ask.
        model: A name in ``benchmarks.vllm.models``.
        folder: Where that model lies.
        concurrencies: Requests at a time.
        num_turns: How often stock and the plugin run, by turns; the other settings run once.
        with_plugin: Whether the plugin runs at all.
        watch: Told what starts.
    """
    watch(f"{workload.name}: trying what stock vLLM can be told")
    spec = first_spec(workload, model=model, folder=folder)
    block_tokens, results = call(
        "benchmarks.vllm.comparing.choice:try_all",
        Question(
            spec=spec,
            settings=tuple(candidates()),
            concurrencies=tuple(concurrencies),
            pools_tokens=(workload.pool_tokens,),
        ),
    )
    comparisons: list[Comparison] = []
    for concurrency in concurrencies:
        peers = best_of_each([result for result in results if result.concurrency == concurrency])
        runs: dict[str, list[Measurement]] = {}
        for setting in _turns([peer.setting for peer in peers], num_turns, with_plugin=with_plugin):
            watch(f"{workload.name}, {concurrency} at a time: {setting.label}")
            run = call(
                "benchmarks.vllm.comparing.run:measure",
                replace(spec, setting=setting, concurrency=concurrency, block_tokens=block_tokens),
            )
            runs.setdefault(setting.label, []).append(run)
        controls = [runs[OTHERWISE_CUT.label][0], *(before.stock for before in comparisons)]
        comparisons.append(
            Comparison(workload=workload, concurrency=concurrency, runs=runs, controls=tuple(controls))
        )
    return comparisons


def first_spec(workload: Workload, *, model: str, folder: Path) -> RunSpec:
    """Return a run of stock vLLM, one request at a time, whose block size is a guess."""
    return RunSpec(
        model=model,
        folder=folder,
        workload=workload,
        setting=STOCK,
        concurrency=1,
        block_tokens=workload.block_tokens or _GUESSED_BLOCK_TOKENS,
    )


def _turns(peers: Sequence[Setting], num_turns: int, *, with_plugin: bool) -> list[Setting]:
    by_turns = [STOCK, MILEPOST] if with_plugin else [STOCK]
    first = [STOCK, OTHERWISE_CUT, *peers, *by_turns[1:]]
    # Each turn the other way round, so that a machine that slows down favours neither.
    return first + [
        setting for turn in range(1, num_turns) for setting in (reversed(by_turns) if turn % 2 else by_turns)
    ]
