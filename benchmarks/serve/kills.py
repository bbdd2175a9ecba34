"""A server that is killed again and again, at random moments under load, and starts from what is on the disk.

    python -m benchmarks.serve.kills [--model FOLDER] [--kills 200] [--json]

After each kill the server is started on the same folder and asked again what had been answered since the
start before it. Each answer must be that of an engine without a cache; of the prefixes that were stored then,
95 of a hundred must be found. The server is forked from this process, which has loaded all modules, so that
a start takes a second. Stops by itself.
"""

import asyncio
import os
import random
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from rich.console import Console

from benchmarks.printing import Row
from benchmarks.serve.client import Answered, ask
from benchmarks.serve.command import run_on_a_model
from benchmarks.serve.reference import Reference
from benchmarks.serve.traffic import Asked, document_questions
from milepost.embedded import resolve_model
from milepost.engines.engine import Engine
from milepost.server.listening import bind
from milepost.server.serving import serve
from milepost.server.settings import ServeSettings

_MAX_TOKENS = 4
_CLIENTS = 4
# A kill comes after some answers and a moment more.
_MOST_ANSWERS, _MOST_SECONDS_MORE, _LONGEST_SECONDS = 12, 0.2, 30
_FOUND_TARGET = 0.95
_DOCUMENTS, _QUESTIONS, _CHARACTERS = 12, 20, 3_000


@dataclass
class Tally:
    """What was seen over all kills."""

    num_kills: int = 0
    num_answers: int = 0
    num_committed: int = 0
    num_found: int = 0
    wrong: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Forked:
    """A server in a child of this process."""

    def __init__(self, model: str, folder: Path) -> None:
        settings = ServeSettings.checked(model_name="m", port=0)
        listener = bind(settings)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._pid = os.fork()
        if self._pid == 0:
            self._serve(model, folder, settings, listener)
        listener.close()

    @staticmethod
    def _serve(model: str, folder: Path, settings: ServeSettings, listener: object) -> None:
        code = 1
        try:
            engine = Engine.open(
                resolve_model(model), capacity="48MiB", cache_dir=folder, disk_capacity="4GiB"
            )
            serve(engine, settings, listener=listener)  # type: ignore[arg-type]
            code = 0
        finally:
            os._exit(code)

    async def wait(self, http: httpx.AsyncClient) -> None:
        """Return once it serves."""
        while True:
            if os.waitpid(self._pid, os.WNOHANG)[0]:
                raise RuntimeError("the server ended as it was started")
            try:
                if (await http.get(f"{self.url}/health")).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.02)

    def kill(self) -> None:
        """End it as a power cut does."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


async def _round(
    server: Forked,
    before: dict[str, tuple[Asked, int]],
    rng: random.Random,
    reference: Reference,
    tally: Tally,
) -> dict[str, tuple[Asked, int]]:
    """Ask again what was answered before; then ask under load until the kill. Return what was answered."""
    questions = document_questions(num_documents=_DOCUMENTS, num_questions=_QUESTIONS, characters=_CHARACTERS)
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        await server.wait(http)
        for asked, reach in before.values():
            again = await ask(http, asked.messages, model="m", max_tokens=_MAX_TOKENS)
            _check(asked, again, reference, tally)
            tally.num_committed += 1
            tally.num_found += again.num_cached >= reach
        answered: dict[str, tuple[Asked, int]] = {}

        async def client() -> None:
            while True:
                asked = rng.choice(rng.choice(questions))
                answer = await ask(http, asked.messages, model="m", max_tokens=_MAX_TOKENS)
                _check(asked, answer, reference, tally)
                details = answer.usage["prompt_tokens_details"]
                reach = details["cached_tokens"] + details["cache_write_tokens"]
                if details["cache_write_tokens"]:
                    answered[asked.name] = (asked, reach)

        clients = [asyncio.create_task(client()) for _ in range(_CLIENTS)]
        num_wanted = tally.num_answers + rng.randrange(_MOST_ANSWERS)
        until = time.monotonic() + _LONGEST_SECONDS
        while tally.num_answers < num_wanted and time.monotonic() < until:
            await asyncio.sleep(0.005)
        await asyncio.sleep(rng.uniform(0, _MOST_SECONDS_MORE))
        server.kill()
        tally.num_kills += 1
        for each in clients:
            each.cancel()
        for outcome in await asyncio.gather(*clients, return_exceptions=True):
            if isinstance(outcome, Exception) and not isinstance(outcome, httpx.TransportError):
                tally.errors.append(repr(outcome))
    return answered


def _check(asked: Asked, answer: Answered, reference: Reference, tally: Tally) -> None:
    tally.num_answers += 1
    if answer.status != httpx.codes.OK:
        tally.errors.append(f"{answer.status} {answer.error}")
    elif answer.text != reference.answer(asked.messages):
        tally.wrong.append(asked.name)


def measure(model: str = "embedded", *, kills: int = 200) -> list[Row]:
    """Return the rows of many kills."""
    rng, tally = random.Random(0), Tally()
    reference = Reference(model, max_tokens=_MAX_TOKENS)
    console = Console(stderr=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        before: dict[str, tuple[Asked, int]] = {}
        for number in range(kills):
            server = Forked(model, Path(folder))
            before = asyncio.run(_round(server, before, rng, reference, tally))
            if number % 10 == 9:
                seconds = time.monotonic() - started
                console.print(
                    f"{number + 1} kills in {seconds:.0f} s: {tally.num_answers} answers, {len(tally.wrong)} "
                    f"wrong, {tally.num_found} of {tally.num_committed} prefixes found"
                )
    share = tally.num_found / max(1, tally.num_committed)
    return [
        Row(
            name=f"{tally.num_kills} kills under load: answers; wrong; errors",
            measured=f"{tally.num_answers:,}; {len(tally.wrong)}; {len(tally.errors)}",
            target="0; 0",
            reached=not tally.wrong and not tally.errors,
            numbers={"answers": tally.num_answers, "wrong": len(tally.wrong), "errors": len(tally.errors)},
        ),
        Row(
            name="prefixes stored before a kill that are found after it",
            measured=f"{share:.3f} ({tally.num_found} of {tally.num_committed})",
            target=f"{_FOUND_TARGET}",
            reached=share >= _FOUND_TARGET,
            numbers={"share": share},
        ),
    ]


if __name__ == "__main__":
    run_on_a_model(measure, description=__doc__, numbers={"kills": 200})
