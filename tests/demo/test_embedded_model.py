"""The model that needs no download: the same everywhere, and with the shape that matters."""

import torch

from milepost.demo.embedded_model import build_embedded_model, build_embedded_tokenizer
from milepost.engines.engine import Engine

# Tiny matrices gain nothing from more, and test processes would fight over the cores.
torch.set_num_threads(1)


def test_it_is_the_same_every_time_and_leaves_the_global_random_state_alone():
    state = torch.get_rng_state()
    one, other = build_embedded_model().state_dict(), build_embedded_model().state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_one_checkpoint_weighs_as_much_as_hundreds_of_tokens_of_kv():
    engine = Engine.open(build_embedded_model(), tokenizer=build_embedded_tokenizer())
    assert 800 <= engine.footprint.checkpoint_kv_tokens <= 6_700


def test_its_tokens_are_the_bytes_of_the_text():
    tokenizer = build_embedded_tokenizer()
    text = "naïve € \x00\n" + "".join(map(chr, range(256)))
    assert tokenizer.encode(text) == list(text.encode())
    assert tokenizer.decode(list(text.encode())) == text
    assert tokenizer.decode([0xFF]) == "�"


def test_it_can_be_talked_with():
    engine = Engine.open(build_embedded_model(), tokenizer=build_embedded_tokenizer())
    tokens = engine.encode([{"role": "user", "content": "hé"}])
    assert bytes(tokens.tolist()).decode() == "user: hé\nassistant:"
