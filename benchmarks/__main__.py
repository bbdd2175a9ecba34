"""Every number the README quotes, in one run.

    python -m benchmarks [NAME ...] [--json] [--logs DIR] [--traces DIR]

Names: planner, bookkeeping, policies, ablation and regret (skipped without recorded traces), sensitivity,
capture, resume, look, paper (skipped without the logs of the paper's runs), engines (decoding in rows, a
chat, scoring; those on llama.cpp are `python -m benchmarks.llamacpp`, in an environment that has it),
exactness. All of them take about an hour on two cores that do nothing else; what else they do shows in the
times, much less in the ratios.
"""

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.printing import Row, print_rows


def _planner() -> Sequence[Row]:
    from benchmarks import planner

    return planner.rows(planner.measure(quick=False))


def _bookkeeping() -> Sequence[Row]:
    from benchmarks import bookkeeping

    return bookkeeping.measure()


def _on_traces(traces: Path | None, measure: Callable[[Path], Sequence[Row]]) -> Sequence[Row]:
    """Return what is measured on recorded traces, or say which are missing."""
    from benchmarks.policies import missing_traces

    if traces is None or (reason := missing_traces(traces)):
        reason = "--traces DIR is missing" if traces is None else reason
        Console(stderr=True).print(f"skipped: {reason}", markup=False)
        return ()
    return measure(traces)


def _policies(traces: Path) -> Sequence[Row]:
    from benchmarks import policies

    return policies.rows(*policies.measure(traces))


def _ablation(traces: Path) -> Sequence[Row]:
    from benchmarks.policies import ablation

    return ablation.rows(*ablation.measure_ablation(traces))


def _regret(traces: Path) -> Sequence[Row]:
    from benchmarks import regret

    return [regret.row(point) for point in regret.measure(traces)]


def _capture() -> Sequence[Row]:
    import torch

    from benchmarks import capture

    return capture.measure(num_tokens=2_048, num_states=8, dtype=torch.bfloat16, num_turns=5)


def _resume() -> Sequence[Row]:
    from benchmarks import resume

    return resume.measure()


def _look() -> Sequence[Row]:
    from benchmarks import look

    return look.measure()


def _paper(logs: Path | None) -> Sequence[Row]:
    from benchmarks import paper

    missing = ["--logs DIR"] if logs is None else paper.missing_logs(logs)
    if logs is None or missing:
        Console(stderr=True).print(f"skipped: {', '.join(missing)} is missing")
        return ()
    return paper.measure(logs)


def _engines() -> Sequence[Row]:
    from benchmarks.engines import chat, decode, scoring

    return [*decode.measure(), *chat.measure(), *scoring.measure()]


def _exactness() -> Sequence[Row]:
    from benchmarks import exactness

    return exactness.measure(list(exactness.ALL_FAMILIES), ["float32", "bfloat16"], 50)


def _sensitivity(traces: Path | None) -> Sequence[Row]:
    from benchmarks import sensitivity

    return sensitivity.measure(traces)


def _benchmarks(*, logs: Path | None, traces: Path | None) -> dict[str, Callable[[], Sequence[Row]]]:
    # Exactness last: it sets the number of threads.
    return {
        "planner": _planner,
        "bookkeeping": _bookkeeping,
        "policies": lambda: _on_traces(traces, _policies),
        "ablation": lambda: _on_traces(traces, _ablation),
        "regret": lambda: _on_traces(traces, _regret),
        "sensitivity": lambda: _sensitivity(traces),
        "capture": _capture,
        "resume": _resume,
        "look": _look,
        "paper": lambda: _paper(logs),
        "engines": _engines,
        "exactness": _exactness,
    }


def main() -> None:
    """Run the named benchmarks, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=", ".join(_benchmarks(logs=None, traces=None))
    )
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of tables")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="logs of the paper's runs, for paper")
    parser.add_argument("--traces", type=Path, metavar="DIR", help="recorded traces")
    arguments = parser.parse_args()
    benchmarks = _benchmarks(logs=arguments.logs, traces=arguments.traces)
    unknown = set(arguments.names) - set(benchmarks)
    if unknown:
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}; there are {', '.join(benchmarks)}")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    for name, measure in benchmarks.items():
        if not arguments.names or name in arguments.names:
            Console(stderr=True).print(f"[bold]{name}[/]")
            if rows := measure():
                print_rows(rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
