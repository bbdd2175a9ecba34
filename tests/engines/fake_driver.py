"""An engine in a screenful: a model whose state is a running number, for tests of all that is above the seam.

Its next token hangs on every token before it, so a wrong state, a gap in the KV or a mixed-up row shows.
"""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import torch
from transformers import GenerationConfig, GenerationMixin, PreTrainedConfig

from milepost.disk import ModelFacts, Packed, PackedTensor
from milepost.engines.audit import Audit
from milepost.engines.base import Driver, OneByOne, Rows
from milepost.engines.cuts import Capture, Cuts
from milepost.engines.engine import Engine
from milepost.engines.generation_settings import GenerationSettings
from milepost.engines.keeping import CacheRequest, keep_in
from milepost.engines.ownership import Ownership
from milepost.engines.prefill import Numerics
from milepost.engines.served_model import ServedModel
from milepost.errors import CacheCorruptionError
from milepost.footprint import Footprint

VOCABULARY = 101
STATE_BYTES, KV_BYTES = 1024, 8


@dataclass
class FakeSequence:
    position: int = 0
    state: int = 7
    kv: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class FakeState:
    position: int
    state: int
    num_bytes: int = STATE_BYTES


@dataclass(frozen=True)
class FakeKV:
    start: int
    end: int
    kv: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return KV_BYTES * len(self.kv)


class FakeDriver(Driver):
    family = "fake"
    vocabulary_size = VOCABULARY
    context_length = None

    def __init__(self):
        self.calls: list[tuple[int, int]] = []  # where each call began, and how many tokens it took

    def start(self, *, num_tokens=1):
        return FakeSequence()

    def advance_all(self, sequence, tokens):
        self.calls.append((sequence.position, tokens.numel()))
        logits = torch.zeros(tokens.numel(), VOCABULARY)
        for index, token in enumerate(tokens.tolist()):
            sequence.state = (sequence.state * 31 + token + 1) % 1_000_003
            sequence.kv.append(token)
            logits[index, (sequence.state + sum(sequence.kv)) % VOCABULARY] = 1.0
        sequence.position += tokens.numel()
        return logits

    def advance(self, sequence, tokens):
        return self.advance_all(sequence, tokens)[-1]

    def rows(self, count, *, is_fixed):
        return OneByOne(self) if count == 1 else FakeRows(self, count)

    def capture(self, sequence):
        return FakeState(sequence.position, sequence.state)

    def kv(self, sequence, start, end):
        assert end <= sequence.position
        return FakeKV(start, end, tuple(sequence.kv[start:end]))

    def restore(self, state, kv, *, position, num_tokens):
        held = [token for piece in kv for token in piece.kv]
        if state.position != position or len(held) != position:
            raise CacheCorruptionError("the pieces do not fit")
        return FakeSequence(position, state.state, held)

    def branch(self, sequence):
        return replace(sequence, kv=list(sequence.kv))

    def has_same_bits(self, one, other):
        return one == other

    def pack(self, payload):
        held = [payload.state] if isinstance(payload, FakeState) else payload.kv
        numbers = np.asarray(held, dtype=np.int64)
        words = {
            name: str(getattr(payload, name))
            for name in ("position", "start", "end")
            if hasattr(payload, name)
        }
        return Packed({"numbers": PackedTensor("int64", numbers.shape, 8, numbers.view(np.uint8))}, words)

    def unpack(self, packed):
        numbers = packed.tensors["numbers"].data.view(np.int64).tolist()
        words = {name: int(value) for name, value in packed.words.items()}
        return FakeKV(**words, kv=tuple(numbers)) if "end" in words else FakeState(**words, state=numbers[0])


