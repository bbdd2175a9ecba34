"""Made-up traces by name: one table, and the short notation that stands for a file.

``synthetic:NAME,option=value,option=value``, for example ``synthetic:chat,requests=500,seed=3``. The options
are those of the workload's class. Adding a workload is one class and one entry of the table.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from types import MappingProxyType

from milepost.errors import ConfigurationError
from milepost.traces.synthetic.workload import Workload, generate
from milepost.traces.synthetic.workloads import (
    Agents,
    Chat,
    Documents,
    Drifting,
    SystemPrompts,
    Uniform,
)
from milepost.traces.trace import Trace

__all__ = ["SYNTHETIC_PREFIX", "WORKLOADS", "describe_workloads", "open_synthetic", "parse_workload"]

SYNTHETIC_PREFIX = "synthetic:"

WORKLOADS: Mapping[str, type[Workload]] = MappingProxyType(
    {
        "documents": Documents,
        "chat": Chat,
        "agents": Agents,
        "system-prompts": SystemPrompts,
        "uniform": Uniform,
        "drifting": Drifting,
    }
)


def open_synthetic(notation: str) -> Trace:
    """Return the trace of a notation; see the module.

    Raises:
        ConfigurationError: the notation has a mistake.
    """
    workload = parse_workload(notation)
    return Trace(notation.strip(), lambda tally: generate(workload))


def parse_workload(notation: str) -> Workload:
    """Return the workload of a notation, with or without its prefix.

    Raises:
        ConfigurationError: the name or an option is unknown, given twice, or has a bad value. The message
            names the closest known one.

    >>> parse_workload("synthetic:uniform,requests=10,length=500").requests
    10
    """
    name, *given = (item.strip() for item in notation.strip().removeprefix(SYNTHETIC_PREFIX).split(","))
    kind = WORKLOADS.get(name)
    if kind is None:
        raise ConfigurationError(f"synthetic trace {name!r} is unknown; {_suggest(name, WORKLOADS)}")
    readers = {option.name: option.type for option in fields(kind)}
    values: dict[str, int | float] = {}
    for item in given:
        key, _, value = (part.strip() for part in item.partition("="))
        if key not in readers:
            raise ConfigurationError(f"option {key!r} is unknown to {name!r}; {_suggest(key, readers)}")
        if key in values:
            raise ConfigurationError(f"option {key!r} is given twice in {notation!r}; give it once")
        values[key] = _read(key, value, int if readers[key] is int else float)
    return kind(**values)  # type: ignore[arg-type]


def describe_workloads() -> tuple[tuple[str, str], ...]:
    """Return ``(notation, what it is)`` of every workload, in the table's order, for help texts."""
    return tuple(
        (f"{SYNTHETIC_PREFIX}{name}", (kind.__doc__ or "").partition("\n")[0].rstrip("."))
        for name, kind in WORKLOADS.items()
    )


def _read(name: str, value: str, number: type[int] | type[float]) -> int | float:
    try:
        return number(value)
    except ValueError:
        kind = "a whole number" if number is int else "a number"
        raise ConfigurationError(f"{name}={value!r} is not {kind}; write {name}=8") from None


def _suggest(given: str, known: Iterable[str]) -> str:
    names = list(known)
    closest = difflib.get_close_matches(given, names, n=1)
    everything = f"it is one of {', '.join(names)}"
    return f"did you mean {closest[0]!r}? ({everything})" if closest else everything
