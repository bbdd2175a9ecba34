"""What a checkpoint, a token of KV and a recomputed token cost, from a model's configuration alone.

>>> from milepost.footprint import Footprint
>>> config = {"model_type": "qwen3", "dtype": "bfloat16", "hidden_size": 1024, "num_hidden_layers": 28,
...           "num_attention_heads": 16, "num_key_value_heads": 8, "intermediate_size": 3072}
>>> Footprint.from_config(config).kv_bytes_per_token
114688
"""

from milepost.footprint.calibration import calibrate, fit_seconds
from milepost.footprint.cost import PrefillCost, WindowedAttention
from milepost.footprint.families import known_model_types
from milepost.footprint.footprint import Footprint, KVWindow, MeasuredBytes

__all__ = [
    "Footprint",
    "KVWindow",
    "MeasuredBytes",
    "PrefillCost",
    "WindowedAttention",
    "calibrate",
    "fit_seconds",
    "known_model_types",
]
