"""In training a lost state is what it is in the engine: zeroed, the keys and values kept."""

import numpy as np
import pytest
import torch
from training.curve import MadeUpText
from training.lost_states import lost_states, unlikelihood
from training.measure import likeliest
from training.quick_layers import quick_layers
from training.sequences import SequenceMaker
from transformers import AutoModelForCausalLM, AutoTokenizer

from milepost.embedded import embedded_folder

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(embedded_folder())


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(embedded_folder()).eval()


@pytest.fixture
def batch(tokenizer):
    return SequenceMaker(MadeUpText(), tokenizer, seed=5).batch(1, 500, plain_share=0.0)


@torch.no_grad()
def in_training(model, batch, *ends):
    tokens = torch.from_numpy(batch.tokens)
    with quick_layers():
        if not ends:
            return model(input_ids=tokens, use_cache=False).logits[0, :-1].argmax(-1).numpy()
        with lost_states(torch.tensor(ends)):
            return model(input_ids=tokens, use_cache=False).logits[0, :-1].argmax(-1).numpy()


def test_the_tokens_after_a_loss_are_the_engines(model, batch):
    (end,) = batch.document_ends
    found = in_training(model, batch, end)
    wanted = likeliest(model, batch, is_lost=True)
    kept = in_training(model, batch)
    assert np.mean(found == wanted) > 0.98
    # The control: what is lost shows, and only after the document.
    assert np.mean(kept[end:] == wanted[end:]) < 0.9
    assert np.array_equal(found[: end - 1], kept[: end - 1])


def test_a_loss_elsewhere_is_another_one(model, batch):
    (end,) = batch.document_ends
    assert not np.array_equal(in_training(model, batch, end // 2), in_training(model, batch, end))


def test_what_had_to_be_found_is_marked(tokenizer):
    batch = SequenceMaker(MadeUpText(), tokenizer, seed=6).batch(2, 600, plain_share=0.0)
    assert not batch.is_found[batch.answers == 0].any()
    num_values = 0
    for tokens, answers, is_found in zip(batch.tokens, batch.answers, batch.is_found, strict=True):
        for number in range(1, int(answers.max())):
            here = answers == number
            answer, found = tokenizer.decode(tokens[here]), tokenizer.decode(tokens[here & is_found])
            assert answer.removesuffix("<|end|>").endswith(found)
            if answer.startswith(("The value of", "Now the")):
                assert found.strip(" .") == answer.removesuffix(".<|end|>").split()[-1]
                num_values += 1
    assert num_values > 2


def test_unlikelihood_is_least_where_the_token_is_unlikely():
    token = torch.tensor([1])
    unlikely, even, likely = (torch.tensor([[0.0, logit]]) for logit in (-9.0, 0.0, 9.0))
    losses = [float(unlikelihood(logits, token)) for logits in (unlikely, even, likely)]
    assert losses == sorted(losses)
    assert losses[0] < 1e-3
    assert losses[1] == pytest.approx(np.log(2), rel=1e-5)
    assert np.isfinite(float(unlikelihood(torch.tensor([[0.0, 99.0]]), token)))
