"""Milepost's own engine on Hugging Face transformers: the memory is all there is to set.

States and KV lie at multiples of its segment, 256 tokens unless set (``Engine.open(segment_tokens=...)``).
"""

from milepost.recommend.engine import Candidate, EngineKind, Instructions, command_line
from milepost.recommend.profile import TrafficProfile
from milepost.recommend.situation import Situation

__all__ = ["MILEPOST"]

_SEGMENT_TOKENS = 256


def _candidates(situation: Situation, profile: TrafficProfile) -> tuple[Candidate, ...]:
    grid = -(-_SEGMENT_TOKENS // situation.key_tokens) * situation.key_tokens
    return (Candidate(policy="learned", grid=grid, footprint=situation.footprint),)


def _instructions(situation: Situation, candidate: Candidate | None) -> Instructions:
    capacity = situation.memory_text
    return Instructions(
        commands=(
            command_line("milepost", "generate", situation.model_name, "@prompt.txt", "--capacity", capacity),
        ),
        files=(("engine.py", f'engine = Engine.open({situation.model_name!r}, capacity="{capacity}")\n'),),
        notes=(
            "nothing else to set: where states are kept, and which goes first, is learned from the traffic",
            f"states sit at multiples of its segment, {_SEGMENT_TOKENS} tokens; segment_tokens=64 hits "
            "closer and prefills slower",
        ),
    )


MILEPOST = EngineKind(title="Milepost (transformers)", candidates=_candidates, instructions=_instructions)
