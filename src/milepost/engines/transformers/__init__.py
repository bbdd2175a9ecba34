"""The transformers engine: any causal language model, resumed from exact states.

prompt ── driver ─── prefill ─── generation ─── scheduler ─── engine
          snapshot   (segments,  (one request,  (requests     (the front door)
          families    captures)   step by step)  take turns)
          probe
"""

from milepost.extras import require_extra

require_extra("transformers", "torch", "transformers", "safetensors", purpose="the transformers engine")
