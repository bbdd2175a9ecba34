"""The Python files of a newer vLLM, in a folder to be put ahead of this environment's vLLM on the path.

    python newer_vllm.py --above 0.32.0     print the newer releases that the index has, oldest first
    python newer_vllm.py 0.33.0 FOLDER      download one, and unpack what is no compiled code

Such a vLLM imports beside a CPU torch and schedules as it does anywhere; what calls a kernel cannot run.
Without a version that ends in ``+cpu`` it would find no platform.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

UNPACKED = (".py", ".json", ".jinja", ".txt")
METADATA = "Metadata-Version: 2.1\nName: vllm\nVersion: {}+cpu\n"
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def releases_above(version: str) -> list[str]:
    listed = subprocess.run(
        [*PIP, "index", "versions", "vllm"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    found = re.search(r"^Available versions: (.*)$", listed, re.MULTILINE)
    if found is None:
        sys.exit(f"pip names no versions of vllm: {listed!r}")
    newer = [each for each in found[1].split(", ") if _numbers(each) > _numbers(version)]
    return sorted(newer, key=_numbers)


def unpack(version: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as downloads:
        options = ("--quiet", "--no-deps", "--no-cache-dir", "--only-binary", ":all:", "--dest", downloads)
        subprocess.run([*PIP, "download", *options, f"vllm=={version}"], check=True)
        (wheel,) = Path(downloads).glob("*.whl")
        with ZipFile(wheel) as archive:
            names = [each for each in archive.namelist() if each.startswith("vllm/")]
            archive.extractall(folder, [each for each in names if each.endswith(UNPACKED)])
    described = folder / f"vllm-{version}+cpu.dist-info"
    described.mkdir(exist_ok=True)
    (described / "METADATA").write_text(METADATA.format(version))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("version", nargs="?")
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--above", metavar="VERSION")
    given = parser.parse_args()
    if given.above:
        print(*releases_above(given.above))
    elif given.folder:
        unpack(given.version, given.folder)
    else:
        parser.error("give a version and a folder, or --above")
