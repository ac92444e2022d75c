"""Frozen dataclasses to JSON and back, with errors that name the key that is wrong and the one that was
likely meant.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from dualview.errors import ConfigError, did_you_mean

Config = TypeVar("Config")


def to_dict(config: Any) -> Any:
    """A (nested) dataclass as JSON-ready dicts and lists."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: to_dict(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, tuple | list):
        return [to_dict(item) for item in config]
    return config


def from_dict(kind: type[Config], values: Any, where: str = "config") -> Config:
    """The dataclass `kind` that `values` describes; fields that aren't named keep their defaults.

    Raises ConfigError naming the path (`config.bev.grid`) of an unknown key, a missing one, or a value of the
    wrong type.
    """
    if not isinstance(values, dict):
        raise ConfigError(
            f"{where} must be a mapping of {kind.__name__}'s fields, got {type(values).__name__}"
        )
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, kind))}
    for key in values:
        if key not in fields:
            meant = did_you_mean(key, fields, f"known keys are {', '.join(fields)}")
            raise ConfigError(f"{where} has no key '{key}': {meant}")
    hints = typing.get_type_hints(kind)
    given = {key: _convert(hints[key], value, f"{where}.{key}") for key, value in values.items()}
    for name, field in fields.items():
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and name not in given:
            raise ConfigError(f"{where} lacks the key '{name}'")
    try:
        return kind(**given)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type `hint`, or ConfigError."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = [a for a in arguments if a is not type(None)]
        return _convert(hint, value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise ConfigError(f"{where} must be one of {', '.join(map(repr, arguments))}, got {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} must be a list, got {value!r}")
        if arguments[-1] is Ellipsis:
            arguments = (arguments[0],) * len(value)
        elif len(arguments) != len(value):
            raise ConfigError(f"{where} must have {len(arguments)} entries, got {len(value)}")
        return tuple(
            _convert(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(arguments, value, strict=True))
        )
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where} must be a section of names and values, got {value!r}")
        return {str(key): _convert(arguments[1], v, f"{where}.{key}") for key, v in value.items()}
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(Any, hint), value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where} must be a finite number, got {value!r}")
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where} must be {hint.__name__}, got {value!r}")
    return value


def override(config: Config, changes: Mapping[str, Any]) -> Config:
    """A copy of `config` with the fields at dotted paths, such as "bev.grid.resolution", set to other values.

    Raises ConfigError for an unknown path, a value of the wrong type, or values that don't go together.
    """
    values = to_dict(config)
    for path, value in changes.items():
        if not isinstance(path, str):
            raise ConfigError(f"config has no key {path!r}: keys are names, dotted where sections lie within one another")
        target = values
        *parents, last = path.split(".")
        for depth, key in enumerate(parents):
            if not isinstance(target.get(key), dict):
                section = ".".join(parents[: depth + 1])
                raise ConfigError(f"config has no section '{section}' to set '{path}' in")
            target = target[key]
        target[last] = value
    return from_dict(type(config), values)
