#!/usr/bin/env bash
# torch 2.13.0, on a CPU. Seen in November 2026.
#
# Every tensor has a version counter that in-place changes raise; it is how autograd, and whoever caches something
# computed from weights, knows that they are others by now. SGD, AdamW and Adagrad with fused=True change the weights
# and leave the counters as they are; the same optimizers with foreach=True raise them.
#
# Why it surprises: fused and foreach are two speeds of one step. A cache that trusts the counters is stale after the
# one and not after the other; only a hook on the optimizer's step, or comparing values, sees it.
#
# Seen (steps of the counter): SGD foreach 1, fused 0; AdamW foreach 2, fused 0; Adagrad foreach 1, fused 0. The
# weights changed in all six.
#
# Exits 1 if the behaviour is another.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PYTHON'
import sys

import torch

torch.manual_seed(0)
moved = {}
for kind, options in (("SGD", {"lr": 0.1}), ("AdamW", {"lr": 0.1}), ("Adagrad", {"lr": 0.1})):
    for way in ("foreach", "fused"):
        weight = torch.nn.Parameter(torch.randn(8, 8))
        optimizer = getattr(torch.optim, kind)([weight], **options, **{way: True})
        (weight.sum() ** 2).backward()
        before, version = weight.detach().clone(), weight._version
        optimizer.step()
        moved[kind, way] = weight._version - version
        changed = not torch.equal(before, weight.detach())
        print(f"{kind:8s}{way:8s} weights changed: {changed}; version counter moved by {weight._version - version}")
        if not changed:
            sys.exit("no step was made")
expected = all((steps > 0) == (way == "foreach") for (_, way), steps in moved.items())
sys.exit(0 if expected else "the behaviour has changed")
PYTHON
