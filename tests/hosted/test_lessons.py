"""What is learned inside an engine is kept in a file, by one of several that learn the same."""

import pytest

from milepost.errors import ConfigurationError
from milepost.hosted.lessons import KeptLessons
from milepost.policies import parse_policy


def test_a_new_policy_starts_from_what_was_saved(tmp_path):
    path = tmp_path / "folder" / "lessons"
    first = parse_policy("learned")
    lessons = KeptLessons(first, path)
    assert lessons.loaded_from is None
    first.lessons.price = 7.0
    lessons.save()

    again = parse_policy("learned")
    assert KeptLessons(again, path).loaded_from == path
    assert again.lessons.price == 7.0


def test_without_a_file_nothing_is_kept(tmp_path):
    lessons = KeptLessons(parse_policy("learned"), None)
    lessons.save()

    assert lessons.loaded_from is None
    assert list(tmp_path.iterdir()) == []


def test_those_that_do_not_save_load_all_the_same(tmp_path):
    path = tmp_path / "lessons"
    KeptLessons(parse_policy("learned"), path, saves=False).save()
    assert not path.exists()

    KeptLessons(parse_policy("learned"), path).save()
    assert KeptLessons(parse_policy("learned"), path, saves=False).loaded_from == path


def test_a_file_that_cannot_be_written_is_named_once(tmp_path, caplog):
    (tmp_path / "no folder").write_text("")
    lessons = KeptLessons(parse_policy("learned"), tmp_path / "no folder" / "lessons")
    lessons.save()
    lessons.save()

    assert [record.getMessage()[:46] for record in caplog.records] == [
        "What is learned of the traffic is not saved: ["
    ]


def test_a_damaged_file_is_no_lesson(tmp_path):
    (tmp_path / "lessons").write_text("{}")
    with pytest.raises(ConfigurationError, match="lessons"):
        KeptLessons(parse_policy("learned"), tmp_path / "lessons")
