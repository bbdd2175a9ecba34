"""What ``milepost recommend`` prints for vLLM, read by vLLM's own parser."""

import shlex
from importlib import import_module
from importlib.util import find_spec

import pytest
from vllm.utils.argparse_utils import FlexibleArgumentParser

from milepost.recommend import recommend
from milepost.simulator import nominal_footprint
from milepost.traces import open_trace

# Newest first: since 0.33, in 0.32, and before.
HOMES = [f"vllm.entrypoints.{package}" for package in ("common", "launchers", "openai")]

TRACES = {
    "no flags but the first": "synthetic:chat,requests=40,seed=2",
    "an interval": "synthetic:uniform,requests=60,seed=2",
    "a match unit": "synthetic:system-prompts,requests=60,seed=1,systems=4,system=400",
}


@pytest.fixture(scope="module")
def parser() -> FlexibleArgumentParser:
    home = next(each for each in HOMES if find_spec(f"{each}.cli_args"))
    return import_module(f"{home}.cli_args").make_arg_parser(FlexibleArgumentParser())


@pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)
@pytest.mark.parametrize("engine", ["milepost-vllm", "vllm"])
def test_vllm_knows_every_flag_and_reads_the_values_that_were_meant(parser, trace: str, engine: str):
    advice = recommend(
        open_trace(trace),
        footprint=nominal_footprint(1536),
        capacity_kv_tokens=400_000,
        model="my model",
        memory_bytes=8 << 30,
        engines=[engine],
    )
    (each,) = advice.engines
    (command,) = each.instructions.commands
    program, serve, model, *flags = shlex.split(command)
    assert (program, serve, model) == ("vllm", "serve", "my model")
    parsed = parser.parse_args(flags)
    for flag, value in each.settings.items():
        assert getattr(parsed, flag.lstrip("-").replace("-", "_")) == value
    assert parsed.enable_prefix_caching is True
    assert parsed.kv_cache_memory_bytes == 8 << 30
    with pytest.raises(SystemExit):
        parser.parse_args([*flags, "--no-such-flag", "1"])
