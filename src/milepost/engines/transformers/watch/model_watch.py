"""Which model is this, as it computes now? A name that no other way of computing ever has.

States may be served only to the model that made them. A model in memory is not one thing, though: weights
are trained, adapters switched, layers replaced, precisions set, all behind an engine's back. So the engine
looks before each request, and again before it stores anything; what it sees is a :class:`ModelIdentity`.

An identity is the *content* and a *description*. The content is a number that goes up whenever weights or
modules change in any way, and never comes back: a counter may repeat itself, and so may an address. All else
is described by value, so that an adapter, an attention implementation or a precision that is switched back
is known again, and so are its states.

A look is a *glance*, which says only whether anything differs. Where nothing but settings differs (plain
values, and torch's switches) and makes the model what it was once before, these alone are described anew.
Whatever else differs, or was never met, takes a *close look* at everything.

*Seen by itself*: the identity, version counter, storage, type, shape and place of every parameter, buffer and
other tensor within reach; modules put in, taken out or of another class; steps of optimizers that hold any of
the weights (fused ones pass the version counters by); attributes of modules, through lists, dictionaries and
objects; the configuration; hooks, and what they captured; functions of classes, of modeling files and of
registries; merged adapters; torch's numeric switches; training mode, which is refused.

*Not seen*: values written through ``.data``, a NumPy view or a kernel of one's own. :meth:`ModelWatch.
invalidate` is for those. *Left out*: places that a plain forward call changes, as the opened model showed
them (``restless``); they are logged.
"""

import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from milepost.engines.transformers.watch.description import Description, Serials, differences
from milepost.engines.transformers.watch.glance import Glance, stamp_of
from milepost.engines.transformers.watch.inventory import WHOLE, Inventory, Place, take_inventory
from milepost.engines.transformers.watch.numeric_switches import numeric_switches
from milepost.engines.transformers.watch.training_mode import refuse_training

