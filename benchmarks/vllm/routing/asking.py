"""Asks a running server, or a router before some, and reads what it says of itself."""

import json
import re
import urllib.request
from dataclasses import dataclass

from benchmarks.vllm.routing.processes import MODEL_NAME

__all__ = ["Answer", "ask", "block_tokens_of", "computed_tokens_of"]

_SECONDS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back for one prompt."""

    text: str
    prompt_tokens: int
    cached_tokens: int


def ask(url: str, prompt: str, *, answer_tokens: int) -> Answer:
    """Return the answer to a prompt, greedy and of just so many tokens."""
    wanted = {
        "model": MODEL_NAME,
        "prompt": prompt,
        "max_tokens": answer_tokens,
        "temperature": 0,
        "ignore_eos": True,
    }
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(wanted).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
        given = json.load(answer)
    return Answer(
        text=given["choices"][0]["text"],
        prompt_tokens=given["usage"]["prompt_tokens"],
        cached_tokens=(given["usage"]["prompt_tokens_details"] or {}).get("cached_tokens") or 0,
    )


def block_tokens_of(url: str) -> int:
    """Return the tokens of a server's blocks, as its metrics tell them."""
    found = re.search(r'cache_config_info\{.*?[{,]block_size="(\d+)"', _metrics(url))
    if found is None:
        raise RuntimeError(f"{url} does not tell its block size")
    return int(found[1])


def computed_tokens_of(url: str) -> list[int]:
    """Return how many prompt tokens each engine of a server has computed."""
    queries, hits = (_by_engine(url, f"vllm:prefix_cache_{name}_total") for name in ("queries", "hits"))
    return [round(queries[engine] - hits.get(engine, 0.0)) for engine in sorted(queries)]


def _by_engine(url: str, name: str) -> dict[str, float]:
    found = re.findall(rf'^{re.escape(name)}\{{.*?engine="(\w+)".*\}} (\S+)$', _metrics(url), re.MULTILINE)
    return {engine: float(value) for engine, value in found}


def _metrics(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics", timeout=_SECONDS) as answer:
        return str(answer.read().decode())
