"""Where SGLang's own scheduler ends prefill chunks: on the grid, as long as that costs no progress, and
before that where one state more is worth one chunk more, and no other prompt is unfinished.
"""

from array import array

import pytest
from benchmarks.sglang.bare_engine import BareEngine
from sglang.srt.managers.schedule_batch import Req
from sglang.srt.managers.schedule_policy import AddReqResult, PrefillAdder
from sglang.srt.sampling.sampling_params import SamplingParams
from test_placement import ask, tokens


def adder_of(engine, *, chunk):
    return PrefillAdder(engine.page, engine.cache, engine.allocator, None, 0.5, 1 << 15, chunk)


def request(engine, number, count, *, document=()):
    req = Req(
        rid=f"chunked {number}",
        origin_input_text="",
        origin_input_ids=array("q", [*document, *tokens(number, count)]),
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


@pytest.fixture
def taught(monkeypatch):
    """An engine whose cuts cost nothing, and which has learned that prompts diverge anywhere."""
    monkeypatch.setenv("MILEPOST_SGLANG", '{"stop_tokens": 0}')
    engine = BareEngine("milepost", num_states=200, num_kv_tokens=1 << 17)
    for document in range(6):
        for question, shared in enumerate((3000, 1000, 2000, 3000, 500)):
            engine.serve([*tokens(document, shared), *tokens(100 * document + question + 10, 150)])
    assert engine.manager.counts.stops > 0
    return engine


def test_no_state_has_to_go_for_those_of_more_chunks_while_slots_are_free(taught):
    assert taught.pool.mamba_allocator.available_size() > 100
    assert taught.manager.statistics().num_evictions == 0


def admit(adder, req, *, has_chunked_req=False, align=None):
    return adder.add_one_req(req, has_chunked_req=has_chunked_req, truncation_align_size=align)


def planned(engine, req):
    return engine.manager._requests[req.rid].awaited


def test_a_chunk_is_cut_before_the_second_state_that_pays_for_it_and_so_are_those_after_it(taught):
    req = request(taught, 901, 4000)
    adder = adder_of(taught, chunk=2048)
    admit(adder, req)
    positions = planned(taught, req)

    inside = [position for position in positions if position <= 2048]
    assert len(inside) > 1
    assert req.extend_end == inside[1] - 64, "as late as the first is still the only one"
    assert adder.new_chunked_req is req
    ends = [req.extend_end]
    while adder.new_chunked_req or ends[-1] < 4000:
        req.prefix_len = ends[-1]
        adder = adder_of(taught, chunk=2048)
        unfinished = adder.add_chunked_req(req)
        ends.append(req.extend_end)
        assert (unfinished is None) == (ends[-1] == 4000)
    assert all(end % 64 == 0 for end in ends[:-1])
    chunks = list(zip([0, *ends], ends, strict=False))
    assert all(sum(start < position <= end for position in positions) <= 1 for start, end in chunks)
    captured = [taught.manager.position_in(req.rid, start, end) for start, end in chunks]
    assert [each for each in captured if each is not None] == positions, "all of them are captured"


def test_behind_a_prompt_that_was_cut_no_other_is_and_those_that_fit_go_with_it(taught):
    adder = adder_of(taught, chunk=2048)
    first, fits, does_not = (request(taught, n, count) for n, count in ((901, 1900), (902, 300), (903, 4000)))
    assert admit(adder, first) is AddReqResult.CONTINUE
    assert first.extend_end < 1900
    admit(adder, fits)
    assert fits.extend_end == 300
    assert admit(adder, does_not) is AddReqResult.OTHER

    assert adder.can_run_list == [first, fits]
    assert adder.new_chunked_req is first
    assert not taught.manager.is_open(does_not.rid), "it is planned when it is its turn"


def leave_kv(adder, num_tokens):
    """Have others answer who will need all but ``num_tokens`` of the KV."""
    adder.memory_budget.total_offset += adder.memory_budget.remaining_total - num_tokens


def test_nobody_in_its_batch_is_given_the_memory_for_the_rest_of_a_prompt_that_was_cut(taught):
    adder = adder_of(taught, chunk=2048)
    leave_kv(adder, 2000)
    first, second = request(taught, 901, 1900), request(taught, 902, 300)
    admit(adder, first)
    assert first.extend_end < 1700
    assert admit(adder, second) is AddReqResult.NO_TOKEN
    assert adder.can_run_list == [first], "in one chunk it had left room for nobody either"


def test_nor_is_who_comes_with_a_later_chunk(taught):
    first = request(taught, 901, 4000)
    admit(adder_of(taught, chunk=2048), first)
    first.prefix_len = first.extend_end
    adder = adder_of(taught, chunk=2048)
    leave_kv(adder, 4100 - first.prefix_len)
    assert adder.add_chunked_req(first) is first
    assert adder.rem_chunk_tokens > 300
    assert admit(adder, request(taught, 902, 300), has_chunked_req=True) is AddReqResult.NO_TOKEN


def test_without_that_guard_sglang_forgets_the_first(taught, monkeypatch):
    adder = adder_of(taught, chunk=2048)
    first, second = request(taught, 901, 1900), request(taught, 903, 4000)
    admit(adder, first)
    adder.new_chunked_req = None
    admit(adder, second)

    assert adder.can_run_list == [first, second]
    assert adder.new_chunked_req is second


@pytest.mark.parametrize(
    ("chunk", "options"),
    [(2048, {"has_chunked_req": True}), (None, {}), (2048, {"align": 512})],
    ids=["another is unfinished", "prompts are not cut", "batches are to be the same"],
)
def test_elsewhere_no_prompt_is_cut_that_fits(taught, chunk, options):
    req = request(taught, 901, 1900)
    admit(adder_of(taught, chunk=chunk), req, **options)

    assert req.extend_end == 1900
    assert len(planned(taught, req)) == 1


def test_a_prompt_that_waits_behind_an_unfinished_one_is_not_cut_into_the_rest_of_its_batch(taught):
    adder = adder_of(taught, chunk=2048)
    assert admit(adder, request(taught, 901, 4000), has_chunked_req=True) is AddReqResult.OTHER
    assert adder.can_run_list == []


def test_where_a_stop_costs_more_than_it_saves_nothing_is_cut(monkeypatch):
    monkeypatch.setenv("MILEPOST_SGLANG", '{"stop_tokens": 1000000}')
    engine = BareEngine("milepost", num_states=200, num_kv_tokens=1 << 17)
    for seed in range(20):
        ask(engine, seed % 3, seed)
    assert engine.manager.counts.stops == 0
