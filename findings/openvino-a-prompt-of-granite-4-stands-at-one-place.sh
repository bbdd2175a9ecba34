#!/usr/bin/env bash
# openvino-genai 2026.4.1.0, openvino 2026.4.1, optimum-intel 2.2.0, transformers 5.5.4, torch 2.13.0 (CPU). Seen in
# November 2026.
#
# Granite 4.0 has one class for its hybrids and for its models of attention alone with rotary positions (Micro, 1B).
# One of the latter kind is exported by `optimum-cli`, and answers in OpenVINO GenAI's `LLMPipeline` with nothing but
# float32 asked for. It gives, token for token, what transformers gives when it is told that every token of the prompt
# stands at the place of the last: 99 for all of 100, then 100, 101 and so on. Cut into passes of 32 tokens, each pass
# has one place. Beside a prompt of 200 tokens it is the neighbour's place: 155 for the whole prompt, and the answer
# goes on at 199, for 156 tokens of the other were in the first pass, and all in the second. So an answer depends on
# who is beside it. With `ATTENTION_BACKEND="SDPA"` it is what transformers gives, and so it is by default for Granite 3
# and for Granite 4.0 without rotary positions, as its hybrids are.
#
# Why it surprises: all the words are there, only where they stand is lost, and nothing warns. The exported model
# counts positions from its cache, since it has no input for them, and paging replaces that cache. But LFM2's (exported
# with transformers 4.57.6) has no such input either, and is right.
#
# Seen (answers of 8 tokens: places in transformers that give the same answer, for a prompt of 100):
#   granite 3                             0-99, then 100, 101 ...
#   granite 4, no rotary positions        0-99, then 100, 101 ...
#   granite 4, SDPA                       0-99, then 100, 101 ...
#   granite 4                             99 for all, then 100, 101 ...
#   granite 4, passes of 32 tokens        31, 63, 95 and 99 for a pass each, then 100, 101 ...
#   granite 4, beside a prompt of 200     155 for all, then 199, 200 ...
#
# Exits 1 if the behaviour is another.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.5.4 \
    optimum==2.3.0 optimum-intel==2.2.0 nncf==3.4.0 openvino==2026.4.1 openvino-tokenizers==2026.4.1.0 \
    openvino-genai==2026.4.1.0
# optimum-intel asks for torchvision, which text does not need, and which breaks imports beside another build of torch.
"$work/venv/bin/pip" uninstall --quiet --yes torchvision
export PATH="$work/venv/bin:$PATH" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
"$work/venv/bin/python" - "$work" 2>/dev/null <<'PYTHON'
import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino
import openvino_genai as genai
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

WORK, ANSWER, PASS = Path(sys.argv[1]), 8, 32
EXACT = {"KV_CACHE_PRECISION": "f32", "INFERENCE_PRECISION_HINT": "f32"}
SIZES = {
    "vocab_size": 257, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4096, "bos_token_id": 256, "eos_token_id": 256,
    "pad_token_id": 256, "attention_multiplier": 0.25, "embedding_multiplier": 1.0, "logits_scaling": 1.0,
    "residual_multiplier": 1.0, "tie_word_embeddings": False,
}
MICRO = SIZES | {
    "layer_types": ["attention"] * 2, "shared_intermediate_size": 128, "num_local_experts": 0, "mamba_n_heads": 8,
    "num_experts_per_tok": 0, "mamba_d_head": 16, "mamba_d_state": 32, "mamba_n_groups": 1,
}
draw = torch.Generator().manual_seed(1)
PROMPTS = [torch.randint(0, 256, (count,), generator=draw).tolist() for count in (20, 50, 100)]
LONGER = torch.randint(0, 256, (200,), generator=draw).tolist()


