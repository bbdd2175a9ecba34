"""All that a model computes by, as far as Python can reach it: modules, tensors, and what hangs on them.

A walk from the model over its modules, and from every attribute of a module through lists, dictionaries and
plain objects, a few steps deep. What is found is of three kinds:

* *modules and tensors*: the content, which is told by identity (an object that was replaced is another one),
  and what hangs on weights of a class of their own, as the scales of quantised ones;
* *containers*: everything that holds named or numbered values, so that a change of a value is a change of its
  container;
* *code*: functions that a class, a module or a modeling file of transformers runs, and torch's operators, by
  identity; of functions that hang on a module (hooks, a ``forward`` of its own) what they captured, too.

Left out is what cannot change a result: gradients, settings of generation, tokenizers, what saving notes in
a configuration, and *restless* places, which the model's own forward call changes.
"""

import enum
import functools
import sys
import types
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from milepost.engines.transformers.watch.captured import Captured, names_in
from milepost.engines.transformers.watch.operators import operators
from milepost.engines.transformers.watch.plain import PLAIN, is_flat, is_plain

__all__ = ["MODULE_FIELDS", "WHOLE", "Container", "Inventory", "Place", "Role", "take_inventory"]

# Where something was found: the path of its container, and its key there.
Place = tuple[str, Any]
WHOLE = "*"
"""The key of a place that is a whole container, whatever it holds."""

_CODE = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType)
_CALLS = (types.FunctionType, types.MethodType, functools.partial)
_FOLLOWED_WHOLE = (torch.nn.Module, PreTrainedConfig, *_CODE, *_CALLS)
# What is noted on these is of no model's making: gradients, and how they were read.
_PLAIN_TENSORS = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)
_IGNORED = (GenerationConfig, PreTrainedTokenizerBase, torch.Generator)
# How far an attribute of a module is followed through containers and objects.
_MOST_STEPS = 3
# A model that drags a trainer or a dataset along is followed no further than this.
_MOST_CONTAINERS = 20_000

MODULE_FIELDS = frozenset(vars(torch.nn.Module()))
"""Attributes that every module has; those that matter are walked by themselves."""
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
_GLOBAL_HOOKS = ("_global_forward_pre_hooks", "_global_forward_hooks")
_CLASS_NOTES = frozenset({"_abc_impl", "_can_set_attn_implementation_cached_value"})
_FILE_NOTES = frozenset({"__warningregistry__", "__builtins__"})
# Notes on where a model comes from and how it was or is saved; the type of its weights is their own.
_NOTES = frozenset(
    {
        "architectures",
        "auto_map",
        "_name_or_path",
        "name_or_path",
        "_commit_hash",
        "transformers_version",
        "dtype",
    }
)


class Role(enum.Enum):
    """What a container is to the model."""

    MODULE = enum.auto()  # the attributes of a module
    PARTS = enum.auto()  # its children, parameters or buffers
    HOOKS = enum.auto()  # its hooks
    VALUE = enum.auto()  # the value of an attribute
    CODE = enum.auto()  # what its classes and modeling files define
    OTHER = enum.auto()


