"""The workloads: which texts a session repeats, which it adds, and how long they are.

The shapes follow what public traces show: documents of thousands of tokens under short questions, chats of
a few turns after a shared system prompt, agents that add a tool's result at every step after a long list
of tools.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from milepost.traces.synthetic.chance import Pool, draw_count, draw_length, draw_segment
from milepost.traces.synthetic.tokens import Segment
from milepost.traces.synthetic.workload import Session, Turn, Workload

__all__ = ["Agents", "Chat", "Documents", "Drifting", "SystemPrompts", "Uniform"]

_Progress = Callable[[], float]

# Sigmas of lognormal lengths: prompts that people maintain vary least, what tools return varies most.
_STEADY, _VARIED, _WILD = 0.4, 0.8, 1.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents(Workload):
    """Several questions about each of many documents.

    Args:
        system: Length of the instruction before every document.
        document: Length of a document.
        question: Length of a question.
        answer: Length of an answer.
        questions: Questions asked about a document.
    """

    system: int = 120
    document: int = 6_000
    question: int = 40
    answer: int = 200
    questions: float = 5.0

    def sessions(self, random: np.random.Generator, progress: _Progress) -> Iterator[Session]:
        """Yield one session a document."""
        instruction = draw_segment(random, self.system, _STEADY)
        while True:
            yield Session("document", self._turns(random, instruction))

    def _turns(self, random: np.random.Generator, instruction: Segment) -> Iterator[Turn]:
        document = draw_segment(random, self.document, _VARIED)
        for _ in range(draw_count(random, self.questions)):
            question = draw_segment(random, self.question, _VARIED)
            yield Turn((instruction, document, question), draw_length(random, self.answer, _VARIED))


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat(Workload):
    """Conversations in which every turn repeats all before it.

    Args:
        systems: Different system prompts, a few of them used by most sessions.
        system: Length of a system prompt.
        user: Length of what a user writes.
        answer: Length of an answer, which the next turn repeats.
        turns: Turns of a session.
    """

    concurrency: int = 64
    systems: int = 8
    system: int = 300
    user: int = 60
    answer: int = 250
    turns: float = 4.0

    def sessions(self, random: np.random.Generator, progress: _Progress) -> Iterator[Session]:
        """Yield one session a conversation."""
        systems = Pool(random, self.systems, median=self.system, spread=_VARIED)
        while True:
            yield Session("chat", self._turns(random, systems.draw(random)))

    def _turns(self, random: np.random.Generator, system: Segment) -> Iterator[Turn]:
        prompt: tuple[Segment, ...] = (system,)
        for _ in range(draw_count(random, self.turns)):
            prompt = (*prompt, draw_segment(random, self.user, _WILD))
            answer = draw_segment(random, self.answer, _VARIED)
            yield Turn(prompt, answer.num_tokens)
            prompt = (*prompt, answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agents(Workload):
    """Agents in a loop: a call of a tool, its result, and again, after long instructions and tools.

    Args:
        agents: Different kinds of agent, each with its own instructions.
        system: Length of the instructions and tools.
        task: Length of what the agent is asked to do.
        call: Length of a call of a tool.
        result: Length of what the tool returns.
        steps: Calls of a session.
    """

    concurrency: int = 12
    agents: int = 4
    system: int = 10_000
    task: int = 400
    call: int = 120
    result: int = 600
    steps: float = 20.0

    def sessions(self, random: np.random.Generator, progress: _Progress) -> Iterator[Session]:
        """Yield one session a task."""
        systems = Pool(random, self.agents, median=self.system, spread=_STEADY)
        while True:
            yield Session("agent", self._turns(random, systems.draw(random)))

    def _turns(self, random: np.random.Generator, system: Segment) -> Iterator[Turn]:
        prompt: tuple[Segment, ...] = (system, draw_segment(random, self.task, _VARIED))
        for _ in range(draw_count(random, self.steps)):
            call = draw_segment(random, self.call, _VARIED)
            yield Turn(prompt, call.num_tokens)
            prompt = (*prompt, call, draw_segment(random, self.result, _WILD))


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemPrompts(Workload):
    """Single requests that share nothing but their long system prompts.

    Args:
        systems: Different system prompts, a few of them used by most requests.
        system: Length of a system prompt.
        user: Length of what follows it.
        answer: Length of an answer.
    """

    systems: int = 20
    system: int = 2_000
    user: int = 100
    answer: int = 200

    def sessions(self, random: np.random.Generator, progress: _Progress) -> Iterator[Session]:
        """Yield one session a request."""
        systems = Pool(random, self.systems, median=self.system, spread=_VARIED)
        while True:
            prompt = (systems.draw(random), draw_segment(random, self.user, _WILD))
            turn = Turn(prompt, draw_length(random, self.answer, _VARIED))
            yield Session("request", iter((turn,)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform(Workload):
    """Requests that diverge from a well-known prompt at a depth that is uniform over its length.

    No message boundary and no common distance from either end tells where: the hardest case for placement.

    Args:
        bases: Different well-known prompts.
        length: Length of every prompt.
        answer: Length of an answer.
    """

    bases: int = 4
    length: int = 8_000
    answer: int = 200

    def sessions(self, random: np.random.Generator, progress: _Progress) -> Iterator[Session]:
        """Yield one session a request, first the well-known prompts themselves."""
        bases = [int(random.integers(1 << 63)) for _ in range(self.bases)]
        for base in bases:
            yield self._request(random, (Segment(base, self.length, ends_message=False),))
        while True:
            base = bases[int(random.integers(self.bases))]
            depth = int(random.integers(self.length))
            fresh = Segment(int(random.integers(1 << 63)), self.length - depth, ends_message=False)
            shared = (Segment(base, depth, ends_message=False),) if depth else ()
            yield self._request(random, (*shared, fresh))

    def _request(self, random: np.random.Generator, prompt: tuple[Segment, ...]) -> Session:
        return Session("request", iter((Turn(prompt, draw_length(random, self.answer, _VARIED)),)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Drifting(Workload):
    """Traffic whose mix changes: chats at first, documents in the middle, agents at the end.

    The share of each kind among new sessions rises and falls linearly.
    """

    def sessions(self, random: np.random.Generator, progress: _Progress) -> Iterator[Session]:
        """Yield sessions of the kind that the time suggests."""
        kinds = [kind().sessions(random, progress) for kind in (Chat, Documents, Agents)]
        while True:
            place = progress() * (len(kinds) - 1)
            kind = int(place) + (random.random() < place % 1)
            yield next(kinds[kind])
