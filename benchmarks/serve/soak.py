"""Many clients for minutes: documents and chats, one in ten goes away; no error, and nothing that grows.

    python -m benchmarks.serve.soak [--model MODEL] [--minutes 10] [--clients 64] [--json]

Every answer is compared with that of an engine without a cache, which is asked the same afterwards. Memory is
what the server's process holds, from a third of the time on. Stops by itself.
"""

import asyncio
import random
import time
from dataclasses import dataclass, field

import httpx
import numpy as np

from benchmarks.printing import Row
from benchmarks.serve.client import Answered, ask
from benchmarks.serve.command import run_on_a_model
from benchmarks.serve.process import Server, served
from benchmarks.serve.reference import Reference
from benchmarks.serve.traffic import Asked, chats, document_questions

_MAX_TOKENS = 16
_SHARE_OF_LEAVERS = 0.1
_DOCUMENTS, _QUESTIONS, _CHARACTERS = 8, 12, 6_000
_CHATS, _TURNS = 8, 6
_GROWTH = 1.05


@dataclass
class Seen:
    """What all clients saw."""

    answers: dict[str, tuple[list[dict[str, str]], set[str]]] = field(default_factory=dict)
    answered: list[Answered] = field(default_factory=list)
    num_left: int = 0
    memory: list[tuple[float, int]] = field(default_factory=list)

    def note(self, name: str, messages: list[dict[str, str]], answered: Answered) -> None:
        """Take in a whole answer."""
        self.answered.append(answered)
        if answered.status == 200:
            self.answers.setdefault(name, (messages, set()))[1].add(answered.text)


async def _client(number: int, http: httpx.AsyncClient, model: str, until: float, seen: Seen) -> None:
    rng = random.Random(number)
    questions = document_questions(num_documents=_DOCUMENTS, num_questions=_QUESTIONS, characters=_CHARACTERS)
    sessions = chats(num_chats=_CHATS, num_turns=_TURNS)
    while time.monotonic() < until:
        if rng.random() < 0.6:
            asked = rng.choice(rng.choice(questions))
            await _ask(asked, http, model, rng, seen)
        else:
            chat = rng.randrange(_CHATS)
            messages: list[dict[str, str]] = []
            for turn, text in enumerate(sessions[chat]):
                messages = [*messages, {"role": "user", "content": text}]
                answered = await _ask(Asked(f"chat {chat}, turn {turn}", messages), http, model, rng, seen)
                if answered.status != 200 or time.monotonic() > until:
                    break
                messages = [*messages, {"role": "assistant", "content": answered.text}]


async def _ask(asked: Asked, http: httpx.AsyncClient, model: str, rng: random.Random, seen: Seen) -> Answered:
    leaves_after = rng.randrange(4) if rng.random() < _SHARE_OF_LEAVERS else None
    answered = await ask(http, asked.messages, model=model, max_tokens=_MAX_TOKENS, leaves_after=leaves_after)
    if leaves_after is not None and answered.status == 0:
        seen.num_left += 1
    else:
        seen.note(asked.name, list(asked.messages), answered)
    return answered


async def _watch(server: Server, until: float, seen: Seen) -> None:
    while time.monotonic() < until:
        seen.memory.append((time.monotonic(), server.resident_bytes))
        await asyncio.sleep(1)


async def _run(server: Server, *, model: str, clients: int, minutes: float) -> Seen:
    seen, until = Seen(), time.monotonic() + 60 * minutes
    limits = httpx.Limits(max_connections=clients + 4)
    async with httpx.AsyncClient(base_url=server.url, timeout=600, limits=limits) as http:
        await asyncio.gather(
            _watch(server, until, seen),
            *(_client(number, http, model, until, seen) for number in range(clients)),
        )
    return seen


def measure(model: str = "embedded", *, clients: int = 64, minutes: float = 10) -> list[Row]:
    """Return the rows of one soak."""
    options = [model, "--name", "soak", "--capacity", "64MiB", "--max-queue", str(2 * clients)]
    with served(options) as server:
        seen = asyncio.run(_run(server, model="soak", clients=clients, minutes=minutes))
    errors = [each for each in seen.answered if each.status != 200]
    reference = Reference(model, max_tokens=_MAX_TOKENS)
    wrong = [
        name for name, (messages, texts) in seen.answers.items() if texts != {reference.answer(messages)}
    ]
    start = seen.memory[0][0]
    settled = [size for at, size in seen.memory if at - start > 20 * minutes]
    thirds = np.array_split(np.array(settled), 3)
    growth = float(np.median(thirds[-1]) / np.median(thirds[0]))
    reused = sum(each.num_cached for each in seen.answered if each.status == 200)
    asked = sum(int(each.usage["prompt_tokens"]) for each in seen.answered if each.status == 200)
    return [
        Row(
            name=f"soak: {clients} clients, {minutes:g} min: answers; left; errors",
            measured=f"{len(seen.answered):,}; {seen.num_left:,}; {len(errors)}",
            target="0 errors",
            reached=not errors,
            numbers={"answers": len(seen.answered), "left": seen.num_left, "errors": len(errors)},
        ),
        Row(
            name="soak: different prompts answered; unlike the uncached answer",
            measured=f"{len(seen.answers)}; {len(wrong)}",
            target="0",
            reached=not wrong,
            numbers={"prompts": len(seen.answers), "wrong": len(wrong)},
        ),
        Row(
            name="soak: memory, last ninth of the time / first after warming up",
            measured=f"{growth:.3f} ({settled[-1] / 1e6:,.0f} MB)",
            target=f"{_GROWTH}",
            reached=growth <= _GROWTH,
            numbers={"growth": growth},
        ),
        Row(
            name="soak: prompt tokens resumed",
            measured=f"{reused / asked:.2f} of {asked:,}",
            target="-",
            reached=True,
            numbers={"reused": reused, "asked": asked},
        ),
    ]


if __name__ == "__main__":
    run_on_a_model(measure, description=__doc__, numbers={"minutes": 10.0, "clients": 64})
