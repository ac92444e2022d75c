"""What a protocol file can get wrong, told before anything slow starts."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from dualview.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from dualview.evaluation.protocol import Protocol

_ERRORS = ("trans_err", "scale_err", "orient_err", "vel_err", "attr_err")
_NUMBERS = ("min_recall", "min_precision", "mean_ap_weight", "tolerance_s", "keyframe_interval_s")


def check_values(protocol: Protocol) -> None:
    """Raises ConfigError for a value that can't be meant, naming its key and what is expected there."""
    where = f"protocol '{protocol.name}'"
    for key in ("class_ranges", "tracking_ranges"):
        ranges = getattr(protocol, key)
        if not isinstance(ranges, Mapping):
            raise ConfigError(f"{where}: {key} must map classes to distances in m (car: 50), got {ranges!r}")
        for name, distance in ranges.items():
            if not isinstance(name, str) or not _is_number(distance) or distance <= 0:
                raise ConfigError(
                    f"{where}: {key}.{name} must be a distance in m above zero, got {distance!r}"
                )
    for key in _NUMBERS:
        if not _is_number(getattr(protocol, key)) or getattr(protocol, key) < 0:
            raise ConfigError(f"{where}: {key} must be a number from zero on, got {getattr(protocol, key)!r}")
    for key in ("max_boxes", "recall_steps"):
        count = getattr(protocol, key)
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ConfigError(f"{where}: {key} must be a whole number from 1 on, got {count!r}")
    thresholds = protocol.distance_thresholds
    if not isinstance(thresholds, tuple) or not all(_is_number(t) and t > 0 for t in thresholds):
        raise ConfigError(
            f"{where}: distance_thresholds must be a list of distances in m, got {thresholds!r}"
        )
    _check_bins(protocol.range_bins, where)
    constants = protocol.constant_errors
    if not isinstance(constants, Mapping) or not all(k in _ERRORS and _is_number(v) for k, v in constants.items()):
        raise ConfigError(f"{where}: constant_errors must map some of {', '.join(_ERRORS)} to numbers, got {constants!r}")
    names = protocol.class_map
    if not isinstance(names, Mapping) or not all(isinstance(n, str) for pair in names.items() for n in pair):
        raise ConfigError(f"{where}: class_map must map names of classes to names that are scored, got {names!r}")
    if not isinstance(protocol.undefined_errors, Mapping):
        raise ConfigError(f"{where}: undefined_errors must map classes to lists of {', '.join(_ERRORS)}")
    for name, errors in protocol.undefined_errors.items():
        if not isinstance(errors, tuple | list) or not set(errors) <= set(_ERRORS):
            raise ConfigError(
                f"{where}: undefined_errors.{name} must be a list of {', '.join(_ERRORS)}, got {errors!r}"
            )


def _check_bins(bins: Any, where: str) -> None:
    fine = isinstance(bins, tuple) and all(
        isinstance(b, tuple) and len(b) == 2 and all(map(_is_number, b)) and 0 <= b[0] < b[1] for b in bins
    )
    if not fine:
        raise ConfigError(
            f"{where}: range_bins must be a list of [near, far] in m with near < far, got {bins!r}"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_classes(protocol: Protocol, known: Collection[str], usual: Collection[str]) -> None:
    """Raises ConfigError if the protocol scores a class that nobody has heard of, which is a slip of the pen more often than not.

    known: what the labels and the detector call their classes. usual: classes of benchmarks, which may be absent from a short drive.
    """
    names = {protocol.class_map.get(name, name) for name in known}
    allowed = names | set(usual) | set(protocol.class_map.values())
    for key in ("class_ranges", "tracking_ranges"):
        for name in getattr(protocol, key):
            if name not in allowed:
                meant = did_you_mean(name, sorted(allowed))
                raise ConfigError(
                    f"protocol '{protocol.name}': {key} has the class '{name}', which neither the labels nor the detector know: "
                    f"{meant}{' ' if meant else ''}They have {', '.join(sorted(names)) or 'no classes at all'}"
                )
