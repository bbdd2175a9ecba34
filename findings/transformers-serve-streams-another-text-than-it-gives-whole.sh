#!/usr/bin/env bash
# transformers 5.24.0 with torch 2.13.0 (CPU). Seen in November 2026.
#
# What `transformers serve` makes of one and the same answer of Qwen3 hangs on `"stream"`. Streamed, reasoning and text
# come as the model wrote them. Whole, both have lost every blank and line end at their beginning and end. So an answer
# that is code has its indentation in a stream and not without one, and a streamed answer after reasoning begins with
# two empty lines. Both ways read the answer by the same template, in the same parser: it strips a message's fields,
# and not the portions that it hands out on the way.
#
# Why it surprises: clients that switch between the two send back different histories of the same conversation. The
# prompts part at the last answer's first token, and whatever was cached of it is computed again.
#
# Seen:
#   written        '<think>\nTwo.\n</think>\n\n    return 2\n<|im_end|>'
#   whole          reasoning 'Two.'       text 'return 2'
#   streamed by 1  reasoning '\nTwo.\n'   text '\n\n    return 2'
#   streamed by 9  reasoning '\nTwo.\n'   text '\n\n    return 2'
#
# Exits 1 if the behaviour is another.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 'transformers[serving]==5.24.0'
"$work/venv/bin/python" - 2>/dev/null <<'PYTHON'
import sys
from types import SimpleNamespace

from transformers.cli.serving import utils
from transformers.utils.chat_parsing import ResponseParser, parse_response

begun = "<|im_start|>assistant\n"
written = "<think>\nTwo.\n</think>\n\n    return 2\n<|im_end|>"
template = utils.get_response_template(
    SimpleNamespace(response_template=None), SimpleNamespace(config=SimpleNamespace(model_type="qwen3"))
)


def streamed(num_characters):
    parser = ResponseParser(template, prefix=begun)
    events = []
    for start in range(0, len(written), num_characters):
        events += parser.feed(written[start : start + num_characters])
    events += parser.finalize()[1]
    told = utils.response_events_to_chunks(events)
    is_thought = [isinstance(each, utils.ReasoningText) for each in told]
    texts = [each if isinstance(each, str) else each.text for each in told]
    return tuple("".join(t for t, thought in zip(texts, is_thought) if thought is wanted) for wanted in (True, False))


message = parse_response(written, template, prefix=begun)
whole = message["reasoning_content"], message["content"]
print(f"written        {written!r}")
print("whole          reasoning {!r:12} text {!r}".format(*whole))
found = {size: streamed(size) for size in (1, 9)}
for size, each in found.items():
    print("streamed by {}  reasoning {!r:12} text {!r}".format(size, *each))
as_seen = whole == ("Two.", "return 2") and set(found.values()) == {("\nTwo.\n", "\n\n    return 2")}
sys.exit(not as_seen)
PYTHON