@dataclass(frozen=True, slots=True)
class Container:
    """Something that holds values: a dictionary, a list, a set, or the attributes of an object.

    Attributes:
        path: Where it was found.
        values: The very object, looked at again on each look.
        ignored: Keys that do not count.
        restless: Those among them that the model's own forward call changes.
        is_followed: Whether what it holds was entered too, so that an equal value is another one to watch.
        role: What it is to the model.
    """

    path: str
    values: Mapping[Any, Any] | Sequence[Any] | set[Any]
    ignored: frozenset[Any] = frozenset()
    restless: frozenset[Any] = frozenset()
    is_followed: bool = False
    role: Role = Role.OTHER

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Yield keys (numbers in a list; values themselves in a set) and values."""
        if isinstance(self.values, Mapping):
            yield from ((key, value) for key, value in self.values.items() if key not in self.ignored)
        elif isinstance(self.values, Sequence | deque):
            yield from ((key, value) for key, value in enumerate(self.values) if key not in self.ignored)
        else:
            named = sorted((repr(value), value) for value in self.values)
            yield from ((name, value) for name, value in named if name not in self.ignored)


@dataclass(slots=True)
class Inventory:
    """What was found, each once, under the first path that leads to it."""

    modules: dict[str, torch.nn.Module] = field(default_factory=dict)
    tensors: dict[Place, torch.Tensor] = field(default_factory=dict)
    containers: list[Container] = field(default_factory=list)
    classes: dict[type, None] = field(default_factory=dict)
    configuration: set[str] = field(default_factory=set)

    def beside(self, model: torch.nn.Module) -> dict[Place, torch.Tensor]:
        """Return the tensors that are neither parameters nor buffers of ``model``."""
        own = {id(tensor) for tensor in chain(model.parameters(), model.buffers())}
        return {place: tensor for place, tensor in self.tensors.items() if id(tensor) not in own}

    def functions(self) -> Iterator[types.FunctionType]:
        """Yield the functions that containers hold."""
        for container in self.containers:
            values = container.values
            for value in values.values() if isinstance(values, Mapping) else values:
                if isinstance(value, types.FunctionType):
                    yield value


def take_inventory(model: torch.nn.Module, *, restless: frozenset[Place] = frozenset()) -> Inventory:
    """Walk ``model``. O(modules and their attributes).

    Args:
        model: The model.
        restless: Places to leave out.
    """
    walk = _Walk(restless)
    walk.module("", model)
    walk.run()
    walk.code()
    return walk.found


class _Walk:
    def __init__(self, restless: frozenset[Place]) -> None:
        self.found = Inventory()
        self._restless: dict[str, set[Any]] = {}
        for path, key in restless:
            self._restless.setdefault(path, set()).add(key)
        self._seen: set[int] = set()
        self._pending: deque[tuple[str, Any, int]] = deque()

    def run(self) -> None:
        while self._pending and len(self.found.containers) < _MOST_CONTAINERS:
            self.follow(*self._pending.popleft())

    def module(self, path: str, module: torch.nn.Module) -> None:
        """Enter a module, and put off what hangs on it."""
        if self._is_new(module):
            self.found.modules[path] = module
            self.found.classes.setdefault(type(module))
            own = vars(module)
            self._contain(path, own, MODULE_FIELDS | {"generation_config"}, steps=0, role=Role.MODULE)
            for kind in ("_parameters", "_buffers"):
                self._tensors(_join(path, kind), own[kind])
            for hooks in _HOOKS:
                self._contain(_join(path, hooks), own[hooks], frozenset(), steps=0, role=Role.HOOKS)
            children = self._parts(_join(path, "_modules"), own["_modules"])
            for name, child in children.items():
                if child is not None:
                    self.module(_join(path, name), child)

    def code(self) -> None:
        """Enter what stands outside of the model and is shared: hooks on all modules, classes, functions."""
        shared = vars(torch.nn.modules.module)
        for name in _GLOBAL_HOOKS:
            self._contain(f"torch.nn.{name}", shared[name], frozenset(), steps=0)
        registries: dict[str, Any] = {"attention": ALL_ATTENTION_FUNCTIONS, "experts": ALL_EXPERTS_FUNCTIONS}
        for name, registry in registries.items():
            for scope in ("_global_mapping", "_local_mapping"):
                self._contain(
                    f"transformers {name} {scope}", getattr(registry, scope), frozenset(), steps=None
                )
        for name, values, ignored in operators():
            self._contain(name, values, ignored, steps=None)
        files: dict[str, None] = {}
        for kind in dict.fromkeys(chain.from_iterable(kind.__mro__ for kind in self.found.classes)):
            if kind.__module__.startswith("transformers.models."):
                files.setdefault(kind.__module__)
            if kind is torch.nn.Module or _defines_a_forward(kind):
                path = f"class {kind.__qualname__}"
                self._contain(path, vars(kind), _CLASS_NOTES, steps=None, role=Role.CODE)
        for file in files:
            self._contain(file, vars(sys.modules[file]), _FILE_NOTES, steps=None, role=Role.CODE)
        self.run()

    def follow(self, path: str, value: Any, steps: int) -> None:
        """Enter the value of an attribute, unless it is told by its value or its identity alone."""
        if isinstance(value, torch.nn.Module):
            self.module(path, value)
        elif isinstance(value, _CALLS) and steps <= _MOST_STEPS:
            self._call(path, value, steps)
        elif isinstance(value, PLAIN + _CODE + _IGNORED) or steps > _MOST_STEPS or not self._is_new(value):
            return
        elif isinstance(value, dict | types.MappingProxyType | list | tuple | deque | set | frozenset):
            self._contain(path, value, frozenset(), steps=steps, role=Role.VALUE)
        elif isinstance(value, PreTrainedConfig):
            self.found.configuration.add(path)
            self._contain(path, vars(value), _NOTES, steps=steps)
        elif _has_open_attributes(value):
            self._contain(path, vars(value), frozenset(), steps=steps)

    def _call(self, path: str, call: Any, steps: int) -> None:
        """Enter what a function, a method or a partial call computes with, beside its arguments."""
        if isinstance(call, functools.partial):
            parts = {"func": call.func, "args": call.args, "keywords": call.keywords}
            self._contain(path, parts, frozenset(), steps=steps)
            return
        function = call.__func__ if isinstance(call, types.MethodType) else call
        if isinstance(function, types.FunctionType):
            captured = Captured(function, getattr(call, "__self__", None))
            if captured and self._is_new(call):
                self._contain(path, captured, frozenset(), steps=None)
                for key, value in captured.items():
                    self._captured(_join(path, key), value, names_in(function.__code__), steps + 1)

    def _captured(self, path: str, value: Any, names: frozenset[str], steps: int) -> None:
        if isinstance(value, torch.Tensor):
            self._tensor(path, "value", value)
        elif isinstance(value, _FOLLOWED_WHOLE) or not _has_open_attributes(value):
            self.follow(path, value, steps)
        elif not isinstance(value, _IGNORED):
            # A server that put a hook on its model is no part of the model, but for what the hook names.
            held = vars(value)
            self._contain(path, held, frozenset(held) - names, steps=steps)

    def _is_new(self, value: Any) -> bool:
        if id(value) in self._seen:
            return False
        self._seen.add(id(value))
        return True

    def _contain(
        self, path: str, values: Any, ignored: frozenset[Any], *, steps: int | None, role: Role = Role.OTHER
    ) -> Any:
        """Enter a container; with ``steps``, what it holds as well, that many steps away from a module."""
        restless = frozenset(self._restless.get(path, ()))
        if WHOLE in restless:
            return {}
        container = Container(path, values, ignored | restless, restless, steps is not None, role)
        self.found.containers.append(container)
        if steps is not None:
            for key, value in container.items():
                if isinstance(value, torch.Tensor):
                    self._tensor(path, key, value)
                elif not is_plain(value) and not is_flat(value):
                    self._pending.append((_join(path, key), value, steps + 1))
        return values

    def _parts(self, path: str, values: Any) -> Any:
        return self._contain(path, values, frozenset(), steps=None, role=Role.PARTS)

    def _tensors(self, path: str, values: dict[str, torch.Tensor | None]) -> None:
        for key, value in self._parts(path, values).items():
            if value is not None and key not in self._restless.get(path, ()):
                self._tensor(path, key, value)

    def _tensor(self, path: str, key: Any, tensor: torch.Tensor) -> None:
        if self._is_new(tensor):
            self.found.tensors[path, key] = tensor
            # A wrapper around other tensors, as quantized weights are, has nothing to look at itself.
            if hasattr(tensor, "__tensor_flatten__"):
                for name in tensor.__tensor_flatten__()[0]:
                    self._tensor(_join(path, key), name, getattr(tensor, name))
            # Others hold codes, and what turns them into numbers hangs on them (bitsandbytes).
            if type(tensor) not in _PLAIN_TENSORS and (held := vars(tensor)):
                self._contain(_join(path, key), held, frozenset(), steps=0)


def _defines_a_forward(kind: type) -> bool:
    return issubclass(kind, torch.nn.Module) and "forward" in vars(kind)


_MACHINERY = frozenset(sys.stdlib_module_names - {"types"})


def _has_open_attributes(value: Any) -> bool:
    """Whether an object shows all that it holds, and is none of a library's own machinery."""
    module = type(value).__module__.partition(".")[0]
    return hasattr(value, "__dict__") and module not in _MACHINERY


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)
