"""Reads a model's configuration, whatever it comes as: an object with attributes, a mapping, or a file.

Published ``config.json`` files leave out what equals the family's default, keep names of older releases,
and wrap a language model in a multimodal one. The reader hides all three, so that a family's formula reads
like its architecture. It never imports the library that wrote the configuration.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from milepost.errors import ConfigurationError, ModelLoadError, UnsupportedModelError

__all__ = ["ConfigReader"]

# Names of layer kinds in older releases.
_LAYER_TYPES = {"mamba": "linear_attention", "attention": "full_attention"}
_ELEMENT_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


class ConfigReader:
    """One language model's configuration.

    Args:
        source: A mapping, an object with attributes, or the path of a ``config.json`` or of its folder.

    Raises:
        ModelLoadError: the file is missing, is not JSON, or is no model's configuration.

    """

    def __init__(self, source: object) -> None:
        if isinstance(source, str | os.PathLike):
            source = _read_json(Path(source))
        outer = _Level(source)
        inner = outer.get("text_config")
        self._levels = [outer] if inner is None else [_Level(inner), outer]
        # Some wrappers leave the inner model's type out.
        named = [level.get("model_type") for level in self._levels]
        self.model_type = next((str(name) for name in named if name), "")
        if not self.model_type:
            raise ModelLoadError(
                "the configuration has no model_type, so its family is unknown; "
                "give the config.json of a causal language model"
            )

    @property
    def outer_model_type(self) -> str:
        """The type of the whole model, where a language model is wrapped in a multimodal one."""
        return str(self._levels[-1].get("model_type") or self.model_type)

    def element_bytes(self, dtype: str | None) -> int:
        """Return the bytes of one element of ``dtype``, or of the configuration's own where it is None."""
        given = dtype
        for level in self._levels:
            for name in ("dtype", "torch_dtype"):
                given = level.get(name) if given is None else given
        if given is None:
            raise ConfigurationError(
                f"dtype=None and the configuration of {self.model_type} names none; "
                f"give dtype, one of {', '.join(_ELEMENT_BYTES)}"
            )
        name = str(given).removeprefix("torch.")
        if name not in _ELEMENT_BYTES:
            raise ConfigurationError(
                f"dtype={name!r}; weights and states are one of {', '.join(_ELEMENT_BYTES)}"
            )
        return _ELEMENT_BYTES[name]

    def optional(self, *names: str) -> Any:
        """Return the first of ``names`` that is set, or None."""
        for name in names:
            value = self._levels[0].get(name)
            if value is not None:
                return value
        return None

    def integer(self, *names: str, default: Any = None, least: int = 0) -> int:
        """Return the first of ``names`` that is set, as an integer of at least ``least``."""
        value = self._value(names, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ModelLoadError(
                f"{names[0]}={value!r} in the configuration of {self.model_type}; it is a count: give an "
                f"integer of at least {least}"
            )
        return value

    def number(self, *names: str, default: Any = None) -> float:
        """Return the first of ``names`` that is set, as a number."""
        return float(self._value(names, default))

    def text(self, *names: str, default: Any = None) -> str:
        """Return the first of ``names`` that is set, as text."""
        return str(self._value(names, default))

    def layer_types(self, *known: str, default: list[str]) -> list[str]:
        """Return the kind of each layer by today's names, or ``default`` where none are given.

        Raises:
            UnsupportedModelError: a layer is of a kind that is not in ``known``.
            ModelLoadError: there are no layers at all.

        """
        given = self.optional("layer_types", "layers_block_type") or default
        kinds = [_LAYER_TYPES.get(str(kind), str(kind)) for kind in given]
        if not kinds:
            raise ModelLoadError(
                f"the configuration of {self.model_type} has no layer_types; "
                "give the config.json that belongs to the weights"
            )
        strange = sorted(set(kinds) - set(known))
        if strange:
            raise UnsupportedModelError(
                f"layer kind {strange[0]!r} in the configuration of {self.model_type}; known are "
                f"{', '.join(known)}. Count the tensors of the running model after two lengths and use "
                "Footprint.from_measurements"
            )
        return kinds

    def _value(self, names: tuple[str, ...], default: Any) -> Any:
        value = self.optional(*names)
        if value is not None:
            return value
        if default is None:
            raise ModelLoadError(
                f"the configuration of {self.model_type} has no {' or '.join(names)}; "
                "give the config.json that belongs to the weights"
            )
        return default


class _Level:
    """One mapping or object, read the same way."""

    def __init__(self, source: object) -> None:
        self._source = source

    def get(self, name: str) -> Any:
        if isinstance(self._source, Mapping):
            return self._source.get(name)
        return getattr(self._source, name, None)


def _read_json(path: Path) -> Mapping[str, Any]:
    path = path / "config.json" if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelLoadError(
            f"{path} cannot be read ({error.strerror}); give a model's folder or its config.json"
        ) from error
    except ValueError as error:
        raise ModelLoadError(f"{path} is not valid JSON ({error}); download it again") from error
    if not isinstance(content, Mapping):
        raise ModelLoadError(f"{path} holds a {type(content).__name__}; a config.json holds an object")
    return content
