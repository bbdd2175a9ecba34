"""What a running server of SGLang finds, how soon it answers, and whether hits answer as cold prompts do.

    bash benchmarks/sglang/gpu.sh MODEL                                # both servers in turn, on one GPU
    python -m benchmarks.sglang.served run URL --output FILE           # one server that runs already
    python -m benchmarks.sglang.served compare STOCK MILEPOST [--json] # what the two files say

Questions on made-up documents, one after another: of token ids, since what they say does not matter, and
greedy. First all of them as they come, then each of them again in a cache that was just emptied. Differing
tokens and log-probabilities between the two are the server's own: those of SGLang as it is are the control.
"""

import argparse
import json
import random
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import requests

from benchmarks.printing import Row, print_rows

__all__ = ["Answer", "ask", "compare", "questions"]

_DOCUMENT_TOKENS, _QUESTION_TOKENS, _ANSWER_TOKENS = 12_000, 200, 16
_NUM_DOCUMENTS, _QUESTIONS_EACH = 6, 4
# Ids that every vocabulary has, and no special ones.
_IDS = (1_000, 20_000)
_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        prompt_tokens: Of its prompt.
        cached_tokens: Those of them that were found.
        seconds: Until its first token.
        ids: Its tokens.
        logprobs: Of each, in nats.
    """

    prompt_tokens: int
    cached_tokens: int
    seconds: float
    ids: list[int]
    logprobs: list[float]


def questions(seed: int = 0) -> list[list[int]]:
    """Return the prompts in the order in which they come: each document is asked about now and then."""
    drawn = random.Random(seed)

    def tokens(count: int) -> list[int]:
        return [drawn.randrange(*_IDS) for _ in range(count)]

    documents = [tokens(_DOCUMENT_TOKENS) for _ in range(_NUM_DOCUMENTS)]
    order = [document for document in documents for _ in range(_QUESTIONS_EACH)]
    drawn.shuffle(order)
    return [[*document, *tokens(_QUESTION_TOKENS)] for document in order]


def ask(url: str, prompt: list[int]) -> Answer:
    """Have a server answer a prompt.

    Raises:
        requests.RequestException: it does not.
    """
    body = {
        "input_ids": prompt,
        "sampling_params": {"temperature": 0, "max_new_tokens": _ANSWER_TOKENS, "ignore_eos": True},
        "return_logprob": True,
        "stream": True,
    }
    started = time.perf_counter()
    first, last = None, None
    with requests.post(f"{url}/generate", json=body, stream=True, timeout=_TIMEOUT_SECONDS) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if not line.startswith(b"data:") or line.endswith(b"[DONE]"):
                continue
            first = first or time.perf_counter() - started
            last = json.loads(line.removeprefix(b"data:"))
    if first is None or last is None:
        raise requests.RequestException(f"{url} answered with no token")
    about = last["meta_info"]
    pairs = about["output_token_logprobs"]
    return Answer(
        prompt_tokens=about["prompt_tokens"],
        cached_tokens=about["cached_tokens"],
        seconds=first,
        ids=[each[1] for each in pairs],
        logprobs=[each[0] for each in pairs],
    )


def run(url: str, prompts: list[list[int]]) -> dict[str, list[Answer]]:
    """Return the answers as the prompts come, and each in an empty cache."""
    answers: dict[str, list[Answer]] = {"warm": [], "cold": []}
    ask(url, prompts[0])
    for way, found in answers.items():
        _flush(url)
        for number, prompt in enumerate(prompts):
            if way == "cold":
                _flush(url)
            found.append(ask(url, prompt))
            print(f"{way} {number + 1}/{len(prompts)}", end="\r", flush=True)
    return answers


def compare(stock: dict[str, list[Answer]], planned: dict[str, list[Answer]]) -> list[Row]:
    """Return what is reused and how soon, and which answers a hit changes, of SGLang and with Milepost."""
    reused, seconds = ([_of(each) for each in (stock, planned)] for _of in (_reused, _seconds))
    rows = [
        Row(
            name="tokens that are found, with Milepost / SGLang as it is",
            measured=f"{reused[1]:.1%}; {reused[0]:.1%}",
            target=">= as many",
            reached=reused[1] >= reused[0],
            numbers={"planned": reused[1], "stock": reused[0]},
        ),
        Row(
            name="seconds to the first token, median, with Milepost / SGLang as it is",
            measured=f"{seconds[1]:.3f}; {seconds[0]:.3f}",
            target="<= as long",
            reached=seconds[1] <= seconds[0],
            numbers={"planned": seconds[1], "stock": seconds[0]},
        ),
    ]
    for name, answers in (("SGLang as it is", stock), ("with Milepost", planned)):
        hits = [
            (warm, cold)
            for warm, cold in zip(answers["warm"], answers["cold"], strict=True)
            if warm.cached_tokens > cold.cached_tokens
        ]
        others = sum(warm.ids != cold.ids for warm, cold in hits)
        furthest = max(
            (
                abs(a - b)
                for warm, cold in hits
                for a, b in zip(warm.logprobs[:1], cold.logprobs[:1], strict=True)
            ),
            default=0.0,
        )
        rows.append(
            Row(
                name=f"answers of hits that differ from the cold ones, {name}",
                measured=f"{others} of {len(hits)}; first token's log-probability by {furthest:.2g} at most",
                target="reported",
                reached=True,
                numbers={"others": others, "hits": len(hits), "furthest": furthest},
            )
        )
    return rows


def _reused(answers: dict[str, list[Answer]]) -> float:
    warm = answers["warm"]
    return sum(each.cached_tokens for each in warm) / sum(each.prompt_tokens for each in warm)


def _seconds(answers: dict[str, list[Answer]]) -> float:
    return statistics.median(each.seconds for each in answers["warm"])


def _flush(url: str) -> None:
    requests.post(f"{url}/flush_cache", timeout=_TIMEOUT_SECONDS).raise_for_status()


def _read(path: Path) -> dict[str, list[Answer]]:
    return {way: [Answer(**each) for each in found] for way, found in json.loads(path.read_text()).items()}


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="ask one server")
    one.add_argument("url")
    one.add_argument("--output", type=Path, required=True)
    both = commands.add_parser("compare", help="compare what two servers said")
    both.add_argument("stock", type=Path)
    both.add_argument("planned", type=Path)
    both.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    arguments = parser.parse_args()
    if arguments.command == "run":
        answers = run(arguments.url.rstrip("/"), questions())
        arguments.output.write_text(
            json.dumps({way: [asdict(each) for each in found] for way, found in answers.items()})
        )
    else:
        print_rows(compare(_read(arguments.stock), _read(arguments.planned)), as_json=arguments.json)


if __name__ == "__main__":
    main()
