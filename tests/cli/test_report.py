"""``milepost report``: what it writes, what it refuses, and that it writes the same bytes again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import milepost
from milepost.cli.program import main

ARGUMENTS = ["report", "synthetic:documents,requests=30,seed=2", "--policy", "learned"]
ARGUMENTS += ["--capacity-kv-tokens", "20k", "--capacity-kv-tokens", "50k", "--checkpoint-kv-tokens", "1536"]
ARGUMENTS += [
    "--prefill-seconds",
    "512=0.02",
    "--prefill-seconds",
    "4096=0.15",
    "--prefill-seconds",
    "16384=0.7",
]


def run(*arguments, monkeypatch, capsys) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["milepost", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code or 0, " ".join(capsys.readouterr().err.split())


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_command_writes_the_same_bytes_in_another_process(tmp_path, monkeypatch, capsys):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    monkeypatch.chdir(here)
    code, said = run(*ARGUMENTS, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0
    assert "report/index.html" in said
    environment = os.environ | {
        "PYTHONPATH": str(Path(milepost.__file__).parents[1]),
        "PYTHONHASHSEED": "7",
        "OMP_NUM_THREADS": "1",
    }
    program = "from milepost.cli.program import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *ARGUMENTS],
        cwd=there,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ours, theirs = bytes_of(here / "report"), bytes_of(there / "report")
    assert len(ours) == 11
    assert ours == theirs
    page = ours["index.html"].decode()
    assert (
        "milepost report synthetic:documents,requests=30,seed=2 --policy learned --capacity-kv-tokens 20k"
        in page
    )
    assert "--prefill-seconds 512=0.02" in page
    assert " ms" in page


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--prefill-seconds", "fast"], 2, "TOKENS=SECONDS, as"),
        (["--prefill-seconds", "512=0.1.2"], 2, "TOKENS=SECONDS, as"),
        (["--prefill-seconds", "512=0.1"], 1, "three different lengths"),
        (["--policy", "learnd"], 1, "did you mean"),
        (["--capacity-kv-tokens", "5"], 1, "give at least"),
    ],
)
def test_what_is_wrong_is_refused_in_words(arguments, code, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    base = ["report", "synthetic:chat,requests=5", "--checkpoint-kv-tokens", "1536"]
    if "--capacity-kv-tokens" not in arguments:
        base += ["--capacity-kv-tokens", "20k"]
    refused, said = run(*base, *arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert refused == code
    assert says in said
    assert not (tmp_path / "report" / "index.html").exists()


def test_an_output_that_cannot_be_written_is_found_before_the_work(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr("milepost.report.study.simulate_all", lambda *_, **__: pytest.fail("the work began"))
    code, said = run(*ARGUMENTS, "--output", tmp_path / "file", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 1
    assert "give another --output" in said


def test_a_missing_library_is_named_with_its_remedy(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("milepost.extras.find_spec", lambda name: None)
    code, said = run(*ARGUMENTS, "--output", tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 1
    assert "milepost[report]" in said


def test_measured_runs_are_drawn_without_a_policy(tmp_path, monkeypatch, capsys):
    path, output = tmp_path / "frontier.json", tmp_path / "report"
    runs = [
        {
            "policy": "learned",
            "capacity_bytes": 1_000_000,
            "off_ratios": [0.5],
            "saved_fraction": 0.5,
            "checkpoints_per_entry": 1.0,
        }
    ]
    workload = {"name": "quality", "title": "Questions", "runs": runs}
    path.write_text(json.dumps({"format": "milepost frontier 1", "model": "m", "workloads": [workload]}))

    status, said = run("report", path, "--output", output, "--json", monkeypatch=monkeypatch, capsys=capsys)
    assert (status, said) == (0, "Wrote 4 figure files.")
    assert len(list((output / "figures").iterdir())) == 4

    status, said = run(
        "report", path, "synthetic:chat", "--output", output, monkeypatch=monkeypatch, capsys=capsys
    )
    assert status == 2
    assert "draw them apart" in said
