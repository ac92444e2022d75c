"""How far off the distances of found objects are: the error that cameras make most."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dualview.evaluation.matching import KeyframeMatches
from dualview.evaluation.protocol import Protocol


@dataclass(frozen=True)
class DepthError:
    """Error of the horizontal distance from the vehicle along the ray to the object, over `matches` true positives.

    absolute: mean of |predicted - labelled| distance, m. relative: mean of the same divided by the labelled distance. bias: mean of
    predicted - labelled, m; above zero where objects are put too far away. All NaN without a match. Only boxes within the
    true-positive distance of their label are seen, so no single error is above it.
    """

    absolute: float
    relative: float
    bias: float
    matches: int


@dataclass(frozen=True)
class DepthErrors:
    """Over all true positives, by class, by distance bin ("0-15m"; a pair belongs to its label's bin), and by bin and class."""

    overall: DepthError
    classes: Mapping[str, DepthError]
    bins: Mapping[str, DepthError]
    bin_classes: Mapping[str, Mapping[str, DepthError]]


@dataclass(frozen=True)
class _Pair:
    name: str
    labelled: float
    predicted: float


def depth_errors(matches: Sequence[KeyframeMatches], protocol: Protocol) -> DepthErrors:
    """Depth errors of all true positives, whatever their score."""
    pairs = [
        _Pair(label.detection_name, label.ego_dist, prediction.ego_dist)
        for keyframe in matches
        for label, prediction in keyframe.pairs()
    ]
    names = list(protocol.class_ranges)
    bins = {
        f"{near:g}-{far:g}m": [p for p in pairs if near <= p.labelled < far]
        for near, far in protocol.range_bins
    }
    return DepthErrors(
        _error(pairs),
        {name: _error(p for p in pairs if p.name == name) for name in names},
        {title: _error(inside) for title, inside in bins.items()},
        {
            title: {name: _error(p for p in inside if p.name == name) for name in names}
            for title, inside in bins.items()
        },
    )


def _error(pairs: Iterable[_Pair]) -> DepthError:
    rows = np.array([(p.labelled, p.predicted) for p in pairs], dtype=np.float64).reshape(-1, 2)
    if not len(rows):
        return DepthError(float("nan"), float("nan"), float("nan"), 0)
    labelled, difference = rows[:, 0], rows[:, 1] - rows[:, 0]
    relative = np.abs(difference) / np.maximum(labelled, 1e-3)  # an object can't stand where the vehicle is
    return DepthError(
        float(np.abs(difference).mean()), float(relative.mean()), float(difference.mean()), len(rows)
    )
