"""What an engine with each kind of states reuses in one budget, and what the replay may spend in one time."""

from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np

from benchmarks.lossy.foresight import foresight_row
from benchmarks.lossy.prompts import QUESTIONS, held_out_documents
from benchmarks.lossy.traffic import Run, exact_engine, quantised_engine, replaying_engine, run
from benchmarks.printing import Row
from milepost.demo.workload import Ask, chat_prompt, interleave
from milepost.engines.engine import Engine
from milepost.engines.served_model import ServedModel
from milepost.traces import TraceRequest

__all__ = ["equal_bytes_rows", "working_set_bytes"]

_POLICY = "learned"
_KEPT_BITS = {"exact": None, "int8": 8, "6 bit": 6}
_LEAST_RATIO = 0.9
_SEED = 5


def equal_bytes_rows(
    served: ServedModel, *, num_documents: int, shares: Sequence[float], answer_tokens: int
) -> tuple[list[Row], dict[float, int]]:
    """Return rows for each budget, and how many tokens the replay may run again at a hit in equal time.

    Args:
        served: The model, in strict numerics.
        num_documents: Each is asked ``QUESTIONS`` questions, the sessions taking turns.
        shares: Budgets, as shares of what every document with one exact state takes.
        answer_tokens: Of each answer.
    """
    cold_engine = exact_engine(served, capacity_bytes=2**40, policy="none")
    documents = list(islice(held_out_documents(seed=_SEED), num_documents))
    asks = interleave(
        documents,
        lambda document, question: cold_engine.encode(chat_prompt(document, question)),
        questions=QUESTIONS,
    )
    cold = run(cold_engine, asks, answer_tokens=answer_tokens)
    rows, replayed = [], {}
    for share in shares:
        capacity = round(share * working_set_bytes(asks, served))
        engines = {name: _engine(served, bits, capacity) for name, bits in _KEPT_BITS.items()}
        runs = {name: run(engine, asks, answer_tokens=answer_tokens) for name, engine in engines.items()}
        replayed[share] = _replayed_in_equal_time(served, asks, runs["exact"], capacity)
        least = max(replayed[share], served.segment_tokens)
        engine, driver = replaying_engine(served, num_replayed=least, capacity_bytes=capacity, policy=_POLICY)
        runs[f"replay {least:,}"] = run(engine, asks, answer_tokens=answer_tokens, replaying=driver)
        budget = f"{share:.0%} of the working set"
        rows += _rows(budget, runs, cold, asks)
        rows.append(
            foresight_row(
                f"{budget}, exact / int8",
                _as_trace(asks),
                capacity_kv_tokens=capacity // served.footprint.kv_bytes_per_token,
                exact=served.footprint,
                lossy=engines["int8"].cache.footprint,
                grid=served.segment_tokens,
            )
        )
        rows.append(_time_row(budget, replayed[share]))
    return rows, replayed


def working_set_bytes(asks: Sequence[Ask], served: ServedModel) -> int:
    """Return what the KV of every document and one exact state of each take."""
    longest: dict[int, int] = {}
    for ask in asks:
        longest[ask.document] = max(longest.get(ask.document, 0), ask.tokens.size)
    footprint = served.footprint
    return sum(
        tokens * footprint.kv_bytes_per_token + footprint.checkpoint_bytes for tokens in longest.values()
    )


def _as_trace(asks: Sequence[Ask]) -> list[TraceRequest]:
    return [
        TraceRequest(
            request_id=str(number),
            keys=ask.tokens.astype(np.int64),
            key_tokens=1,
            num_tokens=ask.tokens.size,
        )
        for number, ask in enumerate(asks)
    ]


def _engine(served: ServedModel, bits: int | None, capacity_bytes: int) -> Engine:
    if bits is None:
        return exact_engine(served, capacity_bytes=capacity_bytes, policy=_POLICY)
    return quantised_engine(served, bits=bits, capacity_bytes=capacity_bytes, policy=_POLICY)


def _replayed_in_equal_time(served: ServedModel, asks: Sequence[Ask], exact: Run, capacity_bytes: int) -> int:
    """Return how many tokens at each hit leave the replay as much work as exact states have; whole segments.

    What it reuses does not hang on how much it replays, so one run with none tells.
    """
    engine, driver = replaying_engine(served, num_replayed=0, capacity_bytes=capacity_bytes, policy=_POLICY)
    free = run(engine, asks, answer_tokens=1, replaying=driver)
    spare = (exact.computed - free.computed) / max(1, free.num_hits)
    return max(0, int(spare)) // served.segment_tokens * served.segment_tokens


def _rows(budget: str, runs: Mapping[str, Run], cold: Run, asks: Sequence[Ask]) -> list[Row]:
    exact, rows = runs["exact"], []
    num_tokens = sum(len(each.tokens) for each in cold.completions)
    prompt_tokens = sum(each.report.num_tokens for each in cold.completions)
    for name, its in runs.items():
        ratio = exact.reused / max(1, its.reused)
        differing, ours = its.num_differing(cold), exact.num_differing(cold)
        # What the replay reuses it has to run again in part, so it is judged by time.
        least = 0.0 if name.startswith("replay") else _LEAST_RATIO
        rows.append(
            Row(
                name=f"{budget}, {name}",
                measured=f"reused {its.reused / prompt_tokens:.3f} (exact / it {ratio:.3f}), computed "
                f"{its.computed:,}, CPU {its.cpu_seconds / cold.cpu_seconds:.3f} of cold; differing tokens "
                f"{differing}/{num_tokens} (exact {ours}), right {its.num_right(asks)}/{len(asks)}",
                target=f"exact / it >= {least}, exact differs in 0" if least else "reported",
                reached=ratio >= least and ours == 0,
                numbers={
                    "reused_share": its.reused / prompt_tokens,
                    "exact_over_it": ratio,
                    "computed_tokens": its.computed,
                    "cpu_over_cold": its.cpu_seconds / cold.cpu_seconds,
                    "differing_tokens": differing,
                    "tokens": num_tokens,
                    "right": its.num_right(asks),
                    "requests": len(asks),
                },
            )
        )
    return rows


def _time_row(budget: str, num_replayed: int) -> Row:
    return Row(
        name=f"{budget}, replayed tokens a hit in equal work",
        measured=f"{num_replayed:,}",
        target="reported",
        reached=True,
        numbers={"replayed_tokens": num_replayed},
    )
