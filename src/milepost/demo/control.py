"""The control: the same questions from a state that was lost, which must go wrong.

Answers that are right with the cache and right without it say little if they would be right with any state.
So each question is asked once more from the last cut before it, the keys and values as they are and the
recurrent state zeroed, as a cache would have it that kept the one and forgot the other.
"""

from collections.abc import Sequence

from milepost.demo.workload import Ask
from milepost.engines.engine import Engine
from milepost.engines.transformers.snapshot import build_cache, capture_state, slice_kv, zero_state

__all__ = ["answer_from_lost_states"]


def answer_from_lost_states(engine: Engine, asks: Sequence[Ask], *, max_new_tokens: int) -> tuple[str, ...]:
    """Return the answers from zeroed states, greedily decoded.

    Args:
        engine: Its cache is used on the way, so give a sibling that is thrown away.
        asks: Requests in order of arrival.
        max_new_tokens: Tokens of each answer.
    """
    return tuple(_answer(engine, ask, max_new_tokens) for ask in asks)


def _answer(engine: Engine, ask: Ask, max_new_tokens: int) -> str:
    handover = engine.resume(ask.tokens)
    arguments = dict(handover.arguments)
    for name in arguments.keys() - {"input_ids", "attention_mask"}:
        lost = zero_state(capture_state(handover.cache, handover.position))
        kept = slice_kv(handover.cache, 0, handover.position)
        arguments[name] = build_cache(lost, [kept], new_cache=type(handover.cache))
    tokens = handover.model.generate(**arguments, max_new_tokens=max_new_tokens, do_sample=False)
    answer = tokens[0, handover.input_ids.shape[1] :].tolist()
    assert engine.tokenizer is not None, "questions are text"
    return engine.tokenizer.decode(answer)
