"""Depth losses of TiG-BEV (Huang et al. 2022, arXiv 2212.13979): absolute depth, and the inner depth of objects.

Inner depth (section 3.2): how deep each LiDAR-hit pixel of an object lies relative to one reference pixel of the
same object. Where paper and published code differ, the code is the default and the paper's reading is an option.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from dualview.networks.lift_splat import DepthBins
from dualview.supervision.numerics import full_precision, precise, safe_sqrt, zero_of
from dualview.supervision.tig_targets import ObjectDepth


@dataclass(frozen=True)
class InnerDepthConfig:
    """weight: of the term (published: 1).

    reference: the pixel that an object's depths are relative to. "smallest_error": |predicted - measured| is
    least (published code, and the paper's text); "signed_error": predicted - measured is largest, which is
    equation 2 as printed; "highest_confidence": the most certain depth distribution (Table 5).
    detach_reference: the reference's prediction gets no gradient (published code; the paper is silent).
    reduction: "pixel_mean": squared error over all foreground pixels of the batch (published code);
    "object_norm": sum over objects of the L2 norm (equation 4).
    bin_centers: expected depth from the bins' centres (equation 1); the published code takes lower edges.
    """

    weight: float = 1.0
    reference: Literal["smallest_error", "signed_error", "highest_confidence"] = "smallest_error"
    detach_reference: bool = True
    reduction: Literal["pixel_mean", "object_norm"] = "pixel_mean"
    bin_centers: bool = True

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ValueError(f"inner depth's weight is {self.weight}: give more than 0, or inner_depth: null to turn it off")


def expected_depth(depth_logits: Tensor, bins: DepthBins, bin_centers: bool = True) -> Tensor:
    """Mean (m) of the softmax over bins, [..., D, h, w] -> [..., h, w] (equation 1)."""
    if depth_logits.shape[-3] != bins.count:
        raise ValueError(
            f"depth logits have {depth_logits.shape[-3]} bins, {bins} has {bins.count}: give the lift's own bins"
        )
    values = (bins.centers() if bin_centers else bins.edges()).to(depth_logits.device)
    probability = precise(depth_logits).softmax(-3)
    return (probability * values.to(probability)[:, None, None]).sum(-3)


def absolute_depth_loss(
    depth_logits: Tensor, target: ObjectDepth, bins: DepthBins, weight: float = 100.0
) -> Tensor:
    """Binary cross entropy of the *sigmoid* of depth logits [B, N, D, h, w] with the measured bin, averaged over
    all elements, unmeasured ones too (they count zero), as the published code has it beside its softmax lift.
    """
    logits = precise(depth_logits)
    known = target.depth > 0
    index = ((target.depth - bins.start) / bins.step).floor().long()
    known = known & (index >= 0) & (index < bins.count)
    chosen = logits.movedim(-3, -1)[known]  # [K, D]
    one_hot = functional.one_hot(index[known], bins.count).to(chosen)
    with full_precision(logits.device):
        total = functional.binary_cross_entropy_with_logits(chosen, one_hot, reduction="sum")
    return weight * total / max(logits.numel(), 1)


def inner_depth_loss(
    depth_logits: Tensor, target: ObjectDepth, bins: DepthBins, config: InnerDepthConfig
) -> Tensor:
    """Inner-depth supervision of depth logits [B, N, D, h, w] (equations 1 to 4).

    An object that two cameras see has a reference pixel in each. Objects of one pixel add nothing but their
    count. No foreground: zero, with a gradient of zeros.
    """
    foreground = target.object_index > 0
    with full_precision(depth_logits.device):
        # The pixels first: a softmax over every pixel of every camera would mostly be thrown away.
        chosen = depth_logits.movedim(-3, -1)[foreground]  # [K, D]
        if not len(chosen):
            return zero_of(depth_logits)
        measured = target.depth[foreground].to(precise(chosen))
        predicted = expected_depth(chosen.T[..., None], bins, config.bin_centers)[:, 0]
        score = _reference_score(chosen.detach(), predicted.detach(), measured, config)
        group = _groups(target.object_index, foreground)
        reference = _first_smallest(score, group)[group]
        anchor = predicted.detach() if config.detach_reference else predicted
        difference = (predicted - anchor[reference]) - (measured - measured[reference])
        if config.reduction == "pixel_mean":
            return config.weight * difference.square().mean()
        objects = int(group.max()) + 1
        squares = difference.new_zeros(objects).index_add(0, group, difference.square())
        return config.weight * safe_sqrt(squares).sum()


def _reference_score(logits: Tensor, predicted: Tensor, measured: Tensor, config: InnerDepthConfig) -> Tensor:
    """What is smallest [K] at the reference pixel."""
    if config.reference == "highest_confidence":
        return -precise(logits).softmax(-1).amax(-1)
    if config.reference == "signed_error":
        return measured - predicted  # equation 2: argmin of (S_gt - S_predicted)
    return (predicted - measured).abs()


def _groups(object_index: Tensor, foreground: Tensor) -> Tensor:
    """Number 0..G-1 [K] of the (camera, object) that each foreground pixel belongs to."""
    image = torch.arange(object_index[..., 0, 0].numel(), device=object_index.device)
    image = image.view(object_index.shape[:-2])[..., None, None].expand_as(object_index)
    key = image * (int(object_index.max()) + 1) + object_index
    return torch.unique(key[foreground], return_inverse=True)[1]


def _first_smallest(score: Tensor, group: Tensor) -> Tensor:
    """Index [G] of each group's smallest score [K], the first one among equals."""
    count = int(group.max()) + 1
    smallest = torch.full((count,), torch.inf, device=score.device, dtype=score.dtype)
    smallest = smallest.scatter_reduce(0, group, score, "amin")
    position = torch.arange(len(score), device=score.device)
    position = torch.where(score <= smallest[group], position, len(score))
    first = torch.full((count,), len(score), device=score.device)
    return first.scatter_reduce(0, group, position, "amin").clamp(max=len(score) - 1)
