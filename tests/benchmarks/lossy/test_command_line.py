"""What the command line asks for and nothing measures is an error, and no empty success."""

import pytest
from benchmarks.lossy.__main__ import main


def test_a_part_that_is_not_measured_on_the_model_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["lossy", "--part", "bytes", "--family", "qwen3_5"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "measured on the embedded model alone" in capsys.readouterr().err
