"""Check that the archives in a folder hold what they must, and nothing else: ``check_dist.py FOLDER``."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path


def main(folder: Path) -> None:
    (wheel,) = folder.glob("*.whl")
    (archive,) = folder.glob("*.tar.gz")
    tracked = subprocess.run(
        ["git", "ls-files", "src"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    wanted = {path.removeprefix("src/") for path in tracked}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    if packed != wanted:
        sys.exit(f"{wheel.name}: lacks {sorted(wanted - packed)}, holds {sorted(packed - wanted)} besides")
    with tarfile.open(archive) as opened:
        held = {name.partition("/")[2] for name in opened.getnames()}
    if missing := {"README.md", "LICENSE", "CITATION.cff", "pyproject.toml", *tracked} - held:
        sys.exit(f"{archive.name}: lacks {sorted(missing)}")
    if strange := [
        name for name in held if name.startswith((".venv", "dist", "report")) or "__pycache__" in name
    ]:
        sys.exit(f"{archive.name}: holds {sorted(strange)}")
    print(f"{wheel.name}: {len(packed)} files, {archive.name}: {len(held)} files")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
