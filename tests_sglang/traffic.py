"""Random traffic: documents and conversations that share prefixes, side by side, in odd chunks."""

import random
from dataclasses import dataclass


@dataclass
class Conversation:
    """One that goes on."""

    tokens: list[int]
    extra_key: str | None
    salt: str | None


class Traffic:
    """Drives a bare engine.

    Args:
        engine: Serves.
        seed: Of all that is random.
        most_running: Most requests at the same time.
    """

    def __init__(self, engine, *, seed=0, most_running=3, most_document_tokens=1200):
        self.engine = engine
        self.random = random.Random(seed)
        self.most_running = most_running
        self.most_document_tokens = most_document_tokens
        self.num_served = self.num_aborted = 0
        self.hits = []
        self._running = []
        self._documents = [self._tokens(self.random.randrange(100, most_document_tokens)) for _ in range(12)]
        self._conversations = []

    def run(self, num_requests, *, check_every=50):
        """Serve requests, and look for what is out of order. Half way, the cache is emptied."""
        self._run(num_requests // 2, check_every)
        self.engine.flush()
        self.engine.check_leaks()
        self._run(num_requests, check_every)

    def _run(self, num_requests, check_every):
        while self.num_served + self.num_aborted < num_requests:
            if len(self._running) < self.most_running and self.random.random() < 0.5:
                self._start()
            elif self._running:
                self._advance(self.random.choice(self._running))
            if (self.num_served + self.num_aborted) % check_every == 0:
                self.engine.check()
        while self._running:
            self._advance(self._running[0])
        self.engine.check()
        self.engine.check_leaks()

    def _start(self):
        conversation = self._conversation()
        most_new_tokens = self.random.choice((1, 8, 300))
        running = self.engine.start(
            conversation.tokens,
            salt=conversation.salt,
            extra_key=conversation.extra_key,
            most_new_tokens=most_new_tokens,
        )
        self.hits.append(running.hit)
        running.conversation = conversation
        self._running.append(running)

    def _advance(self, running):
        if self.random.random() < 0.02:
            self.engine.abort(running)
            self.num_aborted += 1
        elif not running.is_prefilled:
            length = self.random.choice((None, None, None, 64, 128, 512, self.random.randrange(1, 700)))
            if length is not None:
                length = max(self.engine.page, length // self.engine.page * self.engine.page)
            self.engine.step(running, length)
            return
        else:
            answer = self._tokens(self.random.randrange(running.req.sampling_params.max_new_tokens))
            self.engine.decode(running, answer)
            self.engine.finish(running)
            self.num_served += 1
            conversation = running.conversation
            if self.random.random() < 0.6 and len(conversation.tokens) < 2 * self.most_document_tokens:
                self._conversations.append(
                    Conversation(
                        [*conversation.tokens, *answer, *self._tokens(self.random.randrange(1, 200))],
                        conversation.extra_key,
                        conversation.salt,
                    )
                )
        self._running.remove(running)

    def _conversation(self):
        if self._conversations and self.random.random() < 0.5:
            return self._conversations.pop(self.random.randrange(len(self._conversations)))
        document = self.random.choice(self._documents)
        if self.random.random() < 0.05:
            self._documents[self.random.randrange(len(self._documents))] = self._tokens(
                self.random.randrange(100, self.most_document_tokens)
            )
        question = self._tokens(self.random.randrange(1, 150))
        salt = self.random.choice((None, None, None, "a"))
        return Conversation([*document, *question], self.random.choice((None, None, "adapter")), salt)

    def _tokens(self, count):
        return [self.random.randrange(1, 50_000) for _ in range(count)]
