"""Milepost inside SGLang: checkpoints at planned positions, with one flag and no fork.

    python -m sglang.launch_server --model-path MODEL --radix-cache-backend milepost

SGLang's radix tree is the memory and its match the only truth about hits. What Milepost adds is the choice:
which state each prefill chunk leaves (:mod:`~milepost.sglang.hooks`), and which goes when a slot is needed
(:mod:`~milepost.sglang.planned_cache`). All of it is decided by one
:class:`~milepost.hosted_cache.HostedCache` over hashes of the prompts
(:mod:`~milepost.sglang.checkpoint_manager`), the same object that serves transformers, vLLM and the
simulator.

Only :mod:`~milepost.sglang.backend`, :mod:`~milepost.sglang.planned_cache`, :mod:`~milepost.sglang.hooks`,
:mod:`~milepost.sglang.ranks`, :mod:`~milepost.sglang.compatibility` and :mod:`~milepost.sglang.plugin` import
SGLang, and nothing does before it is asked for.
"""
