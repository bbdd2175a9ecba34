"""The transformers engine: any causal language model, resumed from exact states.

opening ── driver, snapshot, families    runs the model, takes its state, puts it back
           probe, footprint              proves that on the model at hand, and what it costs
           admission, watch              which model it is by now
"""

from milepost.extras import require_extra

require_extra("transformers", "torch", "transformers", "safetensors", purpose="the transformers engine")
