"""Prompts and branch points as they are remembered."""

from milepost.store import Checkpoint, SeenPrompt


def test_a_checkpoint_has_one_prompt_that_owns_it():
    first, second = SeenPrompt(10), SeenPrompt(20, generation=3)
    checkpoint = Checkpoint(node=None, position=1, payload=None, num_bytes=0, serial=7, tick=0)
    assert not checkpoint.is_stored
    first.own(checkpoint)
    assert (checkpoint.owner, first.owned, checkpoint.is_stored) == (first, {7: checkpoint}, True)
    second.own(checkpoint)
    assert (checkpoint.owner, first.owned, second.owned) == (second, {}, {7: checkpoint})
    assert (second.num_tokens, second.generation, second.passed_tokens) == (20, 3, 0)
    assert not second.is_tracked
