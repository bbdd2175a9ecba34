"""A model that says what it is told to, behind a real server: what an answer says is read end to end."""

from contextlib import contextmanager

import torch
from fake_driver import FakeDriver, fake_engine
from running import MODEL, Running

from chat_tokenizer import chat_tokenizer
from milepost.server.settings import ServeSettings

HEADER = "<|im_start|>assistant\n"


class ScriptedDriver(FakeDriver):
    """Its state is the fake model's; its next token is the next of what it is to say.

    Attributes:
        script: What it says after a prompt in which a text comes last, by that text; what the template begins
            of an answer is part of it.
    """

    def __init__(self, tokenizer):
        super().__init__()
        self.script: dict[str, str] = {}
        self.vocabulary_size = len(tokenizer)
        self._tokenizer = tokenizer
        self._header = tokenizer.encode(HEADER, add_special_tokens=False)

    def advance_all(self, sequence, tokens):
        super().advance_all(sequence, tokens)
        logits = torch.zeros(tokens.numel(), self.vocabulary_size)
        logits[-1, self._next(sequence.kv)] = 1000.0
        return logits

    def _next(self, tokens):
        end = self._tokenizer.eos_token_id
        if self._header[0] not in tokens:
            return end
        at = len(tokens) - 1 - tokens[::-1].index(self._header[0])
        said = tokens[at + len(self._header) :]
        wanted = self._tokenizer.encode(
            self._answer(self._tokenizer.decode(tokens[:at])), add_special_tokens=False
        )
        return wanted[len(said)] if said == wanted[: len(said)] and said != wanted else end

    def _answer(self, prompt):
        return self.script[max(self.script, key=prompt.rfind)] if self.script else ""


class Scripted:
    """A server over such a model.

    Attributes:
        url: Where it listens.
        script: What the model says; see :class:`ScriptedDriver`.
        tokenizer: The model's.
    """

    def __init__(self, running, driver, tokenizer):
        self.url, self.worker, self.app = running.url, running.worker, running.app
        self.script, self.tokenizer = driver.script, tokenizer


@contextmanager
def scripted(template, *, capacity=1 << 24, policy="dense:16", **settings):
    tokenizer = chat_tokenizer(template, single="$A")
    driver = ScriptedDriver(tokenizer)
    engine = fake_engine(
        driver=driver,
        tokenizer=tokenizer,
        end_token=tokenizer.eos_token_id,
        capacity=capacity,
        policy=policy,
    )
    checked = ServeSettings.checked(model_name=MODEL, port=0, **settings)
    running = Running(engine, checked, max_waiting=16, live_capacity_bytes=1 << 30)
    running.start()
    try:
        yield Scripted(running, driver, tokenizer)
    finally:
        running.stop()
