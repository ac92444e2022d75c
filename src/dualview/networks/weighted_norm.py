"""A batch norm of rows that each stand for several equal ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def weighted_norm(rows: Tensor, weight: Tensor, norm: nn.Module) -> Tensor:
    """A batch norm of rows [R, C], each of which stands for weight [R] equal ones; in training it learns the statistics of all of
    them, a synchronised norm those of all processes. One row is enough, and a process may come with none.
    """
    assert isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)) and norm.momentum is not None
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    rows = rows.to(norm.weight.dtype)  # under autocast they are shorter
    if norm.training:
        count = _everywhere(weight.sum(), norm)
        momentum = norm.momentum * (count > 0)  # of nothing there are no statistics
        count = count.clamp(min=1)
        batch_mean = _everywhere((weight.unsqueeze(1) * rows).sum(0), norm) / count
        batch_variance = _everywhere((weight.unsqueeze(1) * (rows - batch_mean).square()).sum(0), norm) / count
        with torch.no_grad():
            mean.lerp_(batch_mean, momentum)
            variance.lerp_(batch_variance * count / (count - 1).clamp(min=1), momentum)
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked += 1
        mean, variance = batch_mean, batch_variance
    scale = norm.weight * (variance + norm.eps).rsqrt()
    return rows * scale + (norm.bias - mean * scale)


def norm_rows(rows: Tensor, norm: nn.Module) -> Tensor:
    """A batch norm of rows [R, C] or [R, C, 1, 1] that a single one doesn't stop in training, where torch's refuses it unless it is
    synchronised.
    """
    alone = not (isinstance(norm, nn.SyncBatchNorm) and torch.distributed.is_available() and torch.distributed.is_initialized())
    if norm.training and len(rows) == 1 and alone:
        return weighted_norm(rows.flatten(1), rows.new_ones(1), norm).to(rows.dtype).view_as(rows)
    normed: Tensor = norm(rows)
    return normed


def _everywhere(value: Tensor, norm: nn.Module) -> Tensor:
    """The sum over all processes, with its gradient, if the norm is synchronised; else the value."""
    if isinstance(norm, nn.SyncBatchNorm) and torch.distributed.is_available() and torch.distributed.is_initialized():
        summed: Tensor = _SumOfProcesses.apply(value)
        return summed
    return value


class _SumOfProcesses(torch.autograd.Function):
    """Every process has the sum, so its gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        summed = value.clone()
        torch.distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return _SumOfProcesses.forward(context, gradient)
