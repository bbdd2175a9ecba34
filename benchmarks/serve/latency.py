"""What one client waits for: hits beside cold prompts, running streams when a long prompt comes, and many
streams beside the bare engine.

    python -m benchmarks.serve.latency [--model MODEL] [--json]

Hits and cold prompts have one length and take turns. The long prompt comes while four streams run; their
longest gap stands beside the slice of prefill that they wait for, measured on the same prompt. Eight streams
stand beside an engine in this process that runs the same eight; both in fast numerics.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np

from benchmarks.printing import Row
from benchmarks.serve.client import Answered, ask, tokens_per_second
from benchmarks.serve.command import run_on_a_model
from benchmarks.serve.process import served
from benchmarks.serve.traffic import document_questions
from milepost.embedded import resolve_model
from milepost.engines.engine import Engine

_DOCUMENTS, _QUESTIONS, _CHARACTERS = 6, 12, 8_000
_HIT_TARGET = 0.25
_STALL_SECONDS = 0.25
_LONG_TOKENS, _STREAMS, _STREAM_TOKENS = 30_000, 4, 4_000
_MANY, _MANY_TOKENS = 8, 300
_RATE_TARGET = 0.9


def measure(model: str = "embedded") -> list[Row]:
    """Return the rows."""
    return [_hits(model), _stall(model), _rate(model)]


def _hits(model: str) -> Row:
    options = [model, "--name", "m", "--capacity", "512MiB"]
    with served(options) as server:
        cold, hits = asyncio.run(_cold_and_hits(server.url))
    p95 = [float(np.percentile([each.ttft_seconds for each in kind], 95)) for kind in (hits, cold)]
    ratio = p95[0] / p95[1]
    share = np.mean([each.num_cached / each.usage["prompt_tokens"] for each in hits])
    return Row(
        name=f"first token, p95: {len(hits)} hits / {len(cold)} cold prompts of that length",
        measured=f"{ratio:.3f} ({1e3 * p95[0]:.0f} / {1e3 * p95[1]:.0f} ms, {share:.2f} resumed)",
        target=f"{_HIT_TARGET}",
        reached=ratio <= _HIT_TARGET,
        numbers={"ratio": ratio, "hit_p95": p95[0], "cold_p95": p95[1]},
    )


async def _cold_and_hits(url: str) -> tuple[list[Answered], list[Answered]]:
    cold, hits = [], []
    questions = document_questions(num_documents=_DOCUMENTS, num_questions=_QUESTIONS, characters=_CHARACTERS)
    async with httpx.AsyncClient(base_url=url, timeout=600) as http:
        for number in range(_QUESTIONS):
            for index, asked in enumerate(each[number] for each in questions):
                hit = await ask(http, asked.messages, model="m", max_tokens=4)
                if number > 1:
                    # The first question finds nothing, and the second one where they part.
                    hits.append(hit)
                fresh = {"cache_salt": f"{number}-{index}"}
                cold.append(await ask(http, asked.messages, model="m", max_tokens=4, **fresh))
    assert not any(each.num_cached for each in cold)
    return cold, hits


def _stall(model: str) -> Row:
    with served([model, "--name", "m", "--capacity", "512MiB"]) as server:
        gaps, slice_seconds = asyncio.run(_gaps(server.url))
    worst = max(gaps)
    allowed = slice_seconds + _STALL_SECONDS
    return Row(
        name=f"a prompt of {_LONG_TOKENS:,} tokens comes: longest gap of {_STREAMS} streams; a slice",
        measured=f"{1e3 * worst:.0f} ms; {1e3 * slice_seconds:.0f} ms",
        target="a slice and 250 ms",
        reached=worst <= allowed,
        numbers={"worst": worst, "slice": slice_seconds},
    )


async def _gaps(url: str) -> tuple[list[float], float]:
    """Return the gaps of streams while a long prompt is computed, and what a slice of it takes."""
    async with httpx.AsyncClient(base_url=url, timeout=600) as http:
        tokens = (await http.post("/tokenize", json={"prompt": "a b c d e f g. " * 4_000})).json()["tokens"]
        prompt = tokens[:_LONG_TOKENS]

        async def long_prompt(salt: str) -> tuple[float, float]:
            started = time.monotonic()
            body = {"model": "m", "prompt": prompt, "max_tokens": 1, "cache_salt": salt}
            answer = await http.post("/v1/completions", json=body)
            assert answer.status_code == httpx.codes.OK, answer.text
            return started, time.monotonic()

        started, ended = await long_prompt("alone")
        # The engine cuts a prompt at every 256 tokens, and the last slices attend to all before them.
        slice_seconds = (ended - started) / (_LONG_TOKENS / 256)
        streams = [
            asyncio.create_task(
                ask(
                    http,
                    [{"role": "user", "content": f"Count from {number}."}],
                    model="m",
                    max_tokens=_STREAM_TOKENS,
                    ignore_eos=True,
                )
            )
            for number in range(_STREAMS)
        ]
        await asyncio.sleep(1)
        started, ended = await long_prompt("beside others")
        answers = await asyncio.gather(*streams)
    gaps = []
    for answer in answers:
        times = np.array(answer.times)
        during = times[(times > started) & (times < ended)]
        assert during.size > 2, "the streams had ended before the prompt came"
        gaps += np.diff(during).tolist()
    return gaps, slice_seconds


def _rate(model: str) -> Row:
    options = [model, "--name", "m", "--numerics", "fast", "--max-running", str(_MANY)]
    chats = [[{"role": "user", "content": f"Tell me of {number}."}] for number in range(_MANY)]
    engine = Engine.open(resolve_model(model), numerics="fast", max_running=_MANY)
    ratios = []
    with served(options) as server:
        for _ in range(3):
            bare = _bare_rate(engine, chats)
            ratios.append((asyncio.run(_served_rate(server.url, chats)), bare))
    ratio = float(np.median([one / other for one, other in ratios]))
    return Row(
        name=f"tokens a second at {_MANY} streams / the bare engine's",
        measured=f"{ratio:.2f} ({ratios[-1][0]:,.0f} / {ratios[-1][1]:,.0f})",
        target=f"{_RATE_TARGET}",
        reached=ratio >= _RATE_TARGET,
        numbers={"ratio": ratio},
    )


def _bare_rate(engine: Engine, chats: Sequence[Any]) -> float:
    started = time.monotonic()
    options = {"max_new_tokens": _MANY_TOKENS, "temperature": 0.0, "ignore_end_token": True}
    completions = engine.generate_many(chats, **options)  # type: ignore[arg-type]
    return sum(len(each.tokens) for each in completions) / (time.monotonic() - started)


async def _served_rate(url: str, chats: Sequence[Any]) -> float:
    async with httpx.AsyncClient(base_url=url, timeout=600) as http:
        return await tokens_per_second(http, chats, model="m", max_tokens=_MANY_TOKENS)


if __name__ == "__main__":
    run_on_a_model(measure, description=__doc__)
