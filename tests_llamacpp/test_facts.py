"""What the bits of a model hang on is told in the same words by the next process, and any change shows."""

import subprocess
import sys
from dataclasses import replace

import pytest

from milepost.engines.llamacpp.facts import model_facts
from milepost.engines.llamacpp.kv_types import KVTypes

NAME = "qwen35"

NEXT_PROCESS = """
import sys, json
from pathlib import Path
from milepost.engines.llamacpp.facts import model_facts
from milepost.engines.llamacpp.opening import open_driver
driver, _ = open_driver(Path(sys.argv[1]), is_strict=True, key_type="f16")
print(model_facts(driver, numerics="strict", segment_tokens=256).identity)
driver.release()
"""


def facts_of(driver, *, numerics="strict", segment_tokens=256):
    return model_facts(driver, numerics=numerics, segment_tokens=segment_tokens)


def test_the_next_process_finds_the_same_facts(open_driver, gguf):
    here = facts_of(open_driver(NAME)).identity
    done = subprocess.run(
        [sys.executable, "-c", NEXT_PROCESS, str(gguf(NAME))], capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == here


def test_other_weights_keys_and_ways_to_compute_are_other_facts(open_driver):
    found = [
        facts_of(open_driver(NAME)),
        facts_of(open_driver(NAME, seed=1)),
        facts_of(open_driver(NAME, "f16")),
        facts_of(open_driver(NAME, key_type="f32")),
        facts_of(open_driver(NAME), numerics="fast"),
        facts_of(open_driver(NAME), segment_tokens=512),
    ]
    assert len({each.digest for each in found}) == len(found)


@pytest.mark.parametrize(
    "change", [{"num_threads": 2}, {"kv_types": KVTypes(keys="q8_0")}, {"kv_types": KVTypes(values="q8_0")}]
)
def test_an_option_of_the_context_is_a_fact(open_driver, change):
    driver = open_driver(NAME)
    before = facts_of(driver).digest
    driver.options = replace(driver.options, **change)
    assert facts_of(driver).digest != before


def test_where_a_prompt_may_be_cut_is_a_fact(open_driver):
    driver = open_driver(NAME)
    before = facts_of(driver).digest
    driver.cuts = replace(driver.cuts, least=driver.cuts.least + 1)
    assert facts_of(driver).digest != before


def test_one_changed_byte_is_another_model(open_driver, gguf, tmp_path):
    driver = open_driver(NAME)
    before = facts_of(driver).digest
    copy = tmp_path / gguf(NAME).name
    whole = bytearray(gguf(NAME).read_bytes())
    whole[-1] ^= 1
    copy.write_bytes(whole)
    driver.model.path = copy
    assert facts_of(driver).digest != before
    copy.write_bytes(gguf(NAME).read_bytes())
    assert facts_of(driver).digest == before
