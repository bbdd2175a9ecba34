#!/usr/bin/env bash
# mlx-lm 0.32.2 with mlx 0.32.4 and mlx-cpu 0.32.4 (Linux, CPU). Seen in November 2026.
#
# After a prompt, the cache of a Mamba-2 model says by `nbytes` that it holds 75 kB. It keeps 6.4 MB alive: the
# convolution state is a slice of the activations of the whole last chunk, and a slice holds the buffer that it
# was cut from. Copies of the very same arrays take the 75 kB. The longer the chunk, the larger the factor,
# though the state has one size.
#
# Why it surprises: whoever budgets a pool of such caches by `nbytes` takes a hundred times the memory.
#
# Seen:
#   prompt of 256: reported 74,752 bytes, kept alive 861,192
#   prompt of 2048: reported 74,752 bytes, kept alive 6,366,216
#   copies of its arrays: 74,752
#
# Exits 1 if the behaviour is another.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check mlx-lm==0.32.2 mlx==0.32.4 mlx-cpu==0.32.4
"$work/venv/bin/python" - <<'PYTHON'
import sys

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models import mamba2
from mlx_lm.models.cache import make_prompt_cache

arguments = mamba2.ModelArgs(
    model_type="mamba2", num_heads=8, head_dim=16, vocab_size=256, hidden_size=64, intermediate_size=128,
    state_size=32, num_hidden_layers=4, layer_norm_epsilon=1e-5, conv_kernel=4, n_groups=1, use_bias=False,
    use_conv_bias=True, tie_word_embeddings=False, time_step_limit=(0.0, 1e9), time_step_rank="auto",
)
model = mamba2.Model(arguments)
mx.eval(model.parameters())


def arrays(cache):
    return [leaf for _, leaf in tree_flatten([layer.state for layer in cache]) if isinstance(leaf, mx.array)]


def cache_after(num_tokens):
    """Return the cache of a prompt, what it reports, and what it keeps alive."""
    mx.clear_cache()
    before = mx.get_active_memory()
    cache = make_prompt_cache(model)
    logits = model(mx.array([[7 * i % 256 for i in range(num_tokens)]]), cache=cache)
    mx.eval(logits, arrays(cache))
    del logits
    mx.clear_cache()
    return cache, sum(layer.nbytes for layer in cache), mx.get_active_memory() - before


short, short_reported, short_kept = cache_after(256)
print(f"prompt of 256: reported {short_reported:,} bytes, kept alive {short_kept:,}")
del short
cache, reported, kept = cache_after(2048)
print(f"prompt of 2048: reported {reported:,} bytes, kept alive {kept:,}")
before = mx.get_active_memory()
copies = [mx.contiguous(each + 0) for each in arrays(cache)]
mx.eval(copies)
copied = mx.get_active_memory() - before
print(f"copies of its arrays: {copied:,}")
as_seen = reported == short_reported and kept > 20 * reported and kept > 4 * short_kept
sys.exit(0 if as_seen and copied < 1.1 * reported else "the behaviour has changed")
PYTHON
