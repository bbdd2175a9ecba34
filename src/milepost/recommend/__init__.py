"""What to set in the engine you have, from the requests that it serves.

    advice = recommend(open_trace("requests.jsonl"), footprint=Footprint.from_config("config.json"),
                       capacity_kv_tokens=1_000_000)
    print(advice.engines[0].instructions.commands)

A request log is replayed under every kind of policy and under the settings that each engine offers. An
engine is modelled by the policy that it runs, at the positions where it can keep states, at the price that
it pays for one; so what is said of it is what that policy would have reused, not a measurement of the
engine. Facts about engines stand in the files of :mod:`milepost.recommend.engines`, with their sources.
"""

from milepost.recommend.engine import Candidate, EngineKind, Instructions
from milepost.recommend.engine_advice import EngineAdvice, PolicyOutcome
from milepost.recommend.engines import ENGINES
from milepost.recommend.profile import Offsets, TrafficProfile
from milepost.recommend.recommendation import Recommendation, recommend
from milepost.recommend.situation import (
    ModelFamily,
    ModelLayout,
    Situation,
    family_of,
    layout_of,
    nominal_layout,
)

__all__ = [
    "ENGINES",
    "Candidate",
    "EngineAdvice",
    "EngineKind",
    "Instructions",
    "ModelFamily",
    "ModelLayout",
    "Offsets",
    "PolicyOutcome",
    "Recommendation",
    "Situation",
    "TrafficProfile",
    "family_of",
    "layout_of",
    "nominal_layout",
    "recommend",
]
