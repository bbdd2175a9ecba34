"""A trace: requests in order of arrival, one at a time, as often as they are asked for."""

from collections.abc import Callable, Iterator
from itertools import islice

from milepost.errors import ConfigurationError
from milepost.traces.facts import LogFacts
from milepost.traces.request import TraceRequest
from milepost.traces.tally import Tally

__all__ = ["Trace"]


class Trace:
    """An iterable of requests in constant memory: each pass reads or generates them anew.

    The counts belong to the latest pass and are final once it has ended.

    Args:
        name: What reports call it.
        produce: Starts a pass; it reports to the tally what else it meets.
    """

    def __init__(self, name: str, produce: Callable[[Tally], Iterator[TraceRequest]]) -> None:
        self.name = name
        self._produce = produce
        self._tally = Tally()

    def __iter__(self) -> Iterator[TraceRequest]:
        """Yield the requests from the first on.

        Raises:
            TraceFormatError: the log cannot be read on.
            ConfigurationError: an option that its lines need is missing, or it can be read only once.
        """
        tally = self._tally = Tally()
        latest_seconds: float | None = None
        for request in self._produce(tally):
            tally.num_requests += 1
            arrival = request.arrival_seconds
            if arrival is not None:
                tally.num_out_of_order += latest_seconds is not None and arrival < latest_seconds
                latest_seconds = arrival
            yield request
        tally.turns.finish()

    def __repr__(self) -> str:
        return f"Trace({self.name!r})"

    def first(self, max_requests: int) -> "Trace":
        """Return the trace of its first requests. Nothing after them is read.

        Raises:
            ConfigurationError: there would be none.
        """
        if max_requests < 1:
            raise ConfigurationError(f"max_requests={max_requests}; replay at least 1")
        return Trace(self.name, lambda tally: islice(self._produce(tally), max_requests))

    @property
    def facts(self) -> LogFacts:
        """What the latest pass met: models, refusals, images, skipped lines."""
        return self._tally.facts()

    @property
    def num_requests(self) -> int:
        """Requests given out by the latest pass."""
        return self._tally.num_requests

    @property
    def num_bad_lines(self) -> int:
        """Lines that the latest pass skipped."""
        return self._tally.num_bad_lines

    @property
    def bad_lines(self) -> tuple[str, ...]:
        """What was wrong with the first few of them."""
        return tuple(self._tally.bad_lines)

    @property
    def num_out_of_order(self) -> int:
        """Requests with an arrival time before that of the request before them. They stay where they are."""
        return self._tally.num_out_of_order
