"""Where SGLang's own scheduler ends prefill chunks: on the grid, as long as that costs no progress."""

from array import array

import pytest
from benchmarks.sglang.bare_engine import BareEngine
from sglang.srt.managers.schedule_batch import Req
from sglang.srt.managers.schedule_policy import AddReqResult, PrefillAdder
from sglang.srt.sampling.sampling_params import SamplingParams
from test_placement import tokens


def adder_of(engine, *, chunk):
    return PrefillAdder(engine.page, engine.cache, engine.allocator, None, 0.5, 1 << 15, chunk)


def request(engine, number, count):
    req = Req(
        rid=f"chunked {number}",
        origin_input_text="",
        origin_input_ids=array("q", tokens(number, count)),
        sampling_params=SamplingParams(temperature=0, max_new_tokens=1),
    )
    req.init_next_round_input(engine.cache)
    return req


def chunk_ends(engine, lengths, *, chunk):
    """Return where the first chunk of each request ends that is admitted to one batch."""
    adder = adder_of(engine, chunk=chunk)
    ends = []
    for number, count in enumerate(lengths):
        req = request(engine, number, count)
        adder.add_one_req(req, has_chunked_req=False, truncation_align_size=None)
        if req not in adder.can_run_list:
            break
        ends.append(req.extend_end)
    return ends


def test_what_is_left_of_a_batch_is_cut_on_the_grid():
    assert chunk_ends(BareEngine(None), (700, 3000), chunk=2048) == [700, 1348]
    assert chunk_ends(BareEngine("milepost"), (700, 3000), chunk=2048) == [700, 1344]


def test_a_prompt_that_fits_is_not_cut():
    assert chunk_ends(BareEngine("milepost"), (700, 900), chunk=2048) == [700, 900]


def test_with_less_than_a_grid_step_left_the_next_request_waits_for_the_next_batch():
    assert chunk_ends(BareEngine("milepost"), (2000, 3000), chunk=2048) == [2000]


def test_alone_in_a_batch_no_request_waits_for_a_grid_step_that_never_fits():
    assert chunk_ends(BareEngine("milepost"), (3000,), chunk=40) == [40]


@pytest.mark.parametrize(("chunk", "end"), [(1000, 960), (2048, 2048), (40, 40)])
def test_further_chunks_end_on_the_grid_too(chunk, end):
    engine = BareEngine("milepost")
    req = request(engine, 1, 4000)
    adder = adder_of(engine, chunk=chunk)
    assert adder.add_chunked_req(req) is req, "it is not done yet"
    assert req.extend_end == end


def test_a_chunk_that_begins_off_the_grid_comes_back_to_it():
    engine = BareEngine("milepost")
    req = request(engine, 1, 4000)
    req.prefix_len = 40
    adder_of(engine, chunk=1000).add_chunked_req(req)
    assert req.extend_end == 1024


def test_a_limit_that_sglang_sets_is_kept():
    engine = BareEngine("milepost")
    req = request(engine, 1, 4000)
    adder = adder_of(engine, chunk=2048)
    adder.chunked_req_limit = 500
    adder.add_chunked_req(req)
    assert req.extend_end == 448


def test_the_last_chunk_ends_where_the_prompt_does():
    engine = BareEngine("milepost")
    req = request(engine, 1, 1999)
    assert adder_of(engine, chunk=2048).add_chunked_req(req) is None
    assert req.extend_end == 1999


def test_what_does_not_fit_is_refused_as_before():
    engine = BareEngine("milepost", num_kv_tokens=1024)
    adder = adder_of(engine, chunk=None)
    result = adder.add_one_req(request(engine, 1, 4000), has_chunked_req=False, truncation_align_size=None)
    assert result is AddReqResult.NO_TOKEN
