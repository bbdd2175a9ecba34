"""Attributes of modules and of objects, and which of them hold another plain value than before.

They are what people switch between two requests: the active adapter, a scale, an attention implementation.
So where nothing but plain values differs, the places that differ are named one by one, and nothing else has
to be looked at again. *Plain* are numbers, names and types, and collections of them (see ``plain``); nothing
hangs on them, so that one may take the place of another and no module, tensor or function comes or goes.
"""

import copy
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, compress
from typing import Any, NamedTuple

from milepost.engines.transformers.watch.inventory import Container, Inventory, Place, Role
from milepost.engines.transformers.watch.plain import is_flat, is_plain

__all__ = ["Settings", "are_same", "holds_settings", "is_watched_by_place"]

_MODE = "training"


class _List(NamedTuple):
    """A collection that can be changed in place: what holds it, itself, and what was in it."""

    holder: Any
    values: Any
    copied: Any


class Settings:
    """See the module.

    Args:
        inventory: Where they are.
    """

    def __init__(self, inventory: Inventory) -> None:
        self._paths: list[str] = []
        self._holders: list[dict[Any, Any]] = []
        self._names: list[tuple[Any, ...]] = []
        self._getters: list[Callable[[dict[Any, Any]], Any]] = []
        # Layers of a kind have attributes of the same names.
        getters: dict[tuple[Any, ...], Callable[[dict[Any, Any]], Any]] = {}
        # Those whose keys are as many as ever; others have some that the model itself puts in.
        self._sized: list[dict[Any, Any]] = []
        self._partial: list[tuple[dict[Any, Any], frozenset[Any], list[Any]]] = []
        # Lists and the like that can be changed in place, under each place that holds them.
        self._lists: dict[Place, _List] = {}
        for container in inventory.containers:
            if holds_settings(container):
                self._take(container, getters)
            if container.is_followed and isinstance(container.values, Mapping | Sequence):
                for key, value in container.items():
                    if is_watched_by_place(value):
                        self._lists[container.path, key] = _List(container.values, value, copy.copy(value))
        self._sizes = list(map(len, self._sized))
        self._values = list(map(operator.call, self._getters, self._holders))
        self._index = {path: index for index, path in enumerate(self._paths)}
        self._take_columns()

    def are_unchanged(self) -> bool:
        """Return whether every place holds what it held."""
        return (
            list(map(len, self._sized)) == self._sizes
            and all(map(operator.eq, map(operator.call, self._getters, self._holders), self._values))
            and are_same(self._held(), self._list_values)
            and _in_order(self._list_values) == self._items
            and self._list_values == self._copies
            and all(_keys_without(values, restless) == keys for values, restless, keys in self._partial)
        )

    def changes(self) -> dict[Place, Any] | None:
        """Return what the places hold that differ; None where more differs than plain values. O(places), and
        some milliseconds for ten thousand.
        """
        if list(map(len, self._sized)) != self._sizes or any(
            _keys_without(values, restless) != keys for values, restless, keys in self._partial
        ):
            return None
        found: dict[Place, Any] = {}
        others = map(_differ, map(operator.call, self._getters, self._holders), self._values)
        for index in compress(range(len(self._values)), others):
            for name, before, after in self._compared(index):
                if after is not before:
                    found[self._paths[index], name] = after
        moved = map(operator.is_not, self._held(), self._list_values)
        changed = map(_differ, self._list_values, self._copies)
        is_other = list(map(operator.or_, moved, changed))
        for path, key in compress(self._lists, is_other):
            found[path, key] = self._lists[path, key].holder[key]
        is_same = list(map(operator.not_, is_other))
        if _in_order(compress(self._list_values, is_same)) != _in_order(compress(self._copies, is_same)):
            return None
        is_plain_change = all(key != _MODE and _is_told(value) for (_, key), value in found.items())
        return found if is_plain_change else None

    def adopt(self, changes: dict[Place, Any]) -> None:
        """Take what :meth:`changes` returned for what the places hold."""
        for (path, key), value in changes.items():
            index = self._index.get(path)
            if index is None:
                holder = self._lists[path, key].holder
            else:
                holder = self._holders[index]
                values = zip(self._names[index], self._values[index], strict=True)
                self._values[index] = tuple(value if name == key else was for name, was in values)
            self._lists.pop((path, key), None)
            if is_watched_by_place(value):
                self._lists[path, key] = _List(holder, value, copy.copy(value))
        self._take_columns()

    def _compared(self, index: int) -> Iterator[tuple[Any, Any, Any]]:
        """Yield names, what they held, and what they hold."""
        names = self._names[index]
        return zip(names, self._values[index], map(self._holders[index].get, names), strict=True)

    def _held(self) -> Iterator[Any]:
        return map(operator.getitem, self._list_holders, self._list_keys)

    def _take(
        self, container: Container, getters: dict[tuple[Any, ...], Callable[[dict[Any, Any]], Any]]
    ) -> None:
        values = container.values
        assert isinstance(values, dict)
        names = tuple(key for key in values if key not in container.ignored)
        if container.role is Role.MODULE:
            names = (_MODE, *names)
        if container.restless:
            self._partial.append((values, container.restless, _keys_without(values, container.restless)))
        else:
            self._sized.append(values)
        if len(names) == 1:
            # With one name alone, a getter returns no tuple.
            names *= 2
        if names:
            self._paths.append(container.path)
            self._holders.append(values)
            self._names.append(names)
            self._getters.append(getters.setdefault(names, operator.itemgetter(*names)))

    def _take_columns(self) -> None:
        self._list_keys = [key for _, key in self._lists]
        columns = list(zip(*self._lists.values(), strict=True)) or [()] * len(_List._fields)
        self._list_holders, self._list_values, self._copies = map(list, columns)
        self._items = _in_order(self._list_values)


def holds_settings(container: Container) -> bool:
    """Return whether ``container`` is the attributes of a module or of an object."""
    if container.role is Role.MODULE:
        return True
    return container.role is Role.OTHER and container.is_followed and isinstance(container.values, dict)


def is_watched_by_place(value: Any) -> bool:
    """Return whether ``value`` is a collection of plain values that can be changed in place."""
    return isinstance(value, list | dict | set) and is_flat(value)


def are_same(values: Iterable[Any], same: Iterable[Any]) -> bool:
    """Return whether ``values`` are the very objects ``same``."""
    return all(map(operator.is_, values, same))


def _differ(one: Any, other: Any) -> bool:
    """Return whether two collections are not equal, as those are that hold what cannot be compared."""
    try:
        return bool(one != other)
    except Exception:
        # A tensor has no one answer.
        return True


def _in_order(collections: Iterable[Iterable[Any]]) -> list[Any]:
    """Return items and keys in the order that comparing dictionaries leaves aside."""
    return list(chain.from_iterable(collections))


def _is_told(value: Any) -> bool:
    return is_plain(value) or is_flat(value)


def _keys_without(values: dict[Any, Any], restless: frozenset[Any]) -> list[Any]:
    return [key for key in values if key not in restless]
