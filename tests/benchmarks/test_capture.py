"""The table names as many states as were captured."""

import pytest

from benchmarks import capture


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tokens", "8191", "--states", "32"], "32 states take at least 8,192"),
        (["--tokens", "31", "--states", "32", "--part", "driver"], "32 states take at least 32"),
        (["--states", "0"], "--states=0; give at least 1"),
        (["--turns", "0"], "--turns=0; give at least 1"),
    ],
)
def test_states_that_do_not_fit_are_refused(arguments, said, monkeypatch, capsys):
    monkeypatch.setattr(capture, "measure", lambda **_: pytest.fail("measured"))
    monkeypatch.setattr("sys.argv", ["capture", *arguments])
    with pytest.raises(SystemExit) as stopped:
        capture.main()
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--tokens", "8192", "--states", "32"]])
def test_as_many_as_fit_are_measured(arguments, monkeypatch, capsys):
    given = {}
    monkeypatch.setattr(capture, "measure", lambda **options: given.update(options) or [])
    monkeypatch.setattr("sys.argv", ["capture", *arguments])
    capture.main()
    assert given["num_tokens"] == given["num_states"] * 256
