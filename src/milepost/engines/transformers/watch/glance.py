"""Whether anything has changed since an inventory was taken, told in a fraction of a millisecond.

Nothing is walked and nothing is described. Of every module, its own attributes, its children and its tensors
are compared to what they were, object by object; of every tensor, the version counter and the address; and
every other container to a shallow copy of it. The loops are C's own, and touch as little memory as they can:
between two looks a model has run, so that none of it is in the processor's caches. A difference says only
that a closer look is due.

Three things make it sound. A value that equals another without being it (a list, a tensor of one element)
is compared by identity too, since from then on the other one would be the one to watch. An address may be
used again after its memory is freed, so the storage behind it is remembered by a weak reference, which keeps
its bookkeeping from being used again, and not its memory alive. And tensors made in inference mode have no
version counter, so of those a sample of the values is compared.
"""

import operator
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.hooks import RemovableHandle

from milepost.engines.transformers.identity import sample_digest
from milepost.engines.transformers.watch.inventory import MODULE_FIELDS, Inventory, Role
from milepost.engines.transformers.watch.plain import is_flat, is_plain
from milepost.engines.transformers.watch.settings import Settings, are_same, holds_settings

__all__ = ["Glance", "stamp_of"]

_version_of = operator.attrgetter("_version")
# Reloading a file, as notebooks do, gives the functions that are there other code.
_code_of = operator.attrgetter("__code__")
_address_of = torch._C.TensorBase.data_ptr
_values_of = operator.methodcaller("values")
_is_expired: Any = torch.UntypedStorage._expired


