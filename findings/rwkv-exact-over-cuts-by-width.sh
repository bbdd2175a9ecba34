#!/usr/bin/env bash
# rwkv 0.8.32, torch 2.13.0 (CPU with AVX-512), one thread. Seen in November 2026.
#
# A prompt of 200 tokens is computed at once, or up to a cut and on from the state. RWKV-7's last logits are
# the same to the last bit wherever it is cut, in fp32 and in bf16, for a model that is 128 wide. At 1,024 they
# differ in fp32 for every cut tried. At 768, fp32 is exact at every cut, and bf16 at those where 100 tokens or
# more are left, and not where 50 or 10 are.
#
# Why it surprises: small random models are what resuming is tested with, and they prove nothing here. Which
# matrix kernel is chosen hangs on width, type and the number of rows that are left.
#
# Seen (cuts at 10, 33, 64, 100, 150, 190; = is bit for bit):
#   width  128 fp32: ======   bf16: ======
#   width  768 fp32: ======   bf16: ====xx
#   width 1024 fp32: xxxxxx   bf16: =xxxxx
#
# Exits 1 if 128 is not exact everywhere, or 1,024 is.
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


def exact_at(width, kind):
    """Return, for each cut, whether going on from the state gives the same bits."""
    torch.save(weights(width), "model.pth")
    with contextlib.redirect_stdout(io.StringIO()):
        model = RWKV(model="model", strategy=f"cpu {kind}")
    tokens = [(7 * i * i + 3 * i) % 256 for i in range(200)]
    whole, _ = model.forward(tokens, None)
    found = []
    for cut in CUTS:
        _, state = model.forward(tokens[:cut], None)
        found.append(torch.equal(whole, model.forward(tokens[cut:], state)[0]))
    return found


seen = {(width, kind): exact_at(width, kind) for width in (128, 768, 1024) for kind in ("fp32", "bf16")}
for width in (128, 768, 1024):
    marks = {kind: "".join("=" if same else "x" for same in seen[width, kind]) for kind in ("fp32", "bf16")}
    print(f"width {width:4} fp32: {marks['fp32']}   bf16: {marks['bf16']}")
narrow = all(seen[128, "fp32"] + seen[128, "bf16"])
wide = all(seen[1024, "fp32"] + seen[1024, "bf16"])
sys.exit(0 if narrow and not wide else "the behaviour has changed")
PYTHON
