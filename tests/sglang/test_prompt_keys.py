"""Equal keys stand for equal prefixes, and tenants for what may share them."""

import random
from array import array
from types import SimpleNamespace

import pytest

from milepost.sglang.prompt_keys import UnitHash, tenant_of

UNIT = UnitHash(64)


def ids(seed, count):
    drawn = random.Random(seed)
    return [drawn.randrange(150_000) for _ in range(count)]


def test_prompts_have_equal_keys_up_to_where_they_diverge_and_none_after_it():
    for depth in (0, 1, 63, 64, 700, 1023):
        one, other = ids(1, 1024), ids(1, 1024)
        other[depth] += 1
        same = UNIT.keys(array("q", one)) == UNIT.keys(array("q", other))
        assert same.tolist() == [unit < depth // 64 for unit in range(16)]


def test_a_partial_unit_has_no_key():
    assert UNIT.keys(ids(1, 63)).size == 0
    assert UNIT.keys(ids(1, 65)).size == 1


def test_the_order_of_units_counts():
    one, other = ids(1, 64), ids(2, 64)
    assert UNIT.keys(one + other)[-1] != UNIT.keys(other + one)[-1]


def test_hashes_of_images_in_the_place_of_tokens_are_taken():
    assert UNIT.keys([-(1 << 62), (1 << 62) + 1] * 32).size == 1


def test_many_prompts_have_many_keys():
    keys = {int(UNIT.keys([*([7] * 63), token])[0]) for token in range(20_000)}
    assert len(keys) == 20_000


def test_keys_are_the_same_in_every_process():
    assert UnitHash(2).keys([1, 2, 3, 4]).tolist() == UnitHash(2).keys(array("q", [1, 2, 3, 4])).tolist()
    assert UnitHash(2).keys([1, 2]).tolist() == [4255407732538721196]


@pytest.mark.parametrize("extra_key", [None, "a", "b"])
@pytest.mark.parametrize("salt", [None, "a", "b"])
def test_an_adapter_is_no_salt(extra_key, salt):
    tenant = tenant_of(SimpleNamespace(extra_key=extra_key, cache_salt=salt))
    swapped = tenant_of(SimpleNamespace(extra_key=salt, cache_salt=extra_key))
    assert (tenant == swapped) == (extra_key == salt)
    assert (tenant == "") == (extra_key is None and salt is None)
