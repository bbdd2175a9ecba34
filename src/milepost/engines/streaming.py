"""What a request produces, as it is produced, for who listens."""

from collections.abc import Callable, Iterator

from milepost.engines.completion import TokenEvent
from milepost.engines.generation import Generation
from milepost.errors import ConcurrentUseError

__all__ = ["events_of"]


def events_of(generation: Generation, *, step: Callable[[], object]) -> Iterator[TokenEvent]:
    """Yield the events of ``generation`` until it is done. Leaving early gives it up.

    Args:
        generation: A request.
        step: Gives out the next turn.

    Raises:
        Exception: what broke the request, or gave it up.
    """
    num_given = 0
    try:
        while True:
            # Also what it produced while someone else gave out the turns.
            while num_given < len(generation.events):
                num_given += 1
                yield generation.events[num_given - 1]
            if generation.is_done:
                generation.completion()  # raises what broke it, or that it was given up behind our back
                return
            step()
    except (GeneratorExit, ConcurrentUseError):
        # It may come from the garbage collector, in the middle of a change of the cache, or from another
        # thread.
        generation.abandon()
        raise
    except BaseException:
        generation.close()
        raise
