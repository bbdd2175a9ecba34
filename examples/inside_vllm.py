"""Milepost inside vLLM: one argument more, and nothing else changes.

    python examples/inside_vllm.py MODEL

MODEL is a hybrid or recurrent model that vLLM serves (Qwen3.5, Nemotron-H, LFM2, Mamba-2 ...). Eight
questions follow one system prompt, which is shorter than a block of vLLM's. You will see how many tokens of
each question came from the cache: none of the first, and most of every other.
"""

import sys

from vllm import LLM, SamplingParams


def main(model: str, **arguments: object) -> list[int]:
    """Ask eight questions that begin alike; return how many tokens of each came from the cache."""
    engine = LLM(
        model=model,
        enable_prefix_caching=True,
        scheduler_cls="milepost.vllm.Scheduler",
        # States may sit at multiples of 64 tokens, not only at the ends of blocks. vLLM makes its blocks
        # larger than asked for, until the KV in one outweighs a state; they must be multiples of the unit.
        block_size=64,
        prefix_match_unit=64,
        **arguments,
    )
    block = engine.llm_engine.vllm_config.cache_config.block_size
    system_prompt = [11 + number % 97 for number in range(block * 3 // 4)]
    cached = []
    for number in range(8):
        tokens = system_prompt + [120 + number] * 24
        (answer,) = engine.generate(
            {"prompt_token_ids": tokens}, SamplingParams(max_tokens=1, temperature=0), use_tqdm=False
        )
        cached.append(answer.num_cached_tokens)
        print(f"question {number + 1}: {cached[-1]} of {len(tokens)} tokens cached")
    return cached


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/inside_vllm.py MODEL")
    main(sys.argv[1])
