"""A replacement of one submodule's forward call, which comes off again."""

from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch

__all__ = ["ForwardPatch"]

# Marks a forward method as ours, so that a second driver of the same model does not fix it twice.
_PATCHED = "_milepost_upstream_forward"


@dataclass(frozen=True, slots=True)
class ForwardPatch:
    """A replacement of one submodule's forward call, on that submodule alone: its class stays as it is.

    ``forward`` is called with the upstream bound method, the submodule, and the call's arguments.
    """

    module: torch.nn.Module
    forward: Callable[..., Any]

    def apply(self) -> bool:
        """Bind the replacement and return True; where one is bound already, return False and let it be."""
        name = self._name
        upstream = getattr(self.module, name)
        if hasattr(upstream, _PATCHED):
            return False
        forward = self.forward
        # Bound anew on each call, so that a deep copy of the model does not call into this one.
        function = getattr(upstream, "__func__", None)

        def patched(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
            bound = upstream if function is None else MethodType(function, module)
            return forward(bound, module, *args, **kwargs)

        # A method is pickled as its name: what is loaded again has upstream's, until it is opened.
        patched.__name__ = "forward"
        setattr(patched, _PATCHED, upstream)
        setattr(self.module, name, MethodType(patched, self.module))
        return True

    def undo(self) -> None:
        """Put back what ``apply`` found."""
        name = self._name
        upstream = getattr(getattr(self.module, name), _PATCHED, None)
        if upstream is None:
            return
        delattr(self.module, name)
        if getattr(self.module, name, None) != upstream:
            setattr(self.module, name, upstream)

    @property
    def _name(self) -> str:
        # accelerate moves a submodule's forward aside when it places its weights elsewhere.
        return "_old_forward" if "_old_forward" in vars(self.module) else "forward"
