"""Train the embedded model: ``python -m training FOLDER``, or go on from one with ``--resume``.

Reads the documentation and the sources of the Python that runs it, all but the part that is held out, and
questions about them. Repeatable on one machine, with one version of Python and of the libraries: another
Python has other sources, another processor rounds otherwise. At every milestone the model in FOLDER is
replaced by the better trained one. ``python -m training.measure FOLDER`` says how good it is.
"""

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3_5ForCausalLM

from milepost.embedded.questions import annotate
from training.architecture import new_model
from training.corpus import Corpus
from training.loop import Plan, Progress, train
from training.quick_layers import quick_layers
from training.sequences import SequenceMaker
from training.vocabulary import END, learn_tokenizer
from training.writing import write_model

_SEED = 20_261_128
_PRINT_EVERY = 10


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, print a line now and then, and write the model and how it went (``progress.jsonl``)."""
    options = _parser().parse_args(arguments)
    # A thread waits longer for the other than it computes, in matrices as small as these.
    torch.set_num_threads(1)
    corpus = Corpus(held_out=False)
    model, tokenizer = _begin(options, corpus)
    print(f"{model.num_parameters():,} parameters", flush=True)
    plan = Plan(
        num_steps=options.steps,
        decay_steps=options.decay_steps,
        first_length=options.first_length,
        longest=options.longest,
        learning_rate=options.learning_rate,
        seed=options.seed,
    )
    learned = SequenceMaker(corpus, tokenizer, seed=options.seed)
    held_out = SequenceMaker(Corpus(held_out=True), tokenizer, seed=options.seed)
    options.folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with quick_layers(), (options.folder / "progress.jsonl").open("w") as log:
        for progress in train(model, learned, held_out, plan):
            if progress.accuracy is not None:
                write_model(model, tokenizer, options.folder)
            if progress.accuracy is not None or progress.step % _PRINT_EVERY == 0:
                log.write(json.dumps(asdict(progress)) + "\n")
                log.flush()
                print(f"{time.monotonic() - began:6.0f} s  {_line(progress)}", flush=True)
    write_model(model, tokenizer, options.folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", type=Path, help="where the model goes; one that is there is replaced")
    add("--resume", type=Path, metavar="FOLDER", help="go on from this model, with new optimizers")
    add("--steps", type=int, default=5_000, help="4,096 tokens each, a second or two (default: 5,000)")
    add("--decay-steps", type=int, default=1_000, help="over which the rate falls to 0 (default: 1,000)")
    add("--first-length", type=int, default=256, help="of sequences; it doubles when mastered (default: 256)")
    add("--longest", type=int, default=256, help="sequences to begin with (default: 256)")
    add("--learning-rate", type=float, default=4e-3, help="default: 0.004")
    add("--seed", type=int, default=_SEED, help=f"of weights and of what is read (default: {_SEED})")
    return parser


def _begin(options: argparse.Namespace, corpus: Corpus) -> tuple[Qwen3_5ForCausalLM, PreTrainedTokenizerFast]:
    if options.resume is not None:
        tokenizer = AutoTokenizer.from_pretrained(options.resume)
        return Qwen3_5ForCausalLM.from_pretrained(options.resume, dtype="float32").train(), tokenizer
    rng = random.Random(options.seed)
    texts = [corpus.window(4_000, rng=rng) for _ in range(600)]
    texts += [annotate("", rng=rng, num_values=20, num_changes=200).text for _ in range(20)]
    tokenizer = learn_tokenizer(texts)
    end = tokenizer.convert_tokens_to_ids(END)
    return new_model(vocab_size=len(tokenizer), end_token=end, seed=options.seed).train(), tokenizer


def _line(progress: Progress) -> str:
    accuracy = progress.accuracy or {}
    return (
        f"step {progress.step:5,}  {progress.num_tokens / 1e6:6.2f} M tokens  length {progress.length:5,}  "
        f"text {progress.text_loss:.3f}  answers {progress.answer_loss:.3f}  hint {progress.hint_loss:.2f}  "
        + ("" if progress.lost_loss is None else f"lost {progress.lost_loss:.3f}  ")
        + "  ".join(f"{kind} {share:.2f}" for kind, share in accuracy.items())
    ).rstrip()


if __name__ == "__main__":
    main()
