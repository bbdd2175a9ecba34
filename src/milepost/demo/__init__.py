"""The main job on real documents: the same questions under several placement policies, side by side."""

from milepost.extras import require_extra

require_extra("transformers", "torch", "transformers", "safetensors", purpose="a model")
