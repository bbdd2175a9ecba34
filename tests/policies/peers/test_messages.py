"""llama.cpp and mlx-lm: states where messages end."""

import numpy as np
import pytest

from milepost import Footprint, PrefixCache, parse_policy
from milepost.errors import ConfigurationError
from milepost.placement import PlacementRequest
from milepost.store import ContentlessPayloads

FOOTPRINT = Footprint(checkpoint_bytes=100, kv_bytes_per_token=1)
GRID = 4


def placed(policy: str, num_tokens: int, ends: tuple[int, ...], *, resume: int = 0) -> tuple[int, ...]:
    request = PlacementRequest(
        num_tokens=num_tokens,
        overlap_depth=resume,
        resume_position=resume,
        grid=1,
        breakpoints=ends,
    )
    return parse_policy(policy).placement.place(request).positions


def serve(cache: PrefixCache, tokens: np.ndarray, *ends: int) -> int:
    """Serve a prompt whose messages end there; return what it reused."""
    payloads = ContentlessPayloads(cache.footprint, segment_tokens=GRID)
    with cache.acquire(tokens, breakpoints=ends) as lease:
        return cache.commit(lease, cache.plan(lease), payloads).reused


def prompt(*parts: tuple[int, int]) -> np.ndarray:
    """Tokens of parts, each a name and a length."""
    return np.concatenate([np.arange(length) + 10_000 * name for name, length in parts])


def test_llama_cpp_spaces_its_states_but_for_the_last_message() -> None:
    ends = (100, 900, 1_000, 2_000, 2_050)
    assert placed("llamacpp:step=1000", 2_100, ends) == (1_000, 2_000, 2_050, 2_099)
    assert placed("llamacpp:step=0", 2_100, ends) == (*ends, 2_099)
    assert placed("llamacpp", 2_100, ends) == (2_050, 2_099), "8,192 tokens apart"


def test_llama_cpp_measures_from_where_it_resumes_and_keeps_the_deepest() -> None:
    ends = (100, 900, 1_500, 2_000)
    assert placed("llamacpp:step=500", 2_100, ends, resume=900) == (1_500, 2_000, 2_099)
    assert placed("llamacpp:step=0,count=2", 2_100, ends) == (2_000, 2_099)


def test_of_a_prompt_without_messages_the_end_alone_is_kept() -> None:
    assert placed("llamacpp", 2_100, ()) == (2_099,)
    assert placed("mlx", 2_100, ()) == (2_099,)


def test_mlx_keeps_the_first_message_and_the_end() -> None:
    assert placed("mlx", 2_100, (300, 2_000)) == (300, 2_099)
    assert placed("mlx", 2_100, (2_000,)) == (2_099,), "a lone message is the user's"


def test_a_parting_inside_a_message_reuses_nothing_of_it_in_mlx() -> None:
    cache = PrefixCache(capacity_bytes=10_000, footprint=FOOTPRINT, policy=parse_policy("mlx"), grid=GRID)
    first = prompt((1, 40), (2, 80), (3, 20))
    assert serve(cache, first, 40, 140) == 0
    assert serve(cache, prompt((1, 40), (2, 80), (4, 20)), 40, 140) == 40
    assert serve(cache, prompt((1, 20), (5, 60)), 20, 80) == 0
    assert serve(cache, np.concatenate((first, prompt((6, 30)))), 40, 140, 170) == 136


def test_what_mlx_stored_first_goes_first_though_it_was_used_since() -> None:
    cache = PrefixCache(capacity_bytes=300, footprint=FOOTPRINT, policy=parse_policy("mlx"), grid=GRID)
    oldest, newer, newest = (prompt((name, 41)) for name in (1, 2, 3))
    for tokens in (oldest, newer):
        serve(cache, tokens)
    assert serve(cache, oldest) == 40
    serve(cache, newest)
    assert serve(cache, newer) == 40
    assert serve(cache, oldest) == 0


@pytest.mark.parametrize("policy", ["llamacpp:step=-1", "llamacpp:count=0"])
def test_an_option_out_of_its_range_is_named(policy: str) -> None:
    with pytest.raises(ConfigurationError, match="give a step of at least 0 and a count of at least 1"):
        parse_policy(policy)


def test_a_chunk_of_sglang_leaves_one_state_where_it_is_told_so() -> None:
    request = PlacementRequest(num_tokens=5_000, overlap_depth=3_100, resident_kv_tokens=3_100, grid=1)

    def positions(policy: str) -> tuple[int, ...]:
        return parse_policy(policy).placement.place(request).positions

    assert positions("sglang:chunk=2000") == (2_000, 3_100, 4_000, 4_999)
    assert positions("sglang:chunk=2000,single=yes") == (2_000, 3_100, 4_999)
    assert positions("sglang:chunk=8192,single=yes") == (3_100,), "the fork takes the place of the end"
    with pytest.raises(ConfigurationError, match="give chunk=8192 as well"):
        parse_policy("sglang:single=yes")
