"""lm-evaluation-harness with Milepost as its model, beside its own ``hf`` model: tokens, time, answers.

    python -m benchmarks.engines.scoring [--text FOLDER] [--documents N] [--turns N] [--json]

A small hybrid (hidden size 256, 4 layers, random weights, fp32) scores four options of each question, five
questions a document of about 8,100 tokens, and questions after five fixed examples, as texts and as letters.
The documents are drawn on the fly; with ``--text`` they are those of FOLDER/squality_text.jsonl.zst, with
their own questions. The two models take turns on the same requests; each turn of ours begins with an empty
cache. Tokens are those that go through the model, and times include the tokenizer's; loading is left out.
One thread. Targets: 0.07 of the tokens and 0.12 of the time for documents with options as texts; the time
is the process's on the CPU, since the clock's hangs on who else is at work.
"""

import argparse
import logging
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from benchmarks.printing import Row, print_rows
from milepost.demo.documents import Document, read_documents
from milepost.engines.engine import Engine
from milepost.lm_eval import MilepostLM

_DOCUMENT_WORDS, _OPTION_WORDS, _QUESTIONS = 6_200, 22, 5
_SHOTS, _SHOT_QUESTIONS = 5, 20
_LETTERS = (" A", " B", " C", " D")
_VOCABULARY = 4_096
_TOKENS_TARGET, _TIME_TARGET = 0.07, 0.12
# The largest difference of two scores in units of their size that is rounding in fp32.
_ROUNDING = 1e-5

Pairs = list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """Requests of one kind.

    Attributes:
        name: What they are.
        pairs: Contexts and continuations, four a question.
        segment_tokens: Where ours keeps states.
        has_target: Whether it is the one that the targets are for.
    """

    name: str
    pairs: Pairs
    segment_tokens: int
    has_target: bool = False


def measure(text: Path | None = None, *, num_documents: int = 2, num_turns: int = 2) -> list[Row]:
    """Return three rows for each task: tokens, CPU and clock time, ours over the harness's."""
    torch.set_num_threads(1)
    source = random.Random(0)
    if text is None:
        documents = [_drawn_document(source) for _ in range(num_documents)]
    else:
        documents = read_documents(text / "squality_text.jsonl.zst", max_documents=num_documents)
    tokenizer, model = _tokenizer(documents), _model()
    opened = {
        segment: Engine.open(model, tokenizer=tokenizer, segment_tokens=segment, capacity="2GiB", audit=0)
        for segment in (64, 256)
    }
    rows: list[Row] = []
    for task in _tasks(documents, source):
        rows += _measured(task, model, tokenizer, opened[task.segment_tokens], num_turns=num_turns)
    return rows


def _measured(
    task: _Task,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    engine: Engine,
    *,
    num_turns: int,
) -> list[Row]:
    requests = [SimpleNamespace(args=pair, task_name=task.name) for pair in task.pairs]
    runs: dict[str, list[tuple[int, float, float, list[tuple[float, bool]]]]] = {"hf": [], "ours": []}
    for turn in range(num_turns):
        for name in ("hf", "ours") if turn % 2 == 0 else ("ours", "hf"):
            if name == "hf":
                scorer = HFLM(model, tokenizer=tokenizer, softmax_dtype="float32", batch_size=1)
            else:
                scorer = MilepostLM(engine.sibling(capacity="2GiB", policy="learned"))
            runs[name].append(_run(scorer, model, requests))
    ratios = [
        [mine[column] / its[column] for mine, its in zip(runs["ours"], runs["hf"], strict=True)]
        for column in range(3)
    ]
    tokens, wall, cpu = (statistics.median(each) for each in ratios)
    mine, its = runs["ours"][0][3], runs["hf"][0][3]
    difference = max(abs(a - b) / abs(b) for (a, _), (b, _) in zip(mine, its, strict=True))
    is_same = _answers(mine) == _answers(its) and difference < _ROUNDING
    numbers = {
        "requests": len(requests),
        "hf_tokens": runs["hf"][0][0],
        "tokens": runs["ours"][0][0],
        "hf_wall_seconds": statistics.median(run[1] for run in runs["hf"]),
        "wall_seconds": statistics.median(run[1] for run in runs["ours"]),
        "largest_relative_difference": difference,
    }
    answers = "same answers" if is_same else "OTHER ANSWERS"

    def row(what: str, ratio: float, target: float | None) -> Row:
        has_target = task.has_target and target is not None
        return Row(
            name=f"lm-eval, {task.name}: {what} / hf",
            measured=f"{ratio:.3f}, {answers}",
            target=f"<= {target}" if has_target else "reported",
            reached=is_same and (target is None or not has_target or ratio <= target),
            numbers={"ratio": ratio, **numbers},
        )

    return [
        row("tokens", tokens, _TOKENS_TARGET),
        row("CPU time", cpu, _TIME_TARGET),
        row("wall time", wall, None),
    ]


