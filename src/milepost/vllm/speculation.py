"""Which ways of drafting tokens can be planned for.

The caches of a drafter that reads a layer of the model (EAGLE, MTP) hang on the token after a block as well.
So that no request reads what was drafted for another token, a lookup either matches one block more than it
returns (the *drop*), or the hash of a block covers the tokens after it too (*lookahead hashes*, since vLLM
0.33). Checkpoints are planned where a lookup ends with the last block that it matches.
"""

from typing import Any

__all__ = ["unsupported_drafts"]


def unsupported_drafts(vllm_config: Any) -> str | None:
    """Return why checkpoints cannot be planned with these drafts; None where they can, or there are none."""
    speculative = vllm_config.speculative_config
    if speculative is None:
        return None
    if _drops_last_block(vllm_config):
        return (
            f"with speculative method {speculative.method!r} this vLLM reuses a prefix only where one more "
            "block of it is cached, so checkpoints would be missed; run vLLM 0.33 or newer without a KV "
            "connector and without disable_lookahead_block_hashes, or set disable_eagle_block_drop in the "
            "speculative configuration"
        )
    cache = vllm_config.cache_config
    hash_tokens = cache.prefix_match_unit or cache.block_size
    if speculative.num_speculative_tokens >= hash_tokens:
        return (
            f"num_speculative_tokens={speculative.num_speculative_tokens} is no less than the {hash_tokens} "
            "tokens of a block hash, so one step may pass two block boundaries; give fewer drafts"
        )
    return None


def _drops_last_block(vllm_config: Any) -> bool:
    if getattr(vllm_config, "num_hash_lookahead_tokens", 0):
        return False
    speculative = vllm_config.speculative_config
    # vLLM 0.30 could not be told not to.
    drops = getattr(speculative, "use_eagle_block_drop", speculative.use_eagle)
    return bool(drops())
