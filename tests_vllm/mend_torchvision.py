"""Make the torchvision of this environment importable beside a CPU torch, for the test environment alone.

vLLM's Qwen3.5 imports torchvision to look at pictures, also where the model is text. An index that has no CPU
build gives the CUDA one. Its compiled operators do not load, and then one file fails on import because it
describes two of them all the same. Nothing here calls them, so the descriptions are guarded. A torchvision
that can be imported is left alone.
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

DESCRIPTION = '@torch.library.register_fake("torchvision::{}")\n'
GUARDED = (
    '@(torch.library.register_fake("torchvision::{}") if torchvision.extension._has_ops() else lambda f: f)\n'
)
OPERATORS = ("nms", "qnms")
COMPILED = ("_C.so", "image.so")


def is_importable() -> bool:
    program = "import torchvision, torchvision.transforms.v2"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


def mend(folder: Path) -> None:
    path = folder / "_meta_registrations.py"
    text = path.read_text()
    for operator in OPERATORS:
        text = text.replace(DESCRIPTION.format(operator), GUARDED.format(operator))
    path.write_text(text)
    for name in COMPILED:
        (folder / name).unlink(missing_ok=True)


if __name__ == "__main__":
    if not is_importable():
        spec = find_spec("torchvision")
        if spec is not None:
            mend(Path(spec.submodule_search_locations[0]))
        sys.exit(not is_importable())
