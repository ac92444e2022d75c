"""Small numerical habits that the distillation losses share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def precise(values: Tensor) -> Tensor:
    """At least float32: half precision is widened, float64 (gradient checks) stays."""
    return values if values.dtype == torch.float64 else values.float()


def zero_of(*tensors: Tensor) -> Tensor:
    """A zero that hangs on the graphs of `tensors`, whatever they hold: backward gives zeros, even beside NaN."""
    total = precise(tensors[0]).flatten()[:0].sum()
    for other in tensors[1:]:
        total = total + precise(other).flatten()[:0].sum()
    return total


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No autocast inside: squared sums and exponentials of similarities don't fit into half precision."""
    with torch.autocast(device.type, enabled=False):
        yield


def safe_sqrt(values: Tensor) -> Tensor:
    """Square root of values >= 0 with gradient 0, not infinity, at 0."""
    positive = values > 0
    return torch.where(positive, torch.where(positive, values, 1.0).sqrt(), 0.0)
