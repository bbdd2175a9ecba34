"""Replays of recorded traffic: what any policy at any capacity would have reused, by the cache that serves.

    result = simulate(open_trace("requests.jsonl"), policy="learned", capacity_kv_tokens=1_000_000,
                      checkpoint_kv_tokens=1_536)
    print(result.reused_fraction, "of at most", result.ceiling_fraction)

One loop, many lookers-on: :func:`replay` yields every request with what the policy was told, what it placed
and where the tokens went; :func:`simulate` sums that up; a report watches through ``observe``; and
:func:`sweep` does it for a grid of settings over all cores.
"""

from milepost.simulator.replay import ReplayedRequest, Replayer, replay
from milepost.simulator.result import NOMINAL_KV_BYTES_PER_TOKEN, LostTokens, SimulationResult
from milepost.simulator.setting import Setting, nominal_footprint
from milepost.simulator.simulation import Clock, simulate, simulate_all
from milepost.simulator.sweep import SweepOutcome, SweepPoint, SweepProgress, sweep
from milepost.simulator.trace_source import TraceSource, TraceSurvey, distinct_names
from milepost.simulator.warm_up import WarmUp
from milepost.simulator.workers import available_cores

__all__ = [
    "NOMINAL_KV_BYTES_PER_TOKEN",
    "Clock",
    "LostTokens",
    "ReplayedRequest",
    "Replayer",
    "Setting",
    "SimulationResult",
    "SweepOutcome",
    "SweepPoint",
    "SweepProgress",
    "TraceSource",
    "TraceSurvey",
    "WarmUp",
    "available_cores",
    "distinct_names",
    "nominal_footprint",
    "replay",
    "simulate",
    "simulate_all",
    "sweep",
]
