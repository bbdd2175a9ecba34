"""A request goes from stage to stage as the table says, and in no other way."""

from itertools import product

import pytest
from small_vllm import SmallVllm

from milepost.errors import CacheCorruptionError
from milepost.vllm.request_state import TRANSITIONS, Stage


def request_state(stage):
    """A request of a small vLLM, put into a stage."""
    vllm = SmallVllm()
    vllm.plan_request(request := vllm.ask(range(100)))
    state = vllm.checkpoint_manager._requests[request.name]
    state.stage = stage
    return state


@pytest.mark.parametrize(("before", "after"), list(product(Stage, Stage)))
def test_a_stage_that_may_not_follow_raises_and_changes_nothing(before, after):
    state = request_state(before)
    if after in TRANSITIONS[before]:
        state.enter(after)
        assert state.stage is after
        return
    with pytest.raises(CacheCorruptionError, match=f"is {before.value} cannot become {after.value}"):
        state.enter(after)
    assert state.stage is before


def test_every_stage_can_be_reached_and_left_but_the_last():
    assert set().union(*TRANSITIONS.values()) == set(Stage) - {Stage.WAITING}
    assert [stage for stage in Stage if not TRANSITIONS[stage]] == [Stage.FINISHED]


def test_a_request_takes_its_stages_one_by_one():
    vllm = SmallVllm(chunk=16, batch=0)
    request = vllm.ask(range(100))
    vllm.plan_request(request)
    state = vllm.checkpoint_manager._requests[request.name]
    stages = [state.stage]
    while request.computed < len(request.tokens):
        assert vllm.step(request)
        state = vllm.checkpoint_manager._requests[request.name]
        stages.append(state.stage)
    vllm.preempt(request)
    vllm.plan_request(request)
    vllm.plan_request(request)
    stages.append(state.stage)
    vllm.finish(request)
    stages.append(state.stage)
    assert list(dict.fromkeys(stages)) == [each for each in Stage if each is not Stage.SCHEDULED]
