"""A page about a trace that one would rather look at than read: which policy reuses how much, where and why.

    study = study_trace(open_trace("requests.jsonl"), settings, cost=PrefillCost.tokens())
    write_report([study], Path("report"), command="milepost report requests.jsonl ...")

:mod:`milepost.report.study` replays and gathers, with collectors of bounded size; ``figures``, ``headline``
and ``tables`` say the same thing as pictures, as words and as numbers; ``page`` puts them together. Drawing
needs the ``report`` extra; importing this does not.
"""

from milepost.report.frontier_file import is_frontier_file
from milepost.report.study import TraceStudy, study_trace
from milepost.report.writing import PAGE_NAME, prepare_folder, write_frontiers, write_report

__all__ = [
    "PAGE_NAME",
    "TraceStudy",
    "is_frontier_file",
    "prepare_folder",
    "study_trace",
    "write_frontiers",
    "write_report",
]
