"""Results of a sweep as JSON lines: appended one by one, found again by the next run, sorted when complete.

A line is a result and what it depends on beside its policy and memory: the digest of the trace, the grid, the
footprint, and the version of this package, its source included. A line of another version is out of date: it
stays until its point is computed anew. A process that was killed while writing leaves half a line, which is
always the last; it is dropped. Anything else that is no result is somebody's file, and left alone.
"""

import json
import os
from dataclasses import asdict, astuple, dataclass
from functools import cache
from hashlib import blake2b
from importlib import metadata
from pathlib import Path
from typing import Any, final

from milepost.errors import ConfigurationError
from milepost.footprint import Footprint
from milepost.simulator.result import SimulationResult
from milepost.whole_file import written_whole

__all__ = ["PointKey", "ResultFile", "code_version", "footprint_digest"]

_FIRST_FIELD = b'{"trace_digest": "'
_DIGEST_BYTES = 8


@final
@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PointKey:
    """What a result depends on, but for the version."""

    trace_digest: str
    grid: int
    footprint: str
    policy: str
    capacity_kv_tokens: int
    num_warm_up_requests: int = 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    version: str
    key: PointKey
    result: SimulationResult

    def encoded(self) -> bytes:
        key = self.key
        facts = {
            "trace_digest": key.trace_digest,
            "version": self.version,
            "grid": key.grid,
            "footprint": key.footprint,
            **self.result.as_json(),
        }
        return json.dumps(facts).encode() + b"\n"

    @classmethod
    def decoded(cls, content: bytes) -> "_Line":
        """Raise ``ValueError``, ``KeyError`` or ``TypeError`` where it is none."""
        facts: dict[str, Any] = json.loads(content)
        labels = {name: facts.pop(name) for name in ("trace_digest", "version", "grid", "footprint")}
        version = labels.pop("version")
        result = SimulationResult.from_json(facts)
        key = PointKey(
            **labels,
            policy=result.policy,
            capacity_kv_tokens=result.capacity_kv_tokens,
            num_warm_up_requests=result.num_warm_up_requests,
        )
        return cls(version=version, key=key, result=result)


@final
class ResultFile:
    """See the module. One sweep at a time may write to a file.

    Raises:
        ConfigurationError: the path is a folder, lies in no folder or where this user may not write, or holds
            something else.
    """

    def __init__(self, path: Path) -> None:
        if path.is_dir() or not path.parent.is_dir():
            raise ConfigurationError(f"output={path}; give a file in a folder that exists")
        # Before hours of work, not after them; the folder too, since the sorted file replaces this one.
        refused = [
            place
            for place in (path.parent, path)
            if place.exists() and not os.access(place, os.R_OK | os.W_OK)
        ]
        if refused:
            raise ConfigurationError(
                f"output={path}: this user may not write to {refused[0]}; give a file where it may"
            )
        self._path = path
        self._lines: dict[PointKey, _Line] = {}
        # Where a half-written last line begins, until it is cut off.
        self._half_line: int | None = None
        self._read()

    def get(self, key: PointKey) -> SimulationResult | None:
        """Return the result of a point, if this version has computed it."""
        line = self._lines.get(key)
        return None if line is None or line.version != code_version() else line.result

    def append(self, key: PointKey, result: SimulationResult) -> None:
        """Add the result of a point, on the disk when this returns.

        Raises:
            OSError: the file cannot be written.
        """
        line = self._lines[key] = _Line(version=code_version(), key=key, result=result)
        with self._path.open("ab") as stream:
            if self._half_line is not None:
                stream.truncate(self._half_line)
                self._half_line = None
            stream.write(line.encoded())
            stream.flush()
            os.fsync(stream.fileno())

    def finish(self) -> None:
        """Sort the lines, one for each point, and replace the file in one step. O(n log n)."""
        ordered = sorted(self._lines.values(), key=lambda line: (line.result.trace, astuple(line.key)))
        with written_whole(self._path) as unfinished, unfinished.open("wb") as stream:
            stream.writelines(line.encoded() for line in ordered)
            stream.flush()
            os.fsync(stream.fileno())

    def _read(self) -> None:
        content = self._path.read_bytes() if self._path.exists() else b""
        for number, raw in enumerate(content.splitlines(keepends=True), start=1):
            if not raw.endswith(b"\n") and (raw.startswith(_FIRST_FIELD) or _FIRST_FIELD.startswith(raw)):
                self._half_line = len(content) - len(raw)
                break
            try:
                line = _Line.decoded(raw)
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigurationError(
                    f"output={self._path}: line {number} is no result of a sweep; give another file, or move "
                    "this one away"
                ) from error
            # A later line of the same point is the newer one.
            self._lines[line.key] = line


def footprint_digest(footprint: Footprint) -> str:
    """Return a short name for everything that a footprint says."""
    return blake2b(repr(asdict(footprint)).encode(), digest_size=_DIGEST_BYTES).hexdigest()


@cache
def code_version() -> str:
    """Return the version of the package, with a digest of its source: a change of a policy is a new version,
    whether or not its number was raised.
    """
    try:
        number = metadata.version("milepost")
    except metadata.PackageNotFoundError:
        number = "source"
    root = Path(__file__).parents[1]
    hasher = blake2b(digest_size=_DIGEST_BYTES)
    for path in sorted(root.rglob("*.py")):
        hasher.update(path.relative_to(root).as_posix().encode())
        hasher.update(path.read_bytes())
    return f"{number}+{hasher.hexdigest()}"