class Glance:
    """See the module.

    Attributes:
        settings: The part in which plain values may take each other's places.
    """

    def __init__(self, inventory: Inventory) -> None:
        self._next_hook: int = RemovableHandle.next_id
        self.settings = Settings(inventory)
        self._take_containers(inventory)
        with torch._C.DisableTorchFunctionSubclass():
            self._take_tensors(inventory)

    def is_unchanged(self) -> bool:
        """Return whether everything is as it was."""
        return self.has_same_settings() and self.has_same_structure() and self.has_same_tensors()

    def has_same_settings(self) -> bool:
        """Return whether attributes of modules and of objects hold the same values."""
        try:
            return self.settings.are_unchanged()
        except Exception:
            return False  # as below

    def has_same_structure(self) -> bool:
        """Return whether all other containers hold the same values."""
        try:
            return (
                list(map(len, self._sized)) == self._sizes
                and all(list(map(get, parts)) == values for get, parts, values in self._lone_parts)
                and list(chain.from_iterable(map(dict.values, self._parts))) == self._part_values
                and self._has_no_new_hooks()
                and not any(self._empty)
                and list(map(type, self._modules)) == self._classes
                and list(map(_code_of, self._functions)) == self._codes
                and list(chain.from_iterable(self._tables)) == self._table_keys
                and list(chain.from_iterable(map(_values_of, self._tables))) == self._table_values
                and self._filled == self._copies
                and are_same(map(operator.getitem, self._holders, self._keys), self._held)
                and all(_without(values, restless) == copy for values, restless, copy in self._partial)
            )
        except Exception:
            # Two tensors, or a key that is gone: the comparison itself has no answer.
            return False

    def _has_no_new_hooks(self) -> bool:
        """Look at the modules without hooks only if hooks were put anywhere since."""
        if RemovableHandle.next_id != self._next_hook:
            if any(self._unhooked):
                return False
            self._next_hook = RemovableHandle.next_id
        return True

    def has_same_tensors(self) -> bool:
        """Return whether all tensors have the same content, as far as their counters and addresses tell."""
        try:
            # Subclasses, as of quantized weights, would take every attribute through Python.
            with torch._C.DisableTorchFunctionSubclass():
                return (
                    list(map(_version_of, self._versioned)) == self._versions
                    and list(map(_address_of, self._addressed)) == self._addresses
                    and not any(map(_is_expired, self._storage_handles))
                    and (not self._unversioned or sample_digest(self._unversioned) == self._sample)
                )
        except (RuntimeError, NotImplementedError):
            return False  # one has lost its memory

    def _take_containers(self, inventory: Inventory) -> None:
        # Children, parameters and buffers: the only one of its module, by its name, and several, in order.
        lone_parts: dict[str, list[dict[str, Any]]] = {}
        self._parts: list[dict[str, Any]] = []
        # Namespaces and dictionaries: reading them in order touches far less memory than comparing them does.
        self._tables: list[Mapping[Any, Any]] = []
        self._unhooked: list[Any] = []
        self._empty: list[Any] = []
        self._filled: list[Any] = []
        self._copies: list[Any] = []
        self._partial: list[tuple[Any, frozenset[Any], Any]] = []
        self._holders: list[Any] = []
        self._keys: list[Any] = []
        self._held: list[Any] = []
        self._modules = list(inventory.modules.values())
        self._classes = list(map(type, self._modules))
        self._functions = list(inventory.functions())
        self._codes = list(map(_code_of, self._functions))
        for container in inventory.containers:
            values = container.values
            if holds_settings(container):
                pass
            elif container.restless:
                self._partial.append((values, container.restless, _without(values, container.restless)))
            elif not values:
                (self._unhooked if container.role is Role.HOOKS else self._empty).append(values)
            elif container.role is Role.PARTS:
                assert isinstance(values, dict)
                if len(values) == 1:
                    lone_parts.setdefault(next(iter(values)), []).append(values)
                else:
                    self._parts.append(values)
            elif isinstance(values, Mapping):
                self._tables.append(values)
            elif not isinstance(values, tuple):
                self._filled.append(values)
                self._copies.append(_shallow_copy(values))
            is_compared = container.is_followed or container.role is Role.PARTS
            if is_compared and isinstance(values, Mapping | Sequence):
                for key, value in container.items():
                    if key not in MODULE_FIELDS and _may_equal_another(value):
                        self._holders.append(values)
                        self._keys.append(key)
                        self._held.append(value)
        self._take_values(lone_parts)

    def _take_values(self, lone_parts: dict[str, list[dict[str, Any]]]) -> None:
        self._lone_parts = [
            (get := operator.itemgetter(name), parts, list(map(get, parts)))
            for name, parts in lone_parts.items()
        ]
        self._part_values = list(chain.from_iterable(map(dict.values, self._parts)))
        self._sized = [*chain.from_iterable(lone_parts.values()), *self._parts]
        self._sizes = list(map(len, self._sized))
        self._table_keys = list(chain.from_iterable(self._tables))
        self._table_values = list(chain.from_iterable(map(_values_of, self._tables)))

    def _take_tensors(self, inventory: Inventory) -> None:
        tensors = list(inventory.tensors.values())
        self._unversioned = [tensor for tensor in tensors if tensor.is_inference()]
        self._sample = sample_digest(self._unversioned)
        self._versioned = [tensor for tensor in tensors if not tensor.is_inference()]
        self._versions = list(map(_version_of, self._versioned))
        self._addressed: list[torch.Tensor] = []
        self._storages: list[StorageWeakRef] = []
        for tensor in tensors:
            try:
                storage = tensor.untyped_storage()
                _address_of(tensor)
            except (RuntimeError, NotImplementedError):
                continue  # without memory of its own
            self._addressed.append(tensor)
            self._storages.append(StorageWeakRef(storage))
        self._addresses = list(map(_address_of, self._addressed))
        self._storage_handles = [storage.cdata for storage in self._storages]


def stamp_of(tensor: torch.Tensor) -> tuple[int | None, int | None]:
    """Return the version and the address of ``tensor``; None for what it has not got."""
    with torch._C.DisableTorchFunctionSubclass():
        version = None if tensor.is_inference() else _version_of(tensor)
        try:
            return version, _address_of(tensor)
        except (RuntimeError, NotImplementedError):
            return version, None


def _shallow_copy(values: Any) -> Any:
    if isinstance(values, Mapping):
        return dict(values)
    return type(values)(values)


def _without(values: Any, keys: frozenset[Any]) -> Any:
    if isinstance(values, Mapping):
        return {key: value for key, value in values.items() if key not in keys}
    return [value for key, value in enumerate(values) if key not in keys]


def _may_equal_another(value: Any) -> bool:
    """Return whether something else could compare equal to ``value`` and not be told by its value."""
    if is_plain(value) or is_flat(value) or getattr(type(value), "__eq__", None) is object.__eq__:
        return False
    return not isinstance(value, torch.Tensor) or value.numel() == 1
