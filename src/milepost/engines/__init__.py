"""What runs models: requests in, tokens out, and one prefix cache under every engine.

opening ── engine ── scheduler ── generation ── prefill ── recall ── the prefix cache
           requests   sharing      answer        audit      payloads
─────────────────────────────────  base  ─────────────────────────────────────────────
transformers: any causal language model of that library          llamacpp: GGUF files

Above the line everything is written once. Below it an engine runs a model, takes states out of it and puts
them back, and says where a prompt may be cut (:mod:`milepost.engines.base`).
"""

from milepost.extras import require_extra

# Sampling is that of transformers, whichever engine gives the logits.
require_extra("transformers", "torch", "transformers", purpose="an engine")
