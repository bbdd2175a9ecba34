"""Audits: what no look can see is found by computing it again, and the request is answered rightly."""

import logging
import random

import pytest
import torch

from families import tiny_model, tiny_prompt
from milepost.engines.audit import Audit, AuditStatistics
from milepost.engines.engine import Engine
from milepost.engines.transformers.frames import has_same_bits
from milepost.errors import AuditError, ConfigurationError

# Tiny matrices gain nothing from more, and test processes would fight over the cores.
torch.set_num_threads(1)

PROMPT = tiny_prompt(200, seed=1)[0].numpy()
HIT = 192


def open_engine(model, **options) -> Engine:
    return Engine.open(model, **{"capacity": "64MiB", "segment_tokens": 64, "policy": "dense:64"} | options)


def ask(engine, prompt=PROMPT, **options):
    return engine.generate(prompt, **{"max_new_tokens": 3, "ignore_end_token": True} | options)


def write_past_every_counter(model):
    for parameter in model.parameters():
        parameter.data.mul_(1.01)


@pytest.mark.parametrize("family", ["qwen3_5", "mamba2", "qwen3", "rwkv"])
def test_an_audit_of_every_hit_finds_what_no_look_sees_and_answers_from_scratch(family, caplog):
    model = tiny_model(family)
    engine = open_engine(model, audit=1)
    ask(engine)
    assert ask(engine).report.reused == HIT
    write_past_every_counter(model)
    with caplog.at_level(logging.ERROR):
        answer = ask(engine)
    expected = ask(open_engine(model, policy="none", audit=0))
    assert answer.report.reused == 0
    assert answer.prompt_logits_digest == expected.prompt_logits_digest
    assert answer.tokens == expected.tokens
    (line,) = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert "engine.invalidate()" in line
    assert ask(engine).report.reused == HIT
    assert engine.audits == AuditStatistics(
        num_audits=3, num_mismatches=1, num_tokens=engine.audits.num_tokens
    )
    engine.cache.check()
    assert not engine.cache._store.queue.pinned


def test_without_audits_the_wrong_answer_is_served():
    model = tiny_model("qwen3_5")
    engine = open_engine(model, audit=0)
    ask(engine)
    write_past_every_counter(model)
    expected = ask(open_engine(model, policy="none"))
    assert ask(engine).prompt_logits_digest != expected.prompt_logits_digest
    assert engine.audits == AuditStatistics()


def test_a_mismatch_drops_all_that_is_stored_and_raises_where_that_is_wanted():
    model = tiny_model("qwen3_5")
    engine = open_engine(model, audit=Audit(share=1, on_mismatch="raise"))
    ask(engine)
    ask(engine, tenant="other")
    write_past_every_counter(model)
    with pytest.raises(AuditError, match="192 of 200 tokens"):
        ask(engine)
    assert engine.cache.stored_bytes == 0
    assert ask(engine, tenant="other").report.reused == 0


def test_one_segment_is_computed_again_where_a_state_sits_there_else_all_since_the_last_one():
    engine = open_engine(tiny_model("qwen3_5"), audit=1)
    ask(engine)
    ask(engine)
    assert engine.audits.num_tokens == 64
    sparse = open_engine(tiny_model("qwen3_5"), audit=1, policy="tail+junction")
    ask(sparse)
    ask(sparse)
    assert sparse.audits.num_tokens == HIT
    anchors = open_engine(tiny_model("qwen3"), audit=1, policy="tail+junction")
    ask(anchors)
    ask(anchors)
    assert anchors.audits.num_tokens == 64, "where KV is all there is, it can be resumed from anywhere"


def test_an_audit_takes_turns_and_can_be_given_up_in_the_middle():
    engine = open_engine(tiny_model("qwen3_5"), audit=1, policy="tail+junction")
    ask(engine)
    audited = engine.submit(PROMPT, max_new_tokens=2, ignore_end_token=True)
    other = engine.submit(PROMPT[:50], max_new_tokens=2, ignore_end_token=True)
    engine.step()
    engine.step()
    assert len(other.events) == 1
    audited.close()
    while engine.step():
        pass
    assert other.is_done
    assert not engine.cache._store.queue.pinned
    engine.cache.check()


def test_a_share_of_the_hits_is_drawn_from_the_source_that_is_given():
    engine = open_engine(tiny_model("qwen3_5"), audit=Audit(share=0.5, source=random.Random(1)))
    source = random.Random(1)
    ask(engine)
    for _ in range(12):
        before = engine.audits.num_audits
        ask(engine, max_new_tokens=1)
        assert engine.audits.num_audits - before == (source.random() < 0.5)
    assert 0 < engine.audits.num_audits < 12


def test_a_request_that_resumes_from_nothing_draws_nothing():
    engine = open_engine(tiny_model("qwen3_5"), audit=1)
    ask(engine)
    ask(engine, prompt=tiny_prompt(100, seed=5)[0].numpy())
    assert engine.audits.num_audits == 0


def test_a_model_that_never_agrees_with_itself_is_not_called_wrong(monkeypatch, caplog):
    engine = open_engine(tiny_model("qwen3_5"), audit=1)
    ask(engine)
    upstream = engine.driver.advance
    noise = torch.Generator().manual_seed(0)

    def unsteady(live, tokens):
        logits = upstream(live, tokens)
        for layer in live.cache.layers:
            if (states := getattr(layer, "recurrent_states", None)) is not None:
                states[0].add_(torch.rand(1, generator=noise) * 1e-3)
        return logits

    monkeypatch.setattr(engine.driver, "advance", unsteady)
    for _ in range(2):
        assert ask(engine).report.reused == HIT
    assert engine.audits.num_mismatches == 0
    assert engine.audits.num_audits == 1, "there is nothing to compare any more"
    assert "audits end here" in caplog.text


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan"), "1/256", True])
def test_a_share_that_is_none_is_an_error(share):
    with pytest.raises(ConfigurationError, match="from 0"):
        open_engine(tiny_model("qwen3_5"), audit=share)


def test_an_audit_that_cannot_be_done_is_an_error_and_left_out_unless_asked_for():
    model = tiny_model("qwen3_5")
    with pytest.raises(ConfigurationError, match="strict"):
        open_engine(model, audit=0.5, numerics="fast")
    with pytest.raises(ConfigurationError, match="on_mismatch"):
        Audit(on_mismatch="ignore")
    open_engine(model, numerics="fast")
    assert open_engine(model)._recall.auditor.audit.share == 1 / 256


def test_bits_are_compared_and_not_numbers():
    nan, zero = torch.tensor([float("nan")]), torch.zeros(1)
    assert has_same_bits({"a": [nan, 1]}, {"a": [nan.clone(), 1]})
    assert not has_same_bits(zero, -zero)
    assert not has_same_bits(zero, zero.half())
    assert not has_same_bits({"a": zero}, {"b": zero})
    assert not has_same_bits((zero,), (zero, zero))
    assert not has_same_bits(1, 2)
    ring: list = [zero]
    ring.append(ring)
    assert has_same_bits(ring, ring)
