"""Lets SGLang be imported where torchvision is not installed: a release of torchvision belongs to one torch,
and nothing of a cache looks at an image. Its modules are empty, and whatever is asked of them is made up.
"""

import importlib.machinery
import importlib.util
import sys
import types

_MODULES = (
    "torchvision",
    "torchvision.io",
    "torchvision.models",
    "torchvision.ops",
    "torchvision.transforms",
    "torchvision.transforms.functional",
    "torchvision.transforms.v2",
    "torchvision.transforms.v2.functional",
)


class _Absent(types.ModuleType):
    def __init__(self, name):
        super().__init__(name)
        self.__path__ = []
        self.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        self.__version__ = "0"

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name[0].isupper():
            return type(name, (), {})
        module = _Absent(f"{self.__name__}.{name}")
        setattr(self, name, module)
        return module

    def __call__(self, *given, **named):
        is_plain_decorator = len(given) == 1 and callable(given[0]) and not named
        return given[0] if is_plain_decorator else lambda function: function


def stand_in():
    """Put empty modules in the place of torchvision. transformers must find out first that there is none."""
    if importlib.util.find_spec("torchvision") is not None:
        return
    import transformers.modeling_utils  # noqa: F401 (so that it looks for torchvision now)
    from transformers.utils import import_utils

    for name in ("is_torchvision_available", "is_torchvision_v2_available"):
        if hasattr(import_utils, name):
            getattr(import_utils, name)()
    for name in _MODULES:
        sys.modules[name] = _Absent(name)
