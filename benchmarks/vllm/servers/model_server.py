"""vLLM's own engine in this process, with a model."""

from typing import Any

from benchmarks.vllm.servers.serving import Progress
from benchmarks.vllm.traffic.asks import TokenArray

__all__ = ["ModelServer"]


class ModelServer:
    """A ``Server`` around ``vllm.LLM``; greedy, and nothing is detokenized.

    Args:
        engine_arguments: Those of ``vllm.LLM``.
    """

    def __init__(self, engine_arguments: dict[str, Any]) -> None:
        from vllm import LLM

        self._engine = LLM(**engine_arguments).llm_engine
        # Only there without a process of its own for the engine.
        self.scheduler = self._engine.engine_core.engine_core.scheduler

    def forget(self) -> None:
        """Empty the cache."""
        if not self._engine.reset_prefix_cache():
            raise RuntimeError("vLLM did not empty its cache")

    def submit(self, index: int, prompt: TokenArray, *, answer_tokens: int) -> None:
        """Take request ``index``."""
        from vllm.sampling_params import SamplingParams

        self._engine.add_request(
            str(index),
            {"prompt_token_ids": prompt.tolist()},
            SamplingParams(temperature=0.0, max_tokens=answer_tokens, ignore_eos=True, detokenize=False),
        )

    def step(self) -> list[Progress]:
        """Run vLLM for one step."""
        return [
            Progress(
                index=int(output.request_id),
                answer=list(output.outputs[0].token_ids),
                cached_tokens=output.num_cached_tokens or 0,
                finished=output.finished,
            )
            for output in self._engine.step()
        ]
