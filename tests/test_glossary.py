"""``docs/glossary.md``: each term is defined once, and what it says of the code is there."""

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from milepost.store import Checkpoint

PAGE = Path(__file__).parents[1] / "docs" / "glossary.md"
ROWS = re.findall(r"^\| ([^|]+) \| ([^|]+) \| `([\w.]+)` \|$", PAGE.read_text(), flags=re.M)


def is_in_the_code(dotted: str) -> bool:
    """Whether ``milepost.<dotted>`` is a module, a name in one, or an attribute of a class in one."""
    parts = dotted.split(".")
    for num_modules in range(len(parts), 0, -1):
        try:
            found: object = import_module(".".join(["milepost", *parts[:num_modules]]))
        except ModuleNotFoundError:
            continue
        return has_names(found, parts[num_modules:])
    return False


def has_names(owner: object, names: list[str]) -> bool:
    for name in names:
        if not hasattr(owner, name):
            # An attribute without a slot is set when an object is made.
            is_set = isinstance(owner, type) and name in attributes_set_by(owner)
            return is_set and name == names[-1]
        owner = getattr(owner, name)
    return True


def attributes_set_by(owner: type) -> set[str]:
    makers = (each.__init__ for each in owner.__mro__ if "__init__" in vars(each) and each is not object)
    return {name for maker in makers for name in maker.__code__.co_names}


@pytest.mark.parametrize(("term", "place"), [(term, place) for term, _, place in ROWS])
def test_what_a_term_names_is_in_the_code(term, place):
    if place.startswith("vllm."):
        assert (Path(__file__).parents[1] / "src/milepost" / f"{place.replace('.', '/')}.py").is_file()
    else:
        assert is_in_the_code(place), f"{term}: milepost.{place}"


def test_what_is_not_in_the_code_would_be_noticed():
    assert is_in_the_code("store.Checkpoint.num_pins")
    assert not is_in_the_code("store.Checkpoint.num_leases")
    assert not is_in_the_code("store.Sighting")
    assert not is_in_the_code("shop.Checkpoint")
    assert not has_names(Checkpoint, ["num_leases", "real"])
    assert isinstance(import_module("milepost.store"), ModuleType)


def test_each_term_is_defined_once():
    terms = [term for row in ROWS for term in row[0].split(", ")]
    assert len(terms) > 60
    assert len(set(terms)) == len(terms)
