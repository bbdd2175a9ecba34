#!/usr/bin/env bash
# rwkv 0.8.32, torch 2.13.0 (CPU with AVX-512), one thread. Seen in November 2026.
#
# A prompt of 200 tokens is computed at once, or up to a cut and on from the state. In fp32, RWKV-7's last logits
# are the same to the last bit wherever it is cut, for a model that is 128 wide, and for one of 768. At 1,024
# they differ for every cut tried.
#
# Why it surprises: small random models are what resuming is tested with, and they prove nothing here. Which
# matrix kernel is chosen hangs on the width and on the number of rows.
#
# Seen (cuts at 10, 33, 64, 100, 150, 190; = is bit for bit):
#   width  128: ======
#   width  768: ======
#   width 1024: xxxxxx
#
# Exits 1 if 128 or 768 is not exact everywhere, or 1,024 is.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy rwkv==0.8.32
cd "$work"
RWKV_V7_ON=1 RWKV_JIT_ON=0 RWKV_CUDA_ON=0 venv/bin/python - <<'PYTHON'
import contextlib
import io
import sys

import torch

torch.set_num_threads(1)
with contextlib.redirect_stdout(io.StringIO()):
    from rwkv.model import RWKV

CUTS = (10, 33, 64, 100, 150, 190)


def weights(width, *, layers=2, vocabulary=256, rank=32, head=64):
    torch.manual_seed(0)

    def drawn(*shape):
        return torch.randn(*shape) * shape[-1] ** -0.5

    found = {"emb.weight": torch.randn(vocabulary, width), "head.weight": drawn(vocabulary, width)}
    norms = ["blocks.0.ln0", "ln_out"]
    for layer in range(layers):
        block, att, ffn = f"blocks.{layer}.", f"blocks.{layer}.att.", f"blocks.{layer}.ffn."
        norms += [block + "ln1", block + "ln2", att + "ln_x"]
        found |= {att + "x_" + name: torch.rand(1, 1, width) for name in "rwkvag"}
        for name in "wav":
            found[att + name + "0"] = drawn(1, 1, width)
        for name in "wavg":
            found[att + name + "1"], found[att + name + "2"] = drawn(width, rank), drawn(rank, width)
        found |= {att + "k_k": torch.rand(1, 1, width), att + "k_a": torch.rand(1, 1, width)}
        found[att + "r_k"] = drawn(width // head, head)
        for name in ("receptance", "key", "value", "output"):
            found[att + name + ".weight"] = drawn(width, width)
        found[ffn + "x_k"] = torch.rand(1, 1, width)
        found[ffn + "key.weight"], found[ffn + "value.weight"] = drawn(4 * width, width), drawn(width, 4 * width)
    for norm in norms:
        found[norm + ".weight"], found[norm + ".bias"] = torch.ones(width), torch.zeros(width)
    return found


def exact_at(width):
    """Return, for each cut, whether going on from the state gives the same bits."""
    torch.save(weights(width), "model.pth")
    with contextlib.redirect_stdout(io.StringIO()):
        model = RWKV(model="model", strategy="cpu fp32")
    tokens = [(7 * i * i + 3 * i) % 256 for i in range(200)]
    whole, _ = model.forward(tokens, None)
    found = []
    for cut in CUTS:
        _, state = model.forward(tokens[:cut], None)
        found.append(torch.equal(whole, model.forward(tokens[cut:], state)[0]))
    return found


seen = {width: exact_at(width) for width in (128, 768, 1024)}
for width, found in seen.items():
    print(f"width {width:4}: " + "".join("=" if same else "x" for same in found))
as_seen = all(seen[128]) and all(seen[768]) and not all(seen[1024])
sys.exit(0 if as_seen else "the behaviour has changed")
PYTHON