def _run(
    scorer: HFLM | MilepostLM, model: PreTrainedModel, requests: Sequence[SimpleNamespace]
) -> tuple[int, float, float, list[tuple[float, bool]]]:
    """Return the tokens that went through the model, seconds by the clock and of the CPU, and the scores."""
    seen = []

    def count(_: torch.nn.Module, ids: tuple[torch.Tensor, ...], given: dict[str, torch.Tensor]) -> None:
        seen.append((ids[0] if ids else given["input_ids"]).numel())

    hook = model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        wall, cpu = time.perf_counter(), time.process_time()
        scores = scorer.loglikelihood(requests, disable_tqdm=True)
        return sum(seen), time.perf_counter() - wall, time.process_time() - cpu, scores
    finally:
        hook.remove()


def _answers(scores: Sequence[tuple[float, bool]]) -> list[tuple[int, bool]]:
    """Return the likeliest option of each question, and what is greedy."""
    chosen = [max(range(4), key=lambda place: scores[first + place][0]) for first in range(0, len(scores), 4)]
    return [(chosen[index // 4], greedy) for index, (_, greedy) in enumerate(scores)]


def _tasks(documents: Sequence[Document], source: random.Random) -> list[_Task]:
    texts, letters = [], []
    for document in documents:
        for question in (document.questions * _QUESTIONS)[:_QUESTIONS]:
            options = _options(document, source)
            bare = f"{document.text}\n\nQuestion: {question}\nAnswer:"
            listed = "\n".join(
                f"{letter.strip()}. {each}" for letter, each in zip(_LETTERS, options, strict=True)
            )
            texts += [(bare, f" {each}") for each in options]
            letters += [
                (f"{document.text}\n\nQuestion: {question}\n{listed}\nAnswer:", each) for each in _LETTERS
            ]
    shots = []
    for _ in range(_SHOTS):
        options = _options(documents[0], source)
        listed = "\n".join(
            f"{letter.strip()}. {each}" for letter, each in zip(_LETTERS, options, strict=True)
        )
        shots.append(f"Question: {_options(documents[0], source)[0]}?\n{listed}\nAnswer:{_LETTERS[0]}\n\n")
    examples, shot_letters, shot_texts = "".join(shots), [], []
    for _ in range(_SHOT_QUESTIONS):
        question, *options = (*_options(documents[-1], source), *_options(documents[-1], source)[:1])
        bare = f"{examples}Question: {question}?\nAnswer:"
        listed = "\n".join(
            f"{letter.strip()}. {each}" for letter, each in zip(_LETTERS, options, strict=True)
        )
        shot_texts += [(bare, f" {each}") for each in options]
        shot_letters += [(f"{examples}Question: {question}?\n{listed}\nAnswer:", each) for each in _LETTERS]
    return [
        _Task(name="documents, options as texts", pairs=texts, segment_tokens=256, has_target=True),
        _Task(name="documents, letters", pairs=letters, segment_tokens=256),
        _Task(name="5 fixed shots, options as texts", pairs=shot_texts, segment_tokens=64),
        _Task(name="5 fixed shots, letters", pairs=shot_letters, segment_tokens=64),
    ]


def _options(document: Document, source: random.Random) -> list[str]:
    """Return four stretches of a document, about as long as an answer."""
    words = document.text.split()
    starts = [source.randrange(len(words) - _OPTION_WORDS) for _ in range(4)]
    return [" ".join(words[start : start + _OPTION_WORDS]) for start in starts]


def _drawn_document(source: random.Random) -> Document:
    """Return a text of made-up words, a few of which make up most of it, as in any language."""
    syllables = [first + second for first in "bdfgklmnprst" for second in "aeiou"]
    words = ["".join(source.choices(syllables, k=source.randint(1, 3))) for _ in range(2_000)]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    text = " ".join(source.choices(words, weights, k=_DOCUMENT_WORDS))
    questions = tuple(" ".join(source.choices(words, weights, k=12)) + "?" for _ in range(_QUESTIONS))
    return Document("drawn", text, questions)


def _tokenizer(documents: Sequence[Document]) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer that was trained on the documents."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator((document.text for document in documents), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def _model() -> PreTrainedModel:
    config = AutoConfig.for_model(
        "qwen3_5_text",
        vocab_size=_VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        layer_types=["linear_attention"] * 3 + ["full_attention"],
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=64,
        linear_value_head_dim=64,
        max_position_embeddings=32_768,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", type=Path, metavar="FOLDER", help="with squality_text.jsonl.zst in it")
    parser.add_argument("--documents", type=int, default=2, metavar="N")
    parser.add_argument("--turns", type=int, default=2, metavar="N")
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    arguments = parser.parse_args()
    for name in ("transformers", "lm_eval", "tqdm"):
        logging.getLogger(name).setLevel(logging.ERROR)
    rows = measure(arguments.text, num_documents=arguments.documents, num_turns=arguments.turns)
    print_rows(rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