class FakeRows(Rows):
    """Several rows a call, and a note of who was in each."""

    def __init__(self, driver, width):
        self.width, self._driver = width, driver
        self.calls: list[int] = []
        self.left: list[bool] = []

    def advance(self, sequences, tokens):
        assert len(sequences) <= self.width
        self.calls.append(len(sequences))
        return [
            self._driver.advance(sequence, torch.tensor([token]))
            for sequence, token in zip(sequences, tokens, strict=True)
        ]

    def leave(self, sequence, *, keeps):
        self.left.append(keeps)


class SameModel:
    """An admission that sees one model for ever."""

    identity = SimpleNamespace(
        content=1, digest=b"fake", tenant=lambda name: f"1:{name}", has_content_of=lambda tenant: True
    )

    def require_weights(self):
        """There are some."""

    def identify(self):
        return self.identity

    def require(self, identity, *, closely=False):
        assert identity is self.identity

    def distrust(self):
        """There is nothing to distrust."""

    def can_store(self, identity):
        return True

    def is_as_opened(self, identity):
        return identity is self.identity

    def invalidate(self):
        """It stays the same."""


class Settings(GenerationMixin):
    """What transformers' own code reads settings from."""

    main_input_name = "input_ids"
    _is_stateful = True
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, *, vocabulary_size=VOCABULARY, end_token=None):
        self.config = PreTrainedConfig(vocab_size=vocabulary_size)
        self.config.is_encoder_decoder = False
        self.generation_config = GenerationConfig(eos_token_id=end_token)


FAST = Cuts(every=256, grid=1, stop_tokens=32)
STRICT = Cuts(every=32, grid=16)


def fake_model(
    *,
    cuts=None,
    numerics="strict",
    driver=None,
    tokenizer=None,
    end_token=None,
    admission=None,
) -> ServedModel:
    driver = FakeDriver() if driver is None else driver
    settings = Settings(vocabulary_size=driver.vocabulary_size, end_token=end_token)
    return ServedModel(
        driver=driver,
        rows=driver.rows,
        ownership=Ownership(),
        admission=admission or SameModel(),
        probe=SimpleNamespace(is_repeatable=True),
        tokenizer=tokenizer,
        footprint=Footprint(checkpoint_bytes=STATE_BYTES, kv_bytes_per_token=KV_BYTES),
        numerics=Numerics(numerics),
        cuts=cuts
        or (Cuts(every=256, grid=1, stop_tokens=32) if numerics == "fast" else Cuts(every=32, grid=16)),
        capture=Capture(is_inside=False, reason="it is a fake"),
        segment_tokens=16,
        keeps_answers=numerics == "fast",
        generation_settings=GenerationSettings(settings),
        fingerprint=b"fake",
        describe=lambda: ModelFacts(name="fake", facts={"engine": "fake", "numerics": numerics}),
    )


def fake_engine(
    *,
    policy="dense:16",
    cuts=None,
    numerics="strict",
    capacity=1 << 22,
    max_running=8,
    decode_rows=None,
    audit=0,
    driver=None,
    tokenizer=None,
    end_token=None,
    admission=None,
    **places,
) -> Engine:
    served = fake_model(
        cuts=cuts,
        numerics=numerics,
        driver=driver,
        tokenizer=tokenizer,
        end_token=end_token,
        admission=admission,
    )
    asked = CacheRequest(capacity=capacity, policy=policy, **places)
    asked.check()
    keeping = keep_in(served, asked)
    return Engine(
        served,
        cache=keeping.cache,
        lasting=keeping.lasting,
        audit=Audit(share=audit),
        max_running=max_running,
        decode_rows=decode_rows,
    )


def tokens(count: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCABULARY, count)


def expected_answer(prompt, count: int) -> tuple[int, ...]:
    """Return what the model says, computed in one go without an engine."""
    driver, sequence = FakeDriver(), FakeSequence()
    logits = driver.advance(sequence, torch.as_tensor(np.asarray(prompt)))
    answer = [int(logits.argmax())]
    while len(answer) < count:
        answer.append(int(driver.advance(sequence, torch.tensor(answer[-1:])).argmax()))
    return tuple(answer)
