"""How many prompt tokens are evaluated: the engine against ``llama_cpp.Llama`` on the same prompts."""

from pathlib import Path
from typing import Any

from benchmarks.llamacpp.traffic import TRAFFIC, Prompt
from benchmarks.printing import Row
from milepost.engines.engine import Engine

__all__ = ["measure_evaluated"]

_ANSWER_TOKENS = 8
_TARGETS = {"document questions": 0.15, "regenerated and edited turns": 0.15, "ten-turn chat": 1.0}


def measure_evaluated(path: Path, name: str, *, numerics: str = "fast") -> list[Row]:
    """Return a row for each kind of traffic, on the model at ``path``."""
    rows = []
    for kind, traffic in TRAFFIC.items():
        ours, theirs = _EngineClient(path, numerics=numerics), _LlamaClient(path)
        for client in (ours, theirs):
            for _ in traffic(client.answer):
                pass
        ratio = ours.num_evaluated / theirs.num_evaluated
        target = _TARGETS[kind]
        rows.append(
            Row(
                name=f"llama.cpp {numerics}: prompt tokens evaluated / Llama's, {kind} ({name})",
                measured=f"{ratio:.3f} ({ours.num_evaluated:,} / {theirs.num_evaluated:,})",
                target=f"<= {target:g}",
                reached=ratio <= target,
                numbers={"ratio": ratio, "ours": ours.num_evaluated, "theirs": theirs.num_evaluated},
            )
        )
    return rows


class _EngineClient:
    def __init__(self, path: Path, *, numerics: str) -> None:
        self.engine = Engine.open(path, capacity="512MiB", numerics=numerics)
        self.num_evaluated = 0

    def answer(self, prompt: Prompt) -> Prompt:
        done = self.engine.generate(
            prompt, max_new_tokens=_ANSWER_TOKENS, temperature=0, ignore_end_token=True
        )
        self.num_evaluated += done.report.num_tokens - done.report.reused
        return list(done.tokens)


class _LlamaClient:
    def __init__(self, path: Path) -> None:
        import llama_cpp

        self.llama: Any = llama_cpp.Llama(
            str(path), n_ctx=4_096, n_threads=1, n_threads_batch=1, verbose=False
        )
        self.num_evaluated = 0

    def answer(self, prompt: Prompt) -> Prompt:
        count = 0
        evaluate = self.llama.eval

        def counted(tokens: Any) -> None:
            nonlocal count
            count += len(tokens)
            evaluate(tokens)

        self.llama.eval = counted
        try:
            tokens = self.llama.generate(prompt, temp=0.0, reset=True)
            answer = [next(tokens) for _ in range(_ANSWER_TOKENS)]
            tokens.close()
        finally:
            del self.llama.eval
        # All but the first token of the answer were evaluated one at a time.
        self.num_evaluated += count - (_ANSWER_TOKENS - 1)
        return answer
