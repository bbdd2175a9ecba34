#!/usr/bin/env bash
# transformers 5.24.0 with torch 2.13.0 (CPU). Seen in November 2026.
#
# `transformers serve` reads the calls that Qwen3.5 writes by a template of its own (the model's tokenizer has none).
# A value stands between `<parameter=NAME>`, a line end, and a line end, `</parameter>`; that is how the chat template
# writes it. What is read has lost every blank and line end at both ends of the value, not the one line end of each
# side. So a tool that edits a file gets its text without the indentation of the first line and without the last line
# end; and a text of blanks alone is gone.
#
# Why it surprises: JSON, which other models write, keeps them. An agent's edit of a Python file matches nothing, or
# writes another file than the model did; sent back with the next request, the call is not what the model wrote, and
# its cached prefix ends there.
#
# Seen:
#   written '    return x\n'    read 'return x'
#   written 'a = 1\n'           read 'a = 1'
#   written '\n\n# two above'   read '# two above'
#   written '\t'                read ''
#   written 'no blanks'         read 'no blanks'
#   the same in JSON, as Qwen2 writes it: '    return x\n'
#
# Exits 1 if the behaviour is another.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 'transformers[serving]==5.24.0'
"$work/venv/bin/python" - 2>/dev/null <<'PYTHON'
import json
import sys
from types import SimpleNamespace

from transformers.cli.serving import utils
from transformers.utils.chat_parsing import parse_response

tools = [{"type": "function", "function": {"name": "write", "parameters": {
    "type": "object", "properties": {"text": {"type": "string"}}}}}]
start = "<|im_start|>assistant\n"


def template_of(model_type):
    tokenizer = SimpleNamespace(response_template=None)
    model = SimpleNamespace(config=SimpleNamespace(model_type=model_type))
    return utils.get_response_template(tokenizer, model)


def read(model_type, answer):
    message = parse_response(answer, template_of(model_type), prefix=start, tools=tools)
    arguments = message["tool_calls"][0]["function"]["arguments"]
    return (json.loads(arguments) if isinstance(arguments, str) else arguments)["text"]


expected = {"    return x\n": "return x", "a = 1\n": "a = 1", "\n\n# two above": "# two above", "\t": "",
            "no blanks": "no blanks"}
as_seen = True
for text, seen in expected.items():
    call = f"<tool_call>\n<function=write>\n<parameter=text>\n{text}\n</parameter>\n</function>\n</tool_call><|im_end|>"
    found = read("qwen3_5", call)
    print(f"written {text!r:18}  read {found!r}")
    as_seen &= found == seen
call = json.dumps({"name": "write", "arguments": {"text": "    return x\n"}})
found = read("qwen2", f"<tool_call>\n{call}\n</tool_call><|im_end|>")
print(f"the same in JSON, as Qwen2 writes it: {found!r}")
sys.exit(not (as_seen and found == "    return x\n"))
PYTHON
