"""Files that are there whole or not at all."""

import pytest

from milepost.whole_file import written_whole


def write_half(path, reason):
    with written_whole(path) as unfinished:
        unfinished.write_text("half")
        raise reason


def test_a_file_takes_its_place_when_all_is_written(tmp_path):
    path = tmp_path / "numbers.json.zst"
    with written_whole(path) as unfinished:
        unfinished.write_text("new")
        assert unfinished.suffix == ".zst"
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("reason", [OSError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path, reason):
    path = tmp_path / "numbers.json"
    path.write_text("old")
    with pytest.raises(reason):
        write_half(path, reason)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_where_nothing_was_written_what_was_there_stays(tmp_path):
    path = tmp_path / "numbers.json"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), written_whole(path):
        pass
    assert path.read_text() == "old"
