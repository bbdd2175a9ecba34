"""What is stored of a prompt, packed and unpacked through the seam."""

from dataclasses import replace

import pytest
import torch
from fake_driver import FakeDriver, tokens

from milepost.disk import Packed
from milepost.engines.digests import PrefixDigests
from milepost.engines.packing import PayloadCodec
from milepost.engines.payloads import SequencePayloads
from milepost.errors import CacheCorruptionError


@pytest.fixture
def payloads():
    driver, prompt = FakeDriver(), tokens(40)
    sequence = driver.start()
    digests = PrefixDigests(b"model", prompt, tenant="", segment_tokens=16)
    made = SequencePayloads(driver, sequence, digests=digests, segment_tokens=16)
    for start, end in ((0, 32), (32, 40)):
        driver.advance(sequence, torch.as_tensor(prompt[start:end]))
        made.capture()
    return made


def test_states_with_and_without_a_tail_and_kv_come_back_equal(payloads):
    codec = PayloadCodec(FakeDriver())
    for stored in (payloads.checkpoint(32), payloads.checkpoint(40), *payloads.kv_segments(0, 32)):
        packed = codec.pack(stored)
        assert codec.unpack(packed) == stored
    # The control: the digest is part of what is compared.
    assert codec.unpack(packed) != replace(stored, digest=b"another")


@pytest.mark.parametrize("lost", ["digest", "state.position"])
def test_a_packed_payload_that_lacks_a_part_is_refused(payloads, lost):
    codec = PayloadCodec(FakeDriver())
    packed = codec.pack(payloads.checkpoint(40))
    words = {name: word for name, word in packed.words.items() if name != lost}
    with pytest.raises(CacheCorruptionError):
        codec.unpack(Packed(packed.tensors, words))
