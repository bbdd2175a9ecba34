"""States and pieces of KV of transformers as bytes, and back: the same tensors, bit for bit, laid out alike.

A state is an object graph (see ``snapshot``). Its tensors become bytes; the rest is written down as it
stands, classes by their names, plain values by value, and what is held twice is referred to. Only classes
of transformers and of this package are made again, without their constructors, as ``snapshot`` clones them;
a graph that holds anything else is refused, and its state stays in memory.

Values are no longer the same objects afterwards, and nothing that a forward call does tells them apart:
strides are kept, and every tensor owns its memory.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import orjson
import torch
from transformers import PreTrainedConfig

from milepost.disk import Packed, PackedTensor
from milepost.engines.transformers.snapshot import KVSegment, StateSnapshot
from milepost.errors import CacheCorruptionError, UnsupportedModelError

__all__ = ["pack", "unpack"]

_PLAIN = (type(None), bool, int, str)
_OWNERS = ("transformers", "milepost")


def pack(payload: StateSnapshot | KVSegment, *, config: PreTrainedConfig) -> Packed:
    """Return ``payload`` as bytes, which on a CPU are the payload's own. O(bytes).

    Args:
        payload: A state or a piece of KV.
        config: Of the model, to which some caches refer.

    Raises:
        UnsupportedModelError: it holds what cannot be written down.
    """
    writer = _Writer(_configs(config))
    if isinstance(payload, KVSegment):
        keys = [
            [layer, attribute, writer.tensor(each)] for (layer, attribute), each in payload.tensors.items()
        ]
        words = {"kind": "kv", "start": str(payload.start), "end": str(payload.end)}
        return Packed(writer.tensors, words | {"frame": _json(keys)})
    frame = writer.write(payload.frame)
    words = {"kind": "state", "position": str(payload.position), "num_bytes": str(payload.num_bytes)}
    return Packed(writer.tensors, words | {"frame": _json(frame)})


def unpack(packed: Packed, *, config: PreTrainedConfig) -> StateSnapshot | KVSegment:
    """Return what was packed. O(bytes), copied once.

    Args:
        packed: As :func:`pack` gave it.
        config: As for :func:`pack`.

    Raises:
        CacheCorruptionError: it is no payload of this engine.
    """
    words = packed.words
    reader = _Reader(packed.tensors, _configs(config))
    try:
        frame = orjson.loads(words["frame"])
        if words["kind"] == "kv":
            return KVSegment(
                start=int(words["start"]),
                end=int(words["end"]),
                tensors={(layer, attribute): reader.tensor(*each) for layer, attribute, each in frame},
            )
        return StateSnapshot(
            position=int(words["position"]), frame=reader.read(frame), num_bytes=int(words["num_bytes"])
        )
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CacheCorruptionError(f"it is no payload of transformers' ({error}); it was not used") from error


class _Writer:
    """Writes an object graph down, and keeps the tensors that it meets."""

    def __init__(self, configs: Mapping[str, PreTrainedConfig]) -> None:
        self.tensors: dict[str, PackedTensor] = {}
        self._configs = configs
        self._met: dict[int, int] = {}

    def write(self, value: Any) -> list[Any]:
        if (written := self._written_by_value(value)) is not None:
            return written
        if id(value) in self._met:
            return ["again", self._met[id(value)]]
        self._met[id(value)] = len(self._met)
        if isinstance(value, torch.Tensor):
            return ["tensor", *self.tensor(value)]
        if type(value) is dict:
            return ["dict", [[self.write(key), self.write(item)] for key, item in value.items()]]
        if type(value) in (list, tuple):
            return [type(value).__name__, [self.write(item) for item in value]]
        named = _named(type(value))
        return ["object", *named, [[name, self.write(item)] for name, item in vars(value).items()]]

    def _written_by_value(self, value: Any) -> list[Any] | None:
        """Write down what is told by its value or by its name."""
        match value:
            case torch.dtype():
                return ["dtype", _name(value)]
            case torch.device():
                return ["device", str(value)]
            case type():
                return ["class", *_named(value)]
            case PreTrainedConfig():
                return ["config", self._name_of(value)]
        if type(value) is float:
            # As text, since JSON has neither infinities nor NaN.
            return ["float", value.hex()]
        return ["is", value] if type(value) in _PLAIN else None

    def _name_of(self, config: PreTrainedConfig) -> str:
        for name, known in self._configs.items():
            if config is known:
                return name
        raise UnsupportedModelError(f"a cache holds a {type(config).__qualname__} that is not its model's")

    def tensor(self, tensor: torch.Tensor) -> list[Any]:
        """Keep the bytes of ``tensor`` as they lie in memory, and return how to lay them out again."""
        if type(tensor) is not torch.Tensor or tensor.is_quantized or tensor.layout is not torch.strided:
            raise UnsupportedModelError(
                f"a cache holds a {type(tensor).__qualname__} that is not plain numbers"
            )
        tensor = tensor.detach()
        strides: tuple[int, ...] = tensor.stride()
        order = sorted(range(tensor.ndim), key=lambda axis: -strides[axis])
        if not tensor.permute(order).is_contiguous():
            # A view with gaps: what a clone of it would be.
            tensor, order = tensor.contiguous(), list(range(tensor.ndim))
        flat = tensor.permute(order).reshape(-1).cpu().view(torch.uint8).numpy()
        name = f"{len(self.tensors)}"
        self.tensors[name] = PackedTensor(
            _name(tensor.dtype), tuple(tensor.shape), tensor.dtype.itemsize, flat
        )
        return [name, str(tensor.device), list(tensor.stride())]


class _Reader:
    """Makes the graph again."""

    def __init__(self, tensors: Mapping[str, PackedTensor], configs: Mapping[str, PreTrainedConfig]) -> None:
        self._tensors = tensors
        self._met: list[Any] = []
        self._makers: dict[str, Callable[..., Any]] = {
            "is": lambda value: value,
            "float": float.fromhex,
            "dtype": _dtype,
            "device": torch.device,
            "config": configs.__getitem__,
            "again": self._met.__getitem__,
            "tensor": self._tensor,
            "class": _class,
            "dict": self._dict,
            "list": self._list,
            "tuple": self._tuple,
            "object": self._object,
        }

    def read(self, node: list[Any]) -> Any:
        kind, *rest = node
        return self._makers[kind](*rest)

    def tensor(self, name: str, device: str, strides: list[int]) -> torch.Tensor:
        packed = self._tensors[name]
        dtype = _dtype(packed.dtype)
        if dtype.itemsize != packed.item_bytes:
            raise ValueError(
                f"elements of {packed.dtype} take {dtype.itemsize} bytes, not {packed.item_bytes}"
            )
        # The bytes of a file lie anywhere; torch's own memory is aligned.
        flat = torch.empty(packed.num_bytes, dtype=torch.uint8)
        flat.numpy()[:] = packed.data
        return flat.view(dtype).as_strided(packed.shape, strides).to(device)

    def _tensor(self, *rest: Any) -> torch.Tensor:
        return self._meet(self.tensor(*rest))

    def _dict(self, items: list[Any]) -> dict[Any, Any]:
        made: dict[Any, Any] = self._meet({})
        for key, item in items:
            # In the order in which they were written.
            read_key = self.read(key)
            made[read_key] = self.read(item)
        return made

    def _list(self, items: list[Any]) -> list[Any]:
        made: list[Any] = self._meet([])
        made.extend(self.read(item) for item in items)
        return made

    def _tuple(self, items: list[Any]) -> tuple[Any, ...]:
        place = len(self._met)
        self._meet(None)
        self._met[place] = tuple(self.read(item) for item in items)
        return self._met[place]

    def _object(self, module: str, name: str, attributes: list[Any]) -> Any:
        made = self._meet(object.__new__(_class(module, name)))
        for attribute, item in attributes:
            made.__dict__[attribute] = self.read(item)
        return made

    def _meet(self, value: Any) -> Any:
        self._met.append(value)
        return value


def _configs(config: PreTrainedConfig) -> dict[str, PreTrainedConfig]:
    return {"model": config, "text": config.get_text_config(decoder=True)}


def _named(kind: type) -> tuple[str, str]:
    module, name = kind.__module__, kind.__qualname__
    if _class(module, name, error=UnsupportedModelError) is not kind:
        raise UnsupportedModelError(f"a cache holds a {module}.{name}, which is not found by that name")
    return module, name


def _class(module: str, name: str, *, error: type[Exception] = CacheCorruptionError) -> type:
    """Return a class that may be made again: of one of those two packages, and all in its attributes."""
    is_ours = module.split(".", maxsplit=1)[0] in _OWNERS
    found = getattr(sys.modules.get(module), name, None) if is_ours else None
    if not isinstance(found, type):
        raise error(f"a cache holds a {module}.{name}, which cannot be written down")
    has_slots = any(vars(base).get("__slots__") for base in found.__mro__)
    if has_slots or getattr(found, "__new__", None) is not object.__new__:
        raise error(f"a cache holds a {module}.{name}, whose attributes are not all of it")
    return found


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"{name} is no element type")
    return found


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
