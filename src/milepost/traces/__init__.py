"""Request traces: what was asked, in order, from logs of every usual kind or made up.

    for request in open_trace("requests.jsonl.zst", tokenizer="Qwen/Qwen3.5-0.8B"):
        print(request.num_tokens, request.keys)

A trace is read in constant memory and can be iterated again. Nothing here knows a policy or an engine.
"""

from milepost.traces.facts import LogFacts
from milepost.traces.reading import open_trace
from milepost.traces.request import TraceRequest
from milepost.traces.synthetic import describe_workloads
from milepost.traces.trace import Trace
from milepost.traces.writing import write_trace

__all__ = ["LogFacts", "Trace", "TraceRequest", "describe_workloads", "open_trace", "write_trace"]
