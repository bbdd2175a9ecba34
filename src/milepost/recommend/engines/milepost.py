"""Milepost itself: the memory is all there is to set."""

from milepost.recommend.engine import Candidate, EngineKind, Instructions, command_line
from milepost.recommend.profile import TrafficProfile
from milepost.recommend.situation import Situation
from milepost.simulator import SimulationResult

__all__ = ["MILEPOST"]


def _candidates(situation: Situation, profile: TrafficProfile) -> tuple[Candidate, ...]:
    return (Candidate(policy="learned", grid=situation.grid, footprint=situation.footprint),)


def _instructions(situation: Situation, candidate: Candidate, result: SimulationResult) -> Instructions:
    capacity = situation.memory_text
    return Instructions(
        commands=(
            command_line("milepost", "generate", situation.model_name, "@prompt.txt", "--capacity", capacity),
        ),
        files=(("engine.py", f'engine = Engine.open({situation.model_name!r}, capacity="{capacity}")\n'),),
        notes=(
            "nothing else to set: where states are kept, and which goes first, is learned from the traffic",
            "the same policy for vLLM is not part of this version",
        ),
    )


MILEPOST = EngineKind(title="Milepost", candidates=_candidates, instructions=_instructions)