__all__ = ["ModelIdentity", "ModelWatch"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

# Adapters are merged into weights, and taken out again up to rounding, where no counter sees it.
_MERGES = frozenset({"merged_adapters", "merged", "_merged"})


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """One way of computing.

    Attributes:
        content: Number of the weights and modules; goes up and never comes back.
        digest: Digest of the content and of all else.
        shape: Digest of what the size and the course of a forward call hang on.
    """

    content: int
    digest: bytes
    shape: bytes

    def tenant(self, name: str) -> str:
        """Return who a request of tenant ``name`` is to the cache: prompts of different identities, as those
        of different tenants, share nothing.
        """
        return f"{self.content}.{self.digest.hex()}:{name}"

    def has_content_of(self, tenant: str) -> bool:
        """Return whether ``tenant``, as :meth:`tenant` gave it, is of this content."""
        return tenant.startswith(f"{self.content}.")


class ModelWatch:
    """See the module.

    Args:
        model: The model.
        settle: Runs a short forward call, so that what the model itself changes on its first call after a
            change of its weights is done before it is looked at.

    Raises:
        ConfigurationError: the model is in training mode.
    """

    def __init__(self, model: torch.nn.Module, *, settle: Callable[[], Any]) -> None:
        self._model = model
        self._settle = settle
        self._serials = Serials()
        self._restless: frozenset[Place] = frozenset()
        self._module_ids = frozenset(map(id, model.modules()))
        self._content = 0
        self._is_stale = True
        # Digests that this content was met with.
        self._known: set[bytes] = set()
        self._look_closely()
        _watch_optimizers(self)

    def look(self) -> ModelIdentity:
        """Return the model's identity now. Well under a millisecond where nothing has changed.

        Raises:
            ConfigurationError: the model is in training mode.
            Exception: what a forward call of the changed model raises.
        """
        if not self._is_as_before() and not self._is_known_again():
            identity, words = self._identity, self._description.words
            self._look_closely()
            if self._identity != identity:
                what = differences(words, self._description.words) or "its weights were changed"
                _log.info("the model computes otherwise by now: %s", what)
        return self._identity

    def invalidate(self) -> None:
        """Take the content for another one, from the next look on."""
        self._is_stale = True

    @property
    def inventory(self) -> Inventory:
        """What was found at the last look, but for restless places."""
        return self._inventory

    def holds(self, tensor: torch.Tensor) -> bool:
        """Return whether ``tensor`` is one of those watched."""
        return id(tensor) in self._tensor_ids

    def learn_restless(self, run: Callable[[], T]) -> T:
        """Return what ``run`` returns, which does nothing but run the model; what it changes is left out of
        all looks from now on.
        """
        before = self._inventory, self._contents, self._description.words
        result = run()
        inventory = take_inventory(self._model, restless=self._restless)
        self._take(inventory)
        modules = inventory.modules.keys() | before[0].modules.keys()
        changed = {
            # A container that grows or shrinks does so again; a module gets its attributes once.
            (path, WHOLE if was_there is not is_there and path not in modules else key)
            for old, new in ((before[1], self._contents), (before[2], self._description.words))
            for path, key in {**old, **new}
            if (place := (path, key))
            and ((was_there := place in old) is not (is_there := place in new) or old[place] != new[place])
        }
        if changed:
            names = sorted(f"{path}.{key}" for path, key in changed)
            _log.info(
                "%d places change with every forward call and are not watched: %s",
                len(names),
                ", ".join(names[:5]),
            )
            self._restless |= changed
            self._take(take_inventory(self._model, restless=self._restless))
        return result

    def _is_as_before(self) -> bool:
        return (
            not self._is_stale
            and numeric_switches(self._device_type) == self._switches
            and self._glance.is_unchanged()
        )

    def _is_known_again(self) -> bool:
        """Return whether nothing but plain values and numeric switches differs, and with these the model is
        what it was once before, under the same content; then that is what it is from now on.
        """
        if self._is_stale or not (self._glance.has_same_structure() and self._glance.has_same_tensors()):
            return False
        changes, switches = self._glance.settings.changes(), numeric_switches(self._device_type)
        if changes is None or any(key in _MERGES for _, key in changes):
            return False
        words = self._description.differing(changes, switches)
        if words is None:
            return False
        digest, shape = self._description.digests(self._content, instead=words)
        if digest not in self._known:
            return False
        _log.debug("the model is as it was once before: %d places differ", len(words))
        self._glance.settings.adopt(changes)
        self._description.adopt(words)
        self._switches = switches
        self._identity = ModelIdentity(self._content, digest, shape)
        return True

    def _look_closely(self) -> None:
        refuse_training(self._model, is_known=self._module_ids)
        # Where the model cannot run, the next look is as close as this one.
        is_stale, self._is_stale = self._is_stale, True
        inventory = take_inventory(self._model, restless=self._restless)
        if is_stale or _contents(inventory) != self._contents or not self._glance.has_same_tensors():
            self._content += 1
            self._settle()
            inventory = take_inventory(self._model, restless=self._restless)
            self._known.clear()
        self._take(inventory)
        if self._identity.digest not in self._known:
            # What was put in since (a hook that counts, pruned weights) may change with every call, too.
            self.learn_restless(self._settle)
            self._known.add(self._identity.digest)
        self._is_stale = False

    def _take(self, inventory: Inventory) -> None:
        tensors = inventory.tensors.values()
        self._inventory = inventory
        self._device_type = next((tensor.device.type for tensor in tensors), "cpu")
        self._tensor_ids = frozenset(map(id, tensors))
        self._module_ids = frozenset(
            id(module) for module in inventory.modules.values() if not module.training
        )
        self._contents = _contents(inventory)
        self._switches = numeric_switches(self._device_type)
        self._glance: Glance = Glance(inventory)
        self._description: Description = Description(inventory, self._switches, self._serials)
        self._identity = ModelIdentity(self._content, *self._description.digests(self._content))


def _contents(inventory: Inventory) -> dict[Place, Any]:
    """Return what has to stay the same for the weights to be the same, while the inventory is kept."""
    contents: dict[Place, Any] = {}
    for path, module in inventory.modules.items():
        contents[path, "module"] = id(module), type(module)
    for place, tensor in inventory.tensors.items():
        contents[place] = id(tensor), stamp_of(tensor)
    for container in inventory.containers:
        if isinstance(values := container.values, dict):
            contents |= {(container.path, key): repr(values[key]) for key in _MERGES.intersection(values)}
    return contents


def _watch_optimizers(watch: ModelWatch) -> None:
    """Have ``watch`` told of the steps of all optimizers that hold any of its weights: the fused ones change
    weights and leave their counters as they are.
    """
    watching = weakref.ref(watch)

    def note_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        watch = watching()
        if watch is not None and any(
            watch.holds(parameter) for group in optimizer.param_groups for parameter in group["params"]
        ):
            watch.invalidate()

    handle = register_optimizer_step_post_hook(note_step)
    weakref.finalize(watch, handle.remove).atexit = False
