"""Check the archives in a folder: ``check_dist.py FOLDER``.

They hold what they must and nothing else; and the wheel alone, installed where nothing else is, is a cache
that replays, with a command that says which extra it lacks.
"""

import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

BARE = """
import sys, milepost
trace = milepost.open_trace("synthetic:chat,requests=5,seed=1")
result = milepost.simulate(trace, policy="tail", capacity_kv_tokens=10_000, checkpoint_kv_tokens=500)
assert result.num_requests == 5, result
assert not {"torch", "typer", "rich"} & set(sys.modules), sorted(sys.modules)
"""


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
    _use_alone(wheel)
    print(f"{wheel.name}: {len(packed)} files, {archive.name}: {len(held)} files")


def _use_alone(wheel: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        scripts = Path(folder) / "bin"
        install = [
            scripts / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            wheel,
        ]
        subprocess.run(install, check=True)
        subprocess.run([scripts / "python", "-c", BARE], check=True, cwd=folder)
        refused = subprocess.run(
            [scripts / "milepost", "--help"], check=False, cwd=folder, capture_output=True, text=True
        )
        if refused.returncode != 1 or "pip install 'milepost[cli]'" not in refused.stderr:
            sys.exit(
                f"{wheel.name}: milepost without its extra ends with {refused.returncode}: {refused.stderr}"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
