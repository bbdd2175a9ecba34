"""The vocabulary of the command line: what several commands ask for is declared here once, so that it has one
name, one notation and one meaning everywhere.

Nothing here or in a command's own module may import what help does not need: see ``tests/cli``.
"""

from importlib.util import find_spec
from typing import Annotated

import typer

from milepost.embedded import EMBEDDED
from milepost.hub import refuse_missing_path, uses_only_local_files

__all__ = [
    "DEFAULT_REPLAY_POLICIES",
    "ENGINE_NAMES",
    "ENGINE_OPTIONS",
    "After",
    "Calibrate",
    "Capacities",
    "CapacitiesKvTokens",
    "Capacity",
    "CapacityKvTokens",
    "CheckpointKvTokens",
    "ConfigArgument",
    "CostModel",
    "EngineCapacity",
    "EnginePolicy",
    "FrequencyPenalty",
    "Grid",
    "ImageTokens",
    "Json",
    "JsonLines",
    "KeyType",
    "Logprobs",
    "MaxNewTokens",
    "MaxRequests",
    "MinP",
    "ModelArgument",
    "Numerics",
    "Policies",
    "PresencePenalty",
    "RepetitionPenalty",
    "Seed",
    "SkipBadLines",
    "Stop",
    "Temperature",
    "Timing",
    "TokenizerName",
    "TopK",
    "TopP",
    "TraceArgument",
    "TracesArgument",
    "ValueType",
    "WholePrompts",
]

DEFAULT_REPLAY_POLICIES = ("learned", "vllm", "none")
# Those of milepost.recommend.ENGINES, whose import would cost a help text half a second.
ENGINE_NAMES = (
    "milepost-vllm",
    "milepost-sglang",
    "milepost",
    "vllm",
    "sglang",
    "tensorrt",
    "llamacpp",
    "mlx",
)

# Those that are the engine's of a command that opens one for itself, under the names that both use.
ENGINE_OPTIONS = ("capacity", "policy", "numerics", "key_type", "value_type")

_TRACE_HELP = (
    "JSON lines of block hashes (Mooncake, Bailian), token ids, request bodies (OpenAI, Anthropic, Google, "
    "vLLM, SGLang; alone, or as LiteLLM, Langfuse, Helicone, spans and batch files have them) or ShareGPT "
    "conversations, plain, .gz or .zst; '-' for standard input; or made-up traffic, such as "
    "synthetic:chat,requests=1000,seed=1. Models and adapters never share; see docs/logs.md."
)
_CAPACITY_KV_TOKENS = "Budget for states and KV together, in tokens of KV, such as 400000, 400k or 1M."
_CAPACITY = "The same in bytes, such as 40GiB; needs --model."
_EACH = " Once for each to compare."


def is_url(model: str) -> bool:
    """Return whether ``model`` is where a server listens."""
    return model.startswith(("http://", "https://"))


def refuse_missing(model: str | None) -> str | None:
    """Refuse a model that is nowhere before anything is loaded, which takes seconds."""
    if model is not None and model != EMBEDDED and not is_url(model):
        _refuse_missing(model, kind="model", file_name="config.json")
    return model


def _refuse_missing_tokenizer(tokenizer: str | None) -> str | None:
    if tokenizer is not None:
        _refuse_missing(tokenizer, kind="tokenizer", file_name="tokenizer_config.json")
    return tokenizer


def _refuse_missing(source: str, *, kind: str, file_name: str) -> None:
    refuse_missing_path(source, kind=kind)
    # Without the hub's client, opening it says what to install.
    if find_spec("huggingface_hub") is not None:
        uses_only_local_files(source, kind=kind, file_name=file_name)


# What comes out.
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
JsonLines = Annotated[
    bool, typer.Option("--json", help="Print a JSON object a line for each prompt instead of text.")
]

# A model, that runs or not, and how.
ConfigArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", callback=refuse_missing, help="Folder, hub id, or path of a config.json."
    ),
]
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        callback=refuse_missing,
        help="Folder or hub id of a causal LM, a GGUF file, or 'embedded' for the small one in the package.",
    ),
]
EngineCapacity = Annotated[
    str, typer.Option("--capacity", metavar="SIZE", help="Budget for states and KV together, such as 4GiB.")
]
EnginePolicy = Annotated[str, typer.Option("--policy", help="Placement policy; see `milepost policies`.")]
Numerics = Annotated[str, typer.Option(help="strict (bit for bit) or fast (to rounding).")]
KeyType = Annotated[
    str | None,
    typer.Option(
        metavar="FORMAT",
        help="Of a GGUF file: cached keys in f16, f32, q8_0, q5_1, q5_0, q4_1, q4_0 or iq4_nl (llama.cpp's "
        "--cache-type-k). Default: f16.",
    ),
]
ValueType = Annotated[
    str | None,
    typer.Option(metavar="FORMAT", help="The same of cached values (llama.cpp's --cache-type-v)."),
]
Calibrate = Annotated[
    bool,
    typer.Option("--calibrate", help="Load the model, measure prefills and give seconds too (slower)."),
]

