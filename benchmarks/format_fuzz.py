"""Bytes that nobody wrote, fed to whatever reads bytes from outside: coverage leads, and nothing may slip.

    pip install atheris
    python -m benchmarks.format_fuzz [--runs 200000] [--target NAME] [--json]

    payload     a file of the cache folder: what was written under that key, or ``DamagedError``
    speech      what a model says: the same pieces however it is portioned, and no text is lost
    chat, completions, messages, responses
                bodies of requests: read to the last token, or refused
    trace       a line of a request log: a request, or an error that names the line
    sealed      reasoning that comes back: what was sealed, or nothing

Each runs in a process of its own and begins from valid input. Any other exception, any other result and ten
seconds without one are faults: the input that did it is kept, and the exit code is 1.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.printing import Row, print_rows

Target = Callable[[bytes], None]
_SECONDS_PER_INPUT = 10
_LONGEST = 4096


def _payload() -> tuple[Target, list[bytes]]:
    import numpy as np

    from milepost.disk import Packed, PackedTensor
    from milepost.disk.file_format import DamagedError, decode, encode

    rng = np.random.default_rng(0)
    due = {"key": "k" * 8, "identity": "model", "entry": "row"}

    def packed(values: Any) -> Packed:
        data = np.ascontiguousarray(values)
        tensor = PackedTensor(str(data.dtype), data.shape, data.itemsize, data.view(np.uint8))
        return Packed({"state": tensor}, {"digest": "ab"})

    written = [
        encode(packed(values), **due, compresses=compresses)
        for values in (np.zeros(64, np.float32), rng.standard_normal(64).astype(np.float32))
        for compresses in (False, True)
    ]
    known = {decode(data, **due).tensors["state"].data.tobytes() for data in written}

    def read(data: bytes) -> None:
        try:
            found = decode(data, **due)
        except DamagedError:
            return
        assert list(found.tensors) == ["state"]
        assert found.tensors["state"].data.tobytes() in known
        assert found.words == {"digest": "ab"}

    return read, written


def _speech() -> tuple[Target, list[bytes]]:
    from transformers import AutoTokenizer

    from milepost.embedded import embedded_folder
    from milepost.server.speech.pieces import Reasoning, Text, joined
    from milepost.server.speech.speech import Speech

    tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    speech = Speech(tokenizer)
    header = tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False)

    def pieces_of(portions: Sequence[str]) -> list[Any]:
        reader = speech.reader(header, tools=None)
        return joined([*(piece for each in portions for piece in reader.feed(each)), *reader.finish()])

    def read(data: bytes) -> None:
        text = data.decode(errors="replace")
        whole = pieces_of([text])
        assert whole == pieces_of(list(text))
        assert all(isinstance(each, Text | Reasoning) for each in whole)

    return read, [b"<think>\nwhy\n</think>\n\nBecause.", b"Hello <|im_end|>", b"<think></think>"]


def _body(name: str) -> tuple[Target, list[bytes]]:
    from pydantic import ValidationError
    from transformers import AutoTokenizer

    from milepost.embedded import embedded_folder
    from milepost.engines.prompts import PromptReader
    from milepost.errors import InvalidRequestError
    from milepost.server.dialects.chat import ChatBody
    from milepost.server.dialects.completions import CompletionBody
    from milepost.server.dialects.messages.body import MessagesBody
    from milepost.server.dialects.messages.prompt import messages_of as anthropic_messages
    from milepost.server.dialects.responses.body import ResponsesBody
    from milepost.server.dialects.responses.prompt import messages_of as response_messages
    from milepost.server.faults import RefusedError

    tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    prompts = PromptReader(tokenizer=tokenizer, vocabulary_size=2048, context_length=32_768)
    bodies: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        "chat": (ChatBody, lambda body: [each.model_dump(exclude_unset=True) for each in body.messages]),
        "completions": (CompletionBody, lambda body: body.prompt),
        "messages": (MessagesBody, anthropic_messages),
        "responses": (ResponsesBody, response_messages),
    }
    kind, prompt_of = bodies[name]
    part = {"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}
    say = {"role": "user", "content": [part]}
    use = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "c", "content": "4"}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    seeds: dict[str, list[dict[str, Any]]] = {
        "chat": [
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [call]}, say], "stop": ["a"]},
            {"messages": [say], "stream": True, "stream_options": {"include_usage": True}, "n": 2},
        ],
        "completions": [{"prompt": "Hello", "echo": True, "logprobs": 2}, {"prompt": [[1, 2], [3]], "n": 2}],
        "messages": [
            {"max_tokens": 9, "system": [part], "messages": [say], "thinking": {"type": "disabled"}},
            {
                "max_tokens": 9,
                "messages": [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}],
            },
        ],
        "responses": [
            {"input": "Hello", "instructions": "Be brief."},
            {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                       {"type": "function_call_output", "call_id": "c", "output": "4"},
                       {"role": "user", "content": [{"type": "input_text", "text": "Hello"}]}]},
        ],
    }  # fmt: skip

    def read(data: bytes) -> None:
        try:
            body = kind.model_validate_json(data)
            found = prompt_of(body)
            listed = name == "completions" and isinstance(found, list) and not isinstance(found[0], int)
            for prompt in found if listed else [found]:
                assert prompts.read(prompt).tokens.size > 0
        except (ValidationError, RefusedError, InvalidRequestError):
            return

    return read, [json.dumps({"model": "m"} | body).encode() for body in seeds[name]]


def _trace() -> tuple[Target, list[bytes]]:
    from milepost.errors import MilepostError
    from milepost.traces import open_trace

    path = Path(tempfile.mkdtemp()) / "log.jsonl"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            for request in open_trace(path, skip_bad_lines=False):
                assert request.num_tokens > 0
        except MilepostError:
            return

    lines = [
        {"timestamp": 0, "input_length": 9, "output_length": 3, "hash_ids": [1, 2]},
        {"tokens": [1, 2, 3]},
        {"body": {"model": "m", "prompt": [1, 2, 3]}, "timestamp": "2026-01-01T00:00:00Z"},
    ]
    return read, [json.dumps(line).encode() + b"\n" for line in lines]


def _sealed() -> tuple[Target, list[bytes]]:
    from milepost.server.speech.sealed import seal, unseal

    sealed = "first, the sum"

    def read(data: bytes) -> None:
        text = data.decode("latin-1")
        found = unseal(text)
        # Unused bits at the end of base64 may differ; what is in it may not.
        assert found in (None, sealed)
        assert unseal(seal(text)) == text

    return read, [seal(sealed).encode(), b"milepost1."]


_TARGETS: dict[str, Callable[[], tuple[Target, list[bytes]]]] = {
    "payload": _payload,
    "speech": _speech,
    **{name: lambda name=name: _body(name) for name in ("chat", "completions", "messages", "responses")},  # type: ignore[misc]
    "trace": _trace,
    "sealed": _sealed,
}


def _fuzz(name: str, runs: int, corpus: Path) -> None:
    import atheris

    with atheris.instrument_imports(include=["milepost"], enable_loader_override=False):
        target, seeds = _TARGETS[name]()
    for number, seed in enumerate(seeds):
        (corpus / f"seed{number}").write_bytes(seed)
    options = (
        f"-runs={runs}",
        f"-max_len={_LONGEST}",
        f"-timeout={_SECONDS_PER_INPUT}",
        "-seed=1",
        "-verbosity=0",
    )
    atheris.Setup(
        [sys.argv[0], *options, "-print_final_stats=1", f"-artifact_prefix={corpus}/", str(corpus)], target
    )
    atheris.Fuzz()


def _row(name: str, runs: int) -> Row:
    corpus = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    command = [sys.executable, "-m", "benchmarks.format_fuzz", "--inner", str(corpus), "--target", name]
    done = subprocess.run([*command, "--runs", str(runs)], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    counted = re.search(r"stat::number_of_executed_units: (\d+)", said)
    num_runs = int(counted.group(1)) if counted else 0
    is_clean = done.returncode == 0 and num_runs >= runs
    if not is_clean:
        print(said[-4000:], file=sys.stderr)
    return Row(
        name=f"format fuzz, {name}",
        measured=f"{num_runs:,} inputs, {'no fault' if is_clean else f'a fault; see {corpus}'}",
        target="no fault",
        reached=is_clean,
        numbers={"inputs": num_runs},
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=200_000, help="inputs for each target")
    parser.add_argument("--target", choices=_TARGETS, help="this one alone")
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    parser.add_argument("--inner", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inner is not None:
        _fuzz(options.target, options.runs, options.inner)
        return
    rows = []
    for name in [options.target] if options.target else _TARGETS:
        rows.append(_row(name, options.runs))
        print(f"{rows[-1].name}: {rows[-1].measured}", file=sys.stderr, flush=True)
    print_rows(rows, as_json=options.json)
    sys.exit(not all(row.reached for row in rows))


if __name__ == "__main__":
    main()
