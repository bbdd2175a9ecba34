"""Hits inside vLLM where stock vLLM gets none: one argument, and nothing else changes.

    python examples/inside_vllm.py MODEL

MODEL is a hybrid or recurrent model that vLLM serves (Qwen3.5, Nemotron-H, LFM2, Mamba-2 ...). Three
prompts share a beginning of one and a half blocks and a bit. You will see how many of their tokens came from
the cache: nothing for the first, a whole block or more for the others.
"""

import sys

from vllm import LLM, SamplingParams


def main(model: str, **arguments: object) -> list[int]:
    """Ask three questions that begin alike; return how many tokens of each came from the cache."""
    llm = LLM(model=model, scheduler_cls="milepost.vllm.Scheduler", enable_prefix_caching=True, **arguments)
    block = llm.llm_engine.vllm_config.cache_config.block_size
    beginning = [11 + number % 97 for number in range(block * 3 // 2 + 8)]
    cached = []
    for question in (101, 102, 103):
        prompt = {"prompt_token_ids": beginning + [question] * 24}
        (output,) = llm.generate(prompt, SamplingParams(max_tokens=1, temperature=0), use_tqdm=False)
        cached.append(output.num_cached_tokens)
        print(f"question {question}: {cached[-1]} of {len(prompt['prompt_token_ids'])} tokens cached")
    return cached


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/inside_vllm.py MODEL")
    main(sys.argv[1])
