#!/usr/bin/env bash
# aiperf 0.13.0. Seen in November 2026.
#
# AIPerf can scale a trace of prompts before it replays it: with `--synthesis-prefix-len-multiplier 1.5` the prefixes
# that prompts share are to be half as long again. Prompts do become as long as that, but what a multiplier adds beyond
# a whole number are new blocks for every request, which nobody shares. So at 1.9 prompts are as long as at 2.0, with
# half of the tokens that a cache could give; from 1.0 to 1.9 the share that a cache could give falls steadily.
#
# Why it surprises: the tutorial takes 1.1 where hits are to rise a little, and it lowers them. A sweep over prefix
# lengths, made to show what a prefix cache is worth, goes down where it should go up, and doubles between 1.9 and 2.
#
# Seen (100 requests of 4,096 shared tokens and 1,024 of their own; tokens per request, and AIPerf's own hit rate):
#   times 0.5: prompt  3072, found in earlier prompts  2028, hit rate 0.66
#   times 1.0: prompt  5120, found in earlier prompts  4055, hit rate 0.79
#   times 1.1: prompt  5632, found in earlier prompts  4055, hit rate 0.72
#   times 1.5: prompt  7168, found in earlier prompts  4055, hit rate 0.57
#   times 1.9: prompt  9216, found in earlier prompts  4055, hit rate 0.44
#   times 2.0: prompt  9216, found in earlier prompts  8110, hit rate 0.88
#   times 2.9: prompt 13312, found in earlier prompts  8110, hit rate 0.61
#   times 3.0: prompt 13312, found in earlier prompts 12165, hit rate 0.91
#
# Exits 1 if the behaviour is another.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check aiperf==0.13.0
"$work/venv/bin/python" - 2>/dev/null <<'PYTHON'
import math
import sys

from aiperf.common import random_generator
from aiperf.dataset.synthesis import PrefixAnalyzer, SynthesisParams, Synthesizer

BLOCK, SHARED_BLOCKS, OWN_BLOCKS, REQUESTS = 512, 8, 2, 100
random_generator.init(0)


def trace():
    """A system prompt that all requests share, and a question of each, in the format of Mooncake's traces."""
    shared, length = list(range(SHARED_BLOCKS)), (SHARED_BLOCKS + OWN_BLOCKS) * BLOCK
    for request in range(REQUESTS):
        start = 1000 + request * OWN_BLOCKS
        own = list(range(start, start + OWN_BLOCKS))
        yield {"timestamp": request * 1000, "input_length": length, "output_length": 100, "hash_ids": shared + own}


def found_in_earlier(requests):
    """Tokens at the beginnings of prompts that a cache without limit would have, per request."""
    known, found = set(), 0
    for request in requests:
        ids = request["hash_ids"]
        found += BLOCK * next((count for count, block in enumerate(ids) if block not in known), len(ids))
        known.update(ids)
    return found / REQUESTS


as_seen = True
for multiplier in (0.5, 1.0, 1.1, 1.5, 1.9, 2.0, 2.9, 3.0):
    options = SynthesisParams(prefix_len_multiplier=multiplier, block_size=BLOCK)
    scaled = Synthesizer(options).synthesize_traces(list(trace()))
    prompt = sum(request["input_length"] for request in scaled) / REQUESTS
    found, rate = found_in_earlier(scaled), PrefixAnalyzer(BLOCK).analyze_traces(scaled).cache_hit_rate
    print(f"times {multiplier}: prompt {prompt:5.0f}, found in earlier prompts {found:5.0f}, hit rate {rate:.2f}")
    as_told = math.ceil(SHARED_BLOCKS * multiplier) * BLOCK
    shared = SHARED_BLOCKS * BLOCK * (multiplier if multiplier < 1 else math.floor(multiplier))
    as_seen &= prompt == as_told + OWN_BLOCKS * BLOCK and found == shared * (REQUESTS - 1) / REQUESTS
sys.exit(not as_seen)
PYTHON
