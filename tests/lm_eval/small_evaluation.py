"""A tiny model with a tokenizer of bytes, requests as the harness makes them, and a task in a folder."""

import json
from types import SimpleNamespace

import torch
from transformers import AutoModelForCausalLM

from chat_tokenizer import chat_tokenizer
from families import tiny_config

CONTEXT_LENGTH = 640


def byte_model(family="qwen3_5", **options):
    """Return the tiny model of ``family`` with a vocabulary for the tokenizer of bytes."""
    config = tiny_config(family)
    special = {"bos_token_id": 258, "eos_token_id": 257, "pad_token_id": 257}
    config.update({"vocab_size": 264, "max_position_embeddings": CONTEXT_LENGTH} | special | options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


def save(model, folder):
    model.save_pretrained(folder)
    chat_tokenizer().save_pretrained(folder)
    return folder


def instances(*arguments):
    """Return requests of the harness; it reads no more of them than this."""
    return [SimpleNamespace(args=each, task_name="t") for each in arguments]


DOCUMENTS = [
    "The ferry leaves at nine, and the keeper of the light counts those who board it. " * 3,
    "Nobody had seen the orchard since the war; its walls were lower than they remembered. " * 3,
]
QUESTIONS = ["Who counts?", "What is lower?", "When does it leave?"]
OPTIONS = [" the keeper of the light", " nine", " the walls", " nobody"]


def scored_pairs(options=OPTIONS):
    contexts = [f"{text}\nQuestion: {asked}\nAnswer:" for text in DOCUMENTS for asked in QUESTIONS]
    return [(context, option) for context in contexts for option in options]


def write_task(folder, *, chat=False):
    """Write a task of multiple choices over the documents, and its data, into ``folder``."""
    data = folder / "asked.jsonl"
    rows = [
        {"document": text, "question": asked, "options": OPTIONS, "answer": number % 4}
        for text in DOCUMENTS
        for number, asked in enumerate(QUESTIONS)
    ]
    data.write_text("\n".join(map(json.dumps, rows)))
    (folder / "asked.yaml").write_text(
        f"""task: asked
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{document}}}}\\nQuestion: {{{{question}}}}\\nAnswer:"
doc_to_choice: options
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1}}
"""
    )
    return folder
