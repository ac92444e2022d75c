"""Denoising instances as the decoder sees them: extra queries in training that stay among themselves.

How they are made and what they must become is supervision's matter (`dualview.supervision.denoising`;
Sparse4Dv3, arXiv 2311.11722, section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dualview.networks.box_state import project_anchors
from dualview.networks.instance_memory import History


@dataclass(frozen=True)
class DenoisingQueries:
    """Noisy anchors of a training frame, in `group_count` groups of equal size that don't see each other.

    anchors [B, G S, 11] (current working frame). history_features [B, H, S', C], history_anchors [B, H, S',
    11]: the H groups remembered from the frame that the instance memory remembers (in that frame's working
    frame), or None.
    """

    anchors: Tensor
    group_count: int
    history_features: Tensor | None = None
    history_anchors: Tensor | None = None

    def blocked(self, free: int) -> Tensor:
        """bool [free + G S, free + G S], True = must not see: groups and the `free` ordinary instances are
        all separate."""
        group_size = self.anchors.shape[1] // self.group_count
        group = torch.arange(self.anchors.shape[1], device=self.anchors.device) // group_size
        group = torch.cat([group.new_full((free,), -1), group])
        return group[:, None] != group[None, :]


def fit_groups(remembered: Tensor, group_size: int) -> Tensor:
    """Remembered groups [B, H, S', ...] padded with zeros, or cut, to the current size: [B, H, group_size,
    ...]."""
    missing = group_size - remembered.shape[2]
    if missing <= 0:
        return remembered[:, :, :group_size]
    return F.pad(remembered, (0, 0) * (remembered.dim() - 3) + (0, missing))


def merge_remembered_groups(current: Tensor, remembered: Tensor, valid: Tensor, group_count: int) -> Tensor:
    """The first H groups of `current` [B, G S, ...] replaced by `remembered` [B, H, S', ...] in samples where
    `valid` [B]."""
    grouped = current.unflatten(1, (group_count, -1))
    remembered = fit_groups(remembered, grouped.shape[2]).to(current.dtype)
    count = remembered.shape[1]
    valid = valid.view(-1, *[1] * (grouped.dim() - 1))
    return torch.cat([torch.where(valid, remembered, grouped[:, :count]), grouped[:, count:]], 1).flatten(
        1, 2
    )


def merge_denoising_history(
    features: Tensor, anchors: Tensor, queries: DenoisingQueries, history: History | None, swapped_yaw: bool
) -> tuple[Tensor, Tensor]:
    """After the single-frame layers: remembered denoising groups take the place of fresh ones; shapes
    stay."""
    if history is None or queries.history_anchors is None or queries.history_features is None:
        return features, anchors
    moved = project_anchors(
        queries.history_anchors.flatten(1, 2), history.target_from_source, history.elapsed, swapped_yaw
    ).view_as(queries.history_anchors)
    merged_features = merge_remembered_groups(
        features, queries.history_features, history.valid, queries.group_count
    )
    return merged_features, merge_remembered_groups(anchors, moved, history.valid, queries.group_count)