# What is asked of it.
# Where none is given, the model's own generation_config holds.
MaxNewTokens = Annotated[
    int | None, typer.Option(min=1, help="Most tokens of an answer. Default: the model's own, else 128.")
]
Temperature = Annotated[float | None, typer.Option(help="0 is greedy. Default: as the model says.")]
TopK = Annotated[
    int | None,
    typer.Option(
        help="Draw from this many of the likeliest tokens; 0 for all. Default: the model's own, else 50."
    ),
]
TopP = Annotated[float | None, typer.Option(help="Draw from the fewest tokens with this probability.")]
MinP = Annotated[
    float | None, typer.Option(help="Draw from tokens with this share of the likeliest one's probability.")
]
RepetitionPenalty = Annotated[
    float | None, typer.Option(help="Divides the logits of tokens in prompt and answer; 1 is none.")
]
PresencePenalty = Annotated[
    float | None, typer.Option(help="Taken off the logits of tokens in the answer, once each.")
]
FrequencyPenalty = Annotated[
    float | None, typer.Option(help="Taken off the logits of tokens in the answer, for each time.")
]
Logprobs = Annotated[
    int | None,
    typer.Option(help="With --json: log-probabilities of each token and of this many of the likeliest."),
]
Seed = Annotated[int, typer.Option(help="Of the random stream.")]
Stop = Annotated[list[str] | None, typer.Option(help="String that ends an answer; may be given twice.")]

# Recorded traffic.
TraceArgument = Annotated[str, typer.Argument(metavar="TRACE", help=f"Request log: {_TRACE_HELP}")]
TracesArgument = Annotated[list[str], typer.Argument(metavar="TRACE", help=f"Request logs: {_TRACE_HELP}")]
TokenizerName = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        callback=_refuse_missing_tokenizer,
        help="For logs of text: a hub id, a folder, or a tokenizer.json.",
    ),
]
SkipBadLines = Annotated[
    bool, typer.Option("--skip-bad-lines", help="Count malformed lines instead of stopping at the first.")
]
MaxRequests = Annotated[
    int | None,
    typer.Option("--max-requests", min=1, help="Replay only this many requests of each log, the first."),
]
After = Annotated[
    str | None,
    typer.Option(
        "--after",
        metavar="AMOUNT",
        help="Leave the beginning, while caches warm up, out of the figures: a number of requests (1000), a "
        "share (10%), or a time on the log's clock (90s, 10min, 2h). It is replayed all the same.",
    ),
]
WholePrompts = Annotated[
    bool,
    typer.Option(
        "--whole-prompts",
        help="Every line holds its whole prompt, also where the turns of a conversation do not begin alike. "
        "Without it, a log that seems to hold only what is new of each turn is refused.",
    ),
]
ImageTokens = Annotated[
    int | None,
    typer.Option(
        "--image-tokens",
        metavar="N",
        min=1,
        help="Count each image as N tokens, the same for the same image. Default: a short placeholder.",
    ),
]

# What it is replayed under.
Policies = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        help="Once for each to compare; see `milepost policies`. Default: "
        f"{', '.join(DEFAULT_REPLAY_POLICIES)}.",
    ),
]
CapacityKvTokens = Annotated[
    str | None, typer.Option("--capacity-kv-tokens", metavar="N", help=_CAPACITY_KV_TOKENS)
]
CapacitiesKvTokens = Annotated[
    list[str] | None,
    typer.Option("--capacity-kv-tokens", metavar="N", help=_CAPACITY_KV_TOKENS + _EACH),
]
Capacity = Annotated[str | None, typer.Option("--capacity", metavar="SIZE", help=_CAPACITY)]
Capacities = Annotated[list[str] | None, typer.Option("--capacity", metavar="SIZE", help=_CAPACITY + _EACH)]
CheckpointKvTokens = Annotated[
    float | None,
    typer.Option(
        "--checkpoint-kv-tokens",
        metavar="C",
        help="What a checkpoint costs, in tokens of KV; `milepost footprint MODEL` says it of a model.",
    ),
]
CostModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        callback=refuse_missing,
        help="Take the costs from a model's configuration: a folder, a hub id, or the path of a config.json.",
    ),
]
Grid = Annotated[
    int | None,
    typer.Option(
        "--grid",
        min=1,
        help="Checkpoints sit at multiples of this many tokens. Default: the trace's blocks, or 64 tokens "
        "where it has token ids or text.",
    ),
]
Timing = Annotated[
    bool,
    typer.Option(
        "--timing",
        help="Measure the processor time that each policy takes. Without it, `seconds` is null and the same "
        "input gives the same output, byte for byte.",
    ),
]
