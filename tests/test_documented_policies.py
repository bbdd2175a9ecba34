"""``docs/write-a-policy.md``: its session runs as it stands, from the first class to the last comparison."""

import doctest
import re
from pathlib import Path

from milepost import PlacementRequest

PAGE = Path(__file__).parents[1] / "docs" / "write-a-policy.md"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL


def test_the_session_of_the_page_runs(capsys):
    failed, tried = doctest.testfile(str(PAGE), module_relative=False, optionflags=FLAGS)
    assert failed == 0, capsys.readouterr().out
    assert tried > 20


def test_every_number_of_a_request_is_told():
    rows = re.findall(r"^\| (`.*?) \|", PAGE.read_text(), flags=re.M)
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert told == set(PlacementRequest.__slots__)
