"""How many answers go on in one call: as many as are asked for, where that was proven on the model."""

import logging

from milepost.engines.base import OneByOne, Rows
from milepost.engines.transformers.driver import TransformersDriver
from milepost.engines.transformers.row_probe import RowReport, measure_rows
from milepost.engines.transformers.rows import BatchedRows

__all__ = ["RowChoice"]

_log = logging.getLogger(__name__)


class RowChoice:
    """Makes the rows of engines over one model, and measures each kind once (``row_probe``)."""

    def __init__(self, driver: TransformersDriver) -> None:
        self._driver = driver
        self._reports: dict[tuple[int, bool], RowReport] = {}

    def __call__(self, count: int, *, is_fixed: bool) -> Rows:
        """Return room for ``count`` answers at once; one by one, which is said, where rows are not right.

        Args:
            count: Most of them.
            is_fixed: A row's bits hang on its own tokens and on ``count`` alone, whatever its company.
        """
        if count == 1:
            return OneByOne(self._driver)
        report = self._reports.get((count, is_fixed))
        if report is None:
            report = self._reports[count, is_fixed] = measure_rows(self._driver, count, is_fixed=is_fixed)
            if report.refusal is not None:
                _log.warning("%s: answers are computed one by one: %s", report.family, report.refusal)
        if report.refusal is not None:
            return OneByOne(self._driver)
        return BatchedRows(self._driver, count, is_fixed=is_fixed)
