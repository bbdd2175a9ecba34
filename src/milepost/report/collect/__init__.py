"""What a report draws, gathered while a trace streams by: every collector is bounded, whatever the trace."""

from milepost.report.collect.log_histogram import Bin, LogHistogram
from milepost.report.collect.losses import LossWindows, Window
from milepost.report.collect.overlap_ends import PARTING_ORDINALS, OverlapEnd, OverlapEnds
from milepost.report.collect.placements import PlacedPositions, PromptSample, SampledPrompt
from milepost.report.collect.prefill import PrefillEstimates, PrefillSummary

__all__ = [
    "PARTING_ORDINALS",
    "Bin",
    "LogHistogram",
    "LossWindows",
    "OverlapEnd",
    "OverlapEnds",
    "PlacedPositions",
    "PrefillEstimates",
    "PrefillSummary",
    "PromptSample",
    "SampledPrompt",
    "Window",
]
