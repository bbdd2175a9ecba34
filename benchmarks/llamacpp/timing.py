"""What things take, in CPU seconds, as ratios of ways that take turns in one process."""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.printing import Row
from milepost.engines.engine import Engine
from milepost.placement import Balanced, NoCheckpoints

__all__ = ["measure_capture", "measure_decode", "measure_hit", "measure_prefill"]

_FIRST, _END = 300, 4_000
_NUM_TURNS, _NUM_HITS = 5, 15


def _prompt(random: np.random.Generator, number: int) -> np.ndarray:
    return random.integers(_FIRST, _END, number, dtype=np.int32)


def _cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _ratio(
    ways: Mapping[str, Callable[[int], float]], *, num_turns: int = _NUM_TURNS
) -> tuple[float, float, float]:
    """Return the median of the first way's time over the second's, turn by turn, and the quartiles."""
    first, second = ways
    ratios = []
    for turn in range(num_turns + 1):
        names = [first, second] if turn % 2 else [second, first]
        took = {name: ways[name](turn) for name in names}
        ratios.append(took[first] / took[second])
    low, middle, high = statistics.quantiles(ratios[1:], n=4)  # the first turn warms up
    return middle, low, high


def _row(name: str, ratio: tuple[float, float, float], *, target: float, at_least: bool = False) -> Row:
    middle, low, high = ratio
    return Row(
        name=name,
        measured=f"{middle:.3f} ({low:.3f} to {high:.3f})",
        target=f"{'>=' if at_least else '<='} {target:g}",
        reached=middle >= target if at_least else middle <= target,
        numbers={"ratio": middle, "low": low, "high": high},
    )


def measure_prefill(path: Path, name: str, *, num_tokens: int = 4_096) -> list[Row]:
    """The engine's cold prefill against ``Llama.eval`` of the same tokens."""
    import llama_cpp

    engine = Engine.open(path, capacity="64MiB", policy=NoCheckpoints())
    llama: Any = llama_cpp.Llama(
        str(path), n_ctx=num_tokens + 512, n_threads=1, n_threads_batch=1, verbose=False
    )

    def ours(turn: int) -> float:
        prompt = _prompt(np.random.default_rng(turn), num_tokens)
        return _cpu_seconds(lambda: engine.generate(prompt, max_new_tokens=1))

    def theirs(turn: int) -> float:
        prompt = _prompt(np.random.default_rng(turn), num_tokens).tolist()

        def work() -> None:
            llama.reset()
            llama._ctx.kv_cache_clear()
            llama.eval(prompt)

        return _cpu_seconds(work)

    ratio = _ratio({"ours": ours, "theirs": theirs})
    return [
        _row(f"llama.cpp strict: prefill of {num_tokens:,} / llama.cpp's own ({name})", ratio, target=1.03)
    ]


def measure_capture(path: Path, name: str, *, num_tokens: int = 8_192) -> list[Row]:
    """Eight states captured and stored, with all KV, against none."""
    plain = Engine.open(path, capacity="1GiB", policy=NoCheckpoints())
    captured = plain.sibling(capacity="1GiB", policy=Balanced(count=8))

    def through(engine: Engine) -> Callable[[int], float]:
        # A prompt of its own every time: nothing may be reused here.
        return lambda turn: _cpu_seconds(
            lambda: engine.generate(_prompt(np.random.default_rng(100 + turn), num_tokens), max_new_tokens=1)
        )

    ratio = _ratio({"captured": through(captured), "plain": through(plain)}, num_turns=4)
    return [_row(f"llama.cpp strict: 8 states in {num_tokens:,} tokens / none ({name})", ratio, target=1.02)]


def measure_hit(path: Path, name: str, *, num_shared: int = 6_144, num_new: int = 128) -> list[Row]:
    """The first token of a hit against evaluating its missing suffix alone, behind what lies there already.

    Once where the last prompt had the same document, and once where its state and KV have to be copied in.
    """
    rows = []
    for case, num_documents in (("still in place", 1), ("copied in", 4)):
        engine = Engine.open(path, capacity="2GiB")
        documents = [_prompt(np.random.default_rng(number), num_shared) for number in range(num_documents)]
        for document in documents * 2:
            # Twice: a state where two prompts part is worth keeping.
            _ask(engine, document, _prompt(np.random.default_rng(), num_new))
        suffix = _Suffix(engine, documents[0])
        ratios, missing = [], 0
        for turn in range(_NUM_HITS + 1):
            prompt = _prompt(np.random.default_rng(1_000 + turn), num_new)
            started = time.process_time()
            hit = _ask(engine, documents[turn % num_documents], prompt)
            took = time.process_time() - started
            missing = num_shared + num_new - hit.report.reused
            ratios.append(took / suffix.seconds(missing))
        low, middle, high = statistics.quantiles(ratios[1:], n=4)
        label = f"llama.cpp strict: a hit's first token / its {missing} missing tokens, {case} ({name})"
        rows.append(_row(label, (middle, low, high), target=1.1))
    return rows


class _Suffix:
    """Evaluates tokens behind a prompt that lies there already."""

    def __init__(self, engine: Engine, prompt: np.ndarray) -> None:
        self._driver: Any = engine.driver
        self._num_tokens = len(prompt)
        live = self._driver.start(num_tokens=len(prompt))
        self._driver.advance(live, torch.from_numpy(prompt).long())
        self._state, self._kv = self._driver.capture(live), [self._driver.kv(live, 0, len(prompt))]
        live.forget()
        self._driver.close(live)
        engine.driver.release()

    def seconds(self, number: int) -> float:
        """Return what ``number`` tokens behind it take."""
        live = self._driver.restore(
            self._state, self._kv, position=self._num_tokens, num_tokens=self._num_tokens + number
        )
        tokens = torch.from_numpy(_prompt(np.random.default_rng(), number)).long()
        took = _cpu_seconds(lambda: self._driver.advance(live, tokens))
        # It leaves nothing that a hit would find, and no room that one would take.
        live.forget()
        live.context.close()
        return took


def _ask(engine: Engine, document: np.ndarray, question: np.ndarray) -> Any:
    return engine.generate(np.concatenate((document, question)), max_new_tokens=1)


def measure_decode(path: Path, name: str, *, num_requests: int = 8, num_new: int = 64) -> list[Row]:
    """Tokens a second of eight answers together, over those of one by one, in fast numerics."""
    engine = Engine.open(path, capacity="256MiB", numerics="fast", policy=NoCheckpoints())
    alone = Engine.open(path, capacity="256MiB", numerics="fast", policy=NoCheckpoints(), decode_rows=1)

    def answering(engine: Engine) -> Callable[[int], float]:
        def work(turn: int) -> float:
            random = np.random.default_rng(turn)
            prompts = [_prompt(random, 16) for _ in range(num_requests)]
            options: Any = {"max_new_tokens": num_new, "temperature": 0, "ignore_end_token": True}
            return _cpu_seconds(lambda: engine.generate_many(prompts, **options))

        return work

    ratio = _ratio({"alone": answering(alone), "together": answering(engine)})
    label = f"llama.cpp fast: {num_requests} answers together / one by one, tokens a second ({name})"
    return [_row(label, ratio, target=3.0, at_least=True)]
