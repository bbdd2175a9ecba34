"""The pages of ``docs/api``: their sessions run as they stand, and every public name is on one."""

import doctest
import re
from pathlib import Path

import pytest

import milepost
from milepost import errors

FOLDER = Path(__file__).parents[1] / "docs" / "api"
PAGES = sorted(page for page in FOLDER.glob("*.md") if page.name != "index.md")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL


def shown(page: Path) -> set[str]:
    """Return the names whose documentation a page draws in."""
    return set(re.findall(r"^::: (?:[\w.]+\.)?(\w+)$", page.read_text(), flags=re.M))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_sessions_of_a_page_run(page, capsys):
    failed, tried = doctest.testfile(str(page), module_relative=False, optionflags=FLAGS)
    assert failed == 0, capsys.readouterr().out
    assert tried > 0


def test_every_public_name_is_on_a_page_and_in_a_session():
    pages = {name: page for page in PAGES for name in shown(page)}
    assert set(milepost.__all__) - set(errors.__all__) <= set(pages)
    for name in set(milepost.__all__) - set(errors.__all__) - {"PayloadSource", "RequestReport", "Lease"}:
        assert re.search(rf"^(>>>|\.\.\.) .*\b{name}\b", pages[name].read_text(), flags=re.M), name
