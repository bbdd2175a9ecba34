"""Whose a payload is, in a digest: of the engine, the tenant and every token before it."""

import numpy as np

from families import tiny_prompt
from milepost.engines.digests import PrefixDigests, engine_fingerprint
from milepost.tokens import as_tokens

ONE, OTHER = (tiny_prompt(200, seed=seed)[0].numpy() for seed in (1, 2))


def test_digests_depend_on_every_token_before_and_on_the_engine():
    def digest(tokens, fingerprint=b"engine", position=100, tenant="a"):
        return PrefixDigests(fingerprint, as_tokens(tokens), tenant=tenant, segment_tokens=64).at(position)

    changed = ONE.copy()
    changed[99] += 1
    assert digest(ONE) == digest(np.concatenate((ONE[:100], OTHER)))
    assert digest(ONE) != digest(changed)
    assert digest(ONE) != digest(ONE, fingerprint=b"another")
    assert digest(ONE) != digest(ONE, position=99)
    assert digest(ONE) != digest(ONE, tenant="b")
    assert digest([98, *ONE], tenant="a") != digest(ONE, tenant="ab")
    assert digest(ONE, tenant="\ud800") != digest(ONE, tenant="\ud801"), "any string names a tenant"


def test_segment_digests_can_be_asked_for_at_any_time():
    def new():
        return PrefixDigests(b"engine", as_tokens(ONE), tenant="", segment_tokens=64)

    digests = new()
    late = digests.at(192)
    fresh = [new().at(position) for position in (64, 128, 192)]
    assert [digests.at(64), digests.at(128), late] == fresh


def test_a_fingerprint_is_a_function_of_all_facts_and_not_of_their_order():
    assert engine_fingerprint(a=1, b="x") == engine_fingerprint(b="x", a=1)
    assert engine_fingerprint(a=1) != engine_fingerprint(a=2)
    assert engine_fingerprint(a=1) != engine_fingerprint(b=1)