def exported(name, family, **config):
    """Return a small model with random weights, and the folder of what the command line makes of it."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **config)).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=letters | {"<end>": 256}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(WORK / name)
    model.save_pretrained(WORK / name)
    command = ["optimum-cli", "export", "openvino", "--model", WORK / name, "--task", "text-generation-with-past"]
    subprocess.run([*command, "--weight-format", "fp32", WORK / f"{name}-ov"], check=True, capture_output=True)
    return model, str(WORK / f"{name}-ov")


def as_tensor(prompt):
    return openvino.Tensor(np.array([prompt], dtype=np.int64))


def asked():
    return genai.GenerationConfig(max_new_tokens=ANSWER, ignore_eos=True, apply_chat_template=False)


def pipeline_answers(folder, **options):
    pipeline = genai.LLMPipeline(folder, "CPU", **EXACT, **options)
    return [list(pipeline.generate(as_tensor(prompt), asked()).tokens[0]) for prompt in PROMPTS]


def batch_answers(folder, *beside, **limits):
    """Answers of the pipeline for batches, each prompt alone or beside those given."""
    scheduler = genai.SchedulerConfig()
    scheduler.cache_size, scheduler.enable_prefix_caching, scheduler.max_num_batched_tokens = 1, False, 256
    for name, limit in limits.items():
        setattr(scheduler, name, limit)
    pipeline = genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", EXACT)
    found = []
    for prompt in PROMPTS:
        requests = [as_tensor(each) for each in (prompt, *beside)]
        found.append(list(pipeline.generate(requests, [asked()] * len(requests))[0].m_generation_ids[0]))
    return found


@torch.no_grad()
def places_answers(model, places):
    """Answers of transformers when a prompt and its answer stand at these places; no cache."""
    found = []
    for prompt in PROMPTS:
        ids = list(prompt)
        for _ in range(ANSWER):
            at = torch.tensor([places(len(prompt), len(ids))])
            ids.append(model(torch.tensor([ids]), position_ids=at, use_cache=False).logits[0, -1].argmax().item())
        found.append(ids[len(prompt) :])
    return found


def beside_longer(count, end):
    """A pass takes 256 tokens, and its place is the last one that any of its requests has reached."""
    reached = min(len(LONGER), 256 - count)
    answer = len(LONGER) - 1 if reached < len(LONGER) else len(LONGER)
    return [max(count, reached) - 1] * count + list(range(answer, answer + end - count))


PLACES = {
    "0-99, then 100, 101 ...": lambda count, end: list(range(end)),
    "99 for all, then 100, 101 ...": lambda count, end: [count - 1] * count + list(range(count, end)),
    "31, 63, 95 and 99 for a pass each, then 100, 101 ...": lambda count, end: [
        min(at // PASS * PASS + PASS, count) - 1 for at in range(count)] + list(range(count, end)),
    "155 for all, then 199, 200 ...": beside_longer,
}
micro, folder = exported("micro", "granitemoehybrid", **MICRO, position_embedding_type="rope")
plain, plain_folder = exported("plain", "granitemoehybrid", **MICRO, position_embedding_type="nope")
third, third_folder = exported("third", "granite", **SIZES)
RIGHT, ONE, PASSES, NEIGHBOUR = PLACES
cases = {
    "granite 3": (third, pipeline_answers(third_folder), RIGHT),
    "granite 4, no rotary positions": (plain, pipeline_answers(plain_folder), RIGHT),
    "granite 4, SDPA": (micro, pipeline_answers(folder, ATTENTION_BACKEND="SDPA"), RIGHT),
    "granite 4": (micro, pipeline_answers(folder), ONE),
    "granite 4, passes of 32 tokens": (micro, batch_answers(folder, max_num_batched_tokens=PASS), PASSES),
    "granite 4, beside a prompt of 200": (micro, batch_answers(folder, LONGER), NEIGHBOUR),
}
as_seen = batch_answers(folder) == cases["granite 4"][1]
for name, (model, answers, expected) in cases.items():
    same = [label for label, places in PLACES.items() if answers == places_answers(model, places)]
    print(f"{name:37} {same[0] if same else 'none of these'}")
    # Without rotary positions no place matters, so every rule gives the one answer.
    as_seen &= same == (list(PLACES) if model is plain else [expected])
sys.exit(not as_seen)
PYTHON
