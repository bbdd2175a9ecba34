"""Every error that Milepost raises on bad input, as one tree.

    MilepostError
    ├── InvalidRequestError      a prompt, a position or an option of one request breaks a rule
    │   └── ContextLengthError   a prompt is longer than the model reads
    ├── ConfigurationError       an option of a cache, a policy or an engine breaks a rule
    │   └── CapacityError        the byte budget cannot hold what it must
    ├── ModelChangedError        the model was changed while a request was running
    ├── AuditError               a stored state is not what the model computes
    ├── ConcurrentUseError       a second thread, or a second turn, called into an engine at work
    ├── UnsupportedModelError    the model's family cannot be resumed exactly, or failed its self-probe
    ├── EngineError              the library that runs the model refused a call, or failed in it
    ├── ModelLoadError           the model's files are missing, truncated or not a causal language model
    ├── MissingExtraError        a library that only some uses need is not installed
    ├── TraceFormatError         a request log cannot be read, or a line of it is not a request
    └── CacheCorruptionError     an invariant does not hold (a bug of ours, never bad input)

Each message names the value, the rule and the remedy. ``InvalidRequestError`` and ``ConfigurationError``
are also ``ValueError``, and ``MissingExtraError`` is an ``ImportError``, so code that knows nothing of
Milepost handles them as usual.
"""

__all__ = [
    "AuditError",
    "CacheCorruptionError",
    "CapacityError",
    "ConcurrentUseError",
    "ConfigurationError",
    "ContextLengthError",
    "EngineError",
    "InvalidRequestError",
    "KernelCacheWarning",
    "MilepostError",
    "MilepostWarning",
    "MissingExtraError",
    "ModelChangedError",
    "ModelLoadError",
    "TraceFormatError",
    "UnsupportedModelError",
]


class MilepostError(Exception):
    """The root of the tree: catch this to catch all that Milepost raises on purpose."""


class InvalidRequestError(MilepostError, ValueError):
    """One request is malformed. The cache is unchanged and the next request is served as usual."""


class ContextLengthError(InvalidRequestError):
    """A prompt is longer than the model reads. The message says by how much."""


class ConfigurationError(MilepostError, ValueError):
    """An option has a value outside its rule. Nothing was built."""


class CapacityError(ConfigurationError):
    """The byte budget is too small for what it must hold. The message names the least that works."""


class ModelChangedError(MilepostError):
    """The model was changed while a request was running. Nothing of it was stored; asking again is right."""


class AuditError(MilepostError):
    """A stored state is not what the model computes, bit for bit: it was changed where nothing shows. All
    states of that model were dropped before this was raised.
    """


class ConcurrentUseError(MilepostError):
    """A call came while another one was at work on the same model. The one at work is unharmed."""


class UnsupportedModelError(MilepostError):
    """The model cannot be resumed from a state exactly. The message names the family and the reason."""


class EngineError(MilepostError):
    """The library that runs the model refused a call, or failed in it. The message names the call."""


class ModelLoadError(MilepostError):
    """The model could not be read. The message names the path and what is wrong with it."""


class MissingExtraError(MilepostError, ImportError):
    """A library that only some uses need is not installed. The message says how to install it."""


class TraceFormatError(MilepostError):
    """A request log cannot be read. The message names the file and, where it is one line, the line."""


class CacheCorruptionError(MilepostError):
    """``check()`` found an invariant broken. This is a defect of Milepost: please report it."""


class MilepostWarning(UserWarning):
    """The root of what works, but not as it could. The message names the remedy."""


class KernelCacheWarning(MilepostWarning):
    """Compiled kernels cannot be kept from one process to the next."""
